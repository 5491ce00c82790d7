package thumbnail_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"go.uber.org/goleak"

	"github.com/wake-go/wake/examples/signup/internal/thumbnail"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// gradient is red towards the right and green towards the bottom.
func gradient(width, height int, alpha uint8) image.Image {
	m := image.NewNRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			m.SetNRGBA(x, y, color.NRGBA{uint8(255 * x / width), uint8(255 * y / height), 0, alpha})
		}
	}
	return m
}

func pngOf(t *testing.T, m image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func jpegOf(t *testing.T, m image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, m, nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// pngHeader is the beginning of a PNG that claims to have the size.
func pngHeader(width, height uint32, depth, colorType byte) []byte {
	ihdr := []byte("IHDR")
	ihdr = binary.BigEndian.AppendUint32(ihdr, width)
	ihdr = binary.BigEndian.AppendUint32(ihdr, height)
	ihdr = append(ihdr, depth, colorType, 0, 0, 0)
	b := []byte("\x89PNG\r\n\x1a\n\x00\x00\x00\x0d")
	b = append(b, ihdr...)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(ihdr))
}

// jpegHeader is the beginning of a color JPEG that claims to have the size; sof is 0xc0 for baseline and 0xc2 for
// progressive.
func jpegHeader(width, height uint16, sof byte) []byte {
	b := []byte{0xff, 0xd8, 0xff, sof, 0, 17, 8}
	b = binary.BigEndian.AppendUint16(b, height)
	b = binary.BigEndian.AppendUint16(b, width)
	return append(b, 3, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0, 0xff, 0xda, 0, 12)
}

// withOrientation puts an Exif segment behind the first marker.
func withOrientation(data []byte, orientation uint16) []byte {
	tiff := []byte("II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00")
	tiff = binary.LittleEndian.AppendUint16(tiff, orientation)
	tiff = append(tiff, 0, 0, 0, 0, 0, 0)
	segment := []byte{0xff, 0xe1}
	segment = binary.BigEndian.AppendUint16(segment, uint16(2+6+len(tiff)))
	segment = append(append(segment, "Exif\x00\x00"...), tiff...)
	return append(append(append([]byte{}, data[:2]...), segment...), data[2:]...)
}

func TestResizeFits(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		data          []byte
		width, height int
		format        string
	}{
		"wide JPEG":       {jpegOf(t, gradient(1024, 512, 255)), 256, 128, "jpeg"},
		"tall PNG":        {pngOf(t, gradient(300, 900, 255)), 85, 256, "jpeg"},
		"transparent PNG": {pngOf(t, gradient(512, 512, 100)), 256, 256, "png"},
		"small":           {pngOf(t, gradient(20, 10, 255)), 20, 10, "jpeg"},
		"a line":          {pngOf(t, gradient(2000, 1, 255)), 256, 1, "jpeg"},
	} {
		if err := thumbnail.Check(test.data); err != nil {
			t.Errorf("%s: Check = %v", name, err)
		}
		small, err := thumbnail.Resize(test.data, 256)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		config, format, err := image.DecodeConfig(bytes.NewReader(small))
		if err != nil || format != test.format || config.Width != test.width || config.Height != test.height {
			t.Errorf("%s: %s of %d × %d, %v; want %s of %d × %d", name,
				format, config.Width, config.Height, err, test.format, test.width, test.height)
		}
	}
}

