package thumbnail

import (
	"bytes"
	"encoding/binary"
	"iter"
)

// JPEG markers: the byte after 0xff that says what a segment holds.
const (
	markerProgressive = 0xc2
	markerScan        = 0xda
	markerEnd         = 0xd9
	markerApp1        = 0xe1
)

// jpegSegments yields the segments before the first scan.
func jpegSegments(data []byte) iter.Seq2[byte, []byte] {
	return func(yield func(marker byte, payload []byte) bool) {
		for rest := data[2:]; len(rest) >= 4 && rest[0] == 0xff; {
			marker := rest[1]
			if marker == 0xff { // padding
				rest = rest[1:]
				continue
			}
			length := int(binary.BigEndian.Uint16(rest[2:]))
			if marker == markerScan || marker == markerEnd || length < 2 || length+2 > len(rest) {
				return
			}
			if !yield(marker, rest[4:length+2]) {
				return
			}
			rest = rest[length+2:]
		}
	}
}

// jpegScans tells whether a JPEG is progressive, and the number of its scans at most: data may look like a marker.
func jpegScans(data []byte) (progressive bool, scans int) {
	for marker := range jpegSegments(data) {
		if marker == markerProgressive {
			progressive = true
		}
	}
	return progressive, bytes.Count(data, []byte{0xff, markerScan})
}

// jpegOrientation returns how the camera was held, as Exif numbers it: 1 is upright, and so is a picture that does not
// say.
func jpegOrientation(data []byte) int {
	for marker, payload := range jpegSegments(data) {
		if tiff, ok := bytes.CutPrefix(payload, []byte("Exif\x00\x00")); ok && marker == markerApp1 {
			return tiffOrientation(tiff)
		}
	}
	return 1
}

func tiffOrientation(tiff []byte) int {
	const (
		entrySize      = 12
		tagOrientation = 0x112
	)
	var order binary.ByteOrder = binary.BigEndian
	if bytes.HasPrefix(tiff, []byte("II")) {
		order = binary.LittleEndian
	}
	if len(tiff) < 8 {
		return 1
	}
	offset := uint64(order.Uint32(tiff[4:]))
	if offset+2 > uint64(len(tiff)) {
		return 1
	}
	count, entries := order.Uint16(tiff[offset:]), tiff[offset+2:]
	for range count {
		if len(entries) < entrySize {
			return 1
		}
		if order.Uint16(entries) == tagOrientation {
			if o := int(order.Uint16(entries[8:])); o >= 1 && o <= 8 {
				return o
			}
			return 1
		}
		entries = entries[entrySize:]
	}
	return 1
}
