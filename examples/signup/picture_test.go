package main

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"hash/crc32"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math"
	"math/rand/v2"
	"mime/multipart"
	"testing"
)

// photo is a sunset at sea, with the grain and the detail that make a photograph slow to decode.
func photo(width, height int) *image.RGBA {
	random := rand.New(rand.NewPCG(1, 2))
	m := image.NewRGBA(image.Rect(0, 0, width, height))
	sunX, sunY, horizon := 0.62, 0.52, 0.6
	for py := range height {
		y := float64(py) / float64(height)
		for px := range width {
			x := float64(px) / float64(width)
			distance := math.Hypot((x-sunX)*float64(width)/float64(height), y-sunY)
			glow := math.Exp(-distance * 5)
			r, g, b := 40+170*y+190*glow, 60+70*y+130*glow, 120+10*y-20*glow
			switch {
			case y > horizon: // the sea, and the sun's path on it
				depth := (y - horizon) / (1 - horizon)
				wave := math.Sin(420*math.Sqrt(depth+0.01)+6*math.Sin(x*40+depth*9)) * (0.35 + depth)
				path := math.Exp(-math.Abs(x-sunX) * (14 - 9*depth))
				r, g, b = 22+30*wave+210*path*(0.6+0.4*wave), 52+26*wave+130*path*(0.6+0.4*wave), 92+30*wave+30*path
			case distance < 0.085:
				r, g, b = 255, 236, 190
			}
			grain := random.Float64()*14 - 7
			m.SetRGBA(px, py, color.RGBA{level(r + grain), level(g + grain), level(b + grain), 255})
		}
	}
	return m
}

func level(v float64) uint8 { return uint8(max(0, min(255, v))) }

func jpegOf(t testing.TB, m image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, m, &jpeg.Options{Quality: 90}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func pngOf(t testing.TB, m image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// bomb is a complete PNG of a few kilobytes that takes 169 megabytes when it is decoded.
func bomb(t testing.TB) []byte {
	t.Helper()
	const side = 13_000
	var pixels bytes.Buffer
	z := zlib.NewWriter(&pixels)
	row := make([]byte, 1+(side+7)/8) // a bit a pixel, and the filter's number
	for range side {
		if _, err := z.Write(row); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return append(append(pngHeader(side, side, 1, 0), pngChunk("IDAT", pixels.Bytes())...), pngChunk("IEND", nil)...)
}

// pngHeader is the beginning of a PNG that claims to have the size.
func pngHeader(width, height uint32, depth, colorType byte) []byte {
	header := binary.BigEndian.AppendUint32(nil, width)
	header = binary.BigEndian.AppendUint32(header, height)
	return append([]byte("\x89PNG\r\n\x1a\n"), pngChunk("IHDR", append(header, depth, colorType, 0, 0, 0))...)
}

func pngChunk(kind string, content []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(content)))
	b = append(append(b, kind...), content...)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b[4:]))
}

// form is a multipart body with one file.
func form(t testing.TB, field string, content []byte) (body []byte, contentType string) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	part, err := w.CreateFormFile(field, "picture")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := part.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), w.FormDataContentType()
}