func TestResizeHoldsThePictureUpright(t *testing.T) {
	t.Parallel()
	// Where the red side and the green side of the gradient are to be found in the upright picture.
	for orientation, want := range map[uint16]struct {
		width, height int
		red, green    image.Point
	}{
		1: {64, 32, image.Pt(62, 1), image.Pt(1, 30)},
		2: {64, 32, image.Pt(1, 1), image.Pt(62, 30)},
		3: {64, 32, image.Pt(1, 30), image.Pt(62, 1)},
		4: {64, 32, image.Pt(62, 30), image.Pt(1, 1)},
		5: {32, 64, image.Pt(1, 62), image.Pt(30, 1)},
		6: {32, 64, image.Pt(30, 62), image.Pt(1, 1)},
		7: {32, 64, image.Pt(30, 1), image.Pt(1, 62)},
		8: {32, 64, image.Pt(1, 1), image.Pt(30, 62)},
		9: {64, 32, image.Pt(62, 1), image.Pt(1, 30)}, // not a number that exists
	} {
		data := withOrientation(jpegOf(t, gradient(64, 32, 255)), orientation)
		small, err := thumbnail.Resize(data, 256)
		if err != nil {
			t.Fatal(err)
		}
		got, err := jpeg.Decode(bytes.NewReader(small))
		if err != nil {
			t.Fatal(err)
		}
		if size := got.Bounds().Size(); size != image.Pt(want.width, want.height) {
			t.Errorf("orientation %d: size %v", orientation, size)
			continue
		}
		if r, g, _, _ := got.At(want.red.X, want.red.Y).RGBA(); r < 0xb000 || g > 0x5000 {
			t.Errorf("orientation %d: red %x green %x where red should be", orientation, r, g)
		}
		if r, g, _, _ := got.At(want.green.X, want.green.Y).RGBA(); r > 0x5000 || g < 0xb000 {
			t.Errorf("orientation %d: red %x green %x where green should be", orientation, r, g)
		}
	}
}

func TestBytesAreBounded(t *testing.T) {
	t.Parallel()
	six := append(pngOf(t, gradient(10, 10, 255)), make([]byte, 6<<20)...)
	read := 0
	_, err := thumbnail.Read(countingReader{bytes.NewReader(six), &read})
	reject(t, "6 MiB", err, thumbnail.ErrTooLarge)
	if read > thumbnail.MaxBytes+1 {
		t.Errorf("read %d bytes of a picture that is too large", read)
	}
	if data, err := thumbnail.Read(bytes.NewReader(six[:thumbnail.MaxBytes])); err != nil || len(data) != thumbnail.MaxBytes {
		t.Errorf("5 MiB exactly: %d bytes, %v", len(data), err)
	}
	lost := errors.New("connection lost")
	_, err = thumbnail.Read(iotest.ErrReader(lost))
	if rejection := (*thumbnail.Rejection)(nil); !errors.Is(err, lost) || errors.As(err, &rejection) {
		t.Errorf("a failing reader gave %v, which is not about the picture", err)
	}
}

type countingReader struct {
	r io.Reader
	n *int
}

func (c countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	*c.n += n
	return n, err
}

// reject checks that err is a rejection for the reason, with a text for a person.
func reject(t *testing.T, name string, err, reason error) {
	t.Helper()
	var rejection *thumbnail.Rejection
	if !errors.As(err, &rejection) || !errors.Is(err, reason) {
		t.Errorf("%s: %v, want a rejection because %v", name, err, reason)
		return
	}
	if !strings.Contains(err.Error(), ": please ") {
		t.Errorf("%s: %q does not say what to do", name, err)
	}
}

func TestWrongTypes(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := gif.Encode(&b, gradient(10, 10, 255), nil); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"nothing": nil, "text": []byte("picture.png"), "GIF": b.Bytes(), "SVG": []byte("<svg xmlns='http://www.w3.org/2000/svg'/>"),
		"HTML": []byte("<!doctype html><script>"), "half a signature": []byte("\x89PNG"),
	} {
		_, err := thumbnail.Read(bytes.NewReader(data))
		reject(t, name, err, thumbnail.ErrType)
		reject(t, name, thumbnail.Check(data), thumbnail.ErrType)
	}
}

func TestTruncated(t *testing.T) {
	t.Parallel()
	for name, data := range map[string][]byte{
		"PNG":  pngOf(t, gradient(100, 80, 255)),
		"JPEG": jpegOf(t, gradient(100, 80, 255)),
	} {
		for _, keep := range []int{9, 20, len(data) / 4, len(data) / 2, len(data) - 20, len(data) - 2} {
			reject(t, name, thumbnail.Check(data[:keep]), thumbnail.ErrDamaged)
			_, err := thumbnail.Resize(data[:keep], 256)
			reject(t, name, err, thumbnail.ErrDamaged)
		}
	}
	flipped := pngOf(t, gradient(100, 80, 255))
	flipped[len(flipped)/2] ^= 1
	reject(t, "flipped bit", thumbnail.Check(flipped), thumbnail.ErrDamaged)
}

// Not parallel: it measures what the whole process allocates.
func TestBombsAreRefusedWithoutDecoding(t *testing.T) {
	scans := jpegHeader(4000, 3000, 0xc2)
	for range 200_000 {
		scans = append(scans, 0xff, 0xda, 0, 8, 1, 1, 0, 0, 63, 0)
	}
	for name, test := range map[string]struct {
		data   []byte
		reason error
	}{
		"50,000² PNG":            {pngHeader(50_000, 50_000, 8, 6), thumbnail.ErrDimensions},
		"widest PNG":             {pngHeader(1<<31-1, 1, 8, 0), thumbnail.ErrDimensions},
		"largest PNG":            {pngHeader(1<<31-1, 1<<31-1, 1, 0), thumbnail.ErrDamaged}, // refused by the decoder itself
		"12,001 wide":            {pngHeader(12_001, 10, 8, 6), thumbnail.ErrDimensions},
		"25 megapixels":          {pngHeader(5000, 5000, 8, 6), thumbnail.ErrDimensions},
		"65,535² JPEG":           {jpegHeader(65_535, 65_535, 0xc0), thumbnail.ErrDimensions},
		"24 MP progressive JPEG": {jpegHeader(6000, 4000, 0xc2), thumbnail.ErrDimensions},
		"200,000 scans":          {scans, thumbnail.ErrDamaged},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := thumbnail.Check(test.data)
		runtime.ReadMemStats(&after)
		reject(t, name, err, test.reason)
		if allocated := after.TotalAlloc - before.TotalAlloc; allocated > 1<<20 {
			t.Errorf("%s: %d bytes were allocated to refuse it", name, allocated)
		}
	}
}

func TestOrdinaryLargePicturesPass(t *testing.T) {
	t.Parallel()
	for name, data := range map[string][]byte{
		"24 MP PNG":             pngHeader(6000, 4000, 8, 6),
		"24 MP 16-bit PNG":      pngHeader(6000, 4000, 16, 6),
		"24 MP JPEG":            jpegHeader(6000, 4000, 0xc0),
		"12 MP progressive":     jpegHeader(4000, 3000, 0xc2),
		"a panorama at a limit": pngHeader(12_000, 2000, 8, 6),
	} {
		if err := thumbnail.Inspect(data); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestResizeRefusesNoSize(t *testing.T) {
	t.Parallel()
	if _, err := thumbnail.Resize(pngOf(t, gradient(10, 10, 255)), 0); err == nil {
		t.Error("Resize to 0 pixels succeeded")
	}
}

func FuzzResize(f *testing.F) {
	var b bytes.Buffer
	if err := jpeg.Encode(&b, gradient(20, 10, 255), nil); err != nil {
		f.Fatal(err)
	}
	f.Add(withOrientation(b.Bytes(), 6))
	f.Add(pngHeader(10, 10, 8, 6))
	f.Fuzz(func(t *testing.T, data []byte) {
		small, err := thumbnail.Resize(data, 16)
		if err != nil {
			if rejection := (*thumbnail.Rejection)(nil); !errors.As(err, &rejection) {
				t.Errorf("Resize = %v, want a rejection", err)
			}
			return
		}
		config, _, err := image.DecodeConfig(bytes.NewReader(small))
		if err != nil || config.Width > 16 || config.Height > 16 {
			t.Errorf("a thumbnail of %d × %d, %v", config.Width, config.Height, err)
		}
	})
}
