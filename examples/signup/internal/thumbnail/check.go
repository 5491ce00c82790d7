// Package thumbnail checks uploaded pictures and makes small ones of them.
//
// A picture comes from a stranger, so it is looked at in three steps, each of which protects the next: [Read] bounds
// the bytes, [Inspect] reads the header and bounds the memory and the time that decoding can take, and only then
// [Check] and [Resize] decode. The last two are CPU-bound for up to a second; call them where that disturbs nobody.
package thumbnail

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io"
)

const (
	// MaxBytes is the size of the largest file accepted.
	MaxBytes = 5 << 20
	// MaxSide is the longest side accepted, in pixels.
	MaxSide = 12_000
	// MaxPixels is what the sides may multiply to: 24 megapixels, a telephone's camera.
	MaxPixels = 24_000_000

	// maxMemory bounds what decoding allocates. It lets every ordinary picture of MaxPixels pass, and refuses
	// progressive JPEGs beyond about 13 megapixels, whose coefficients are all kept until the last scan.
	maxMemory = 200 << 20
	// maxScans bounds the scans of a progressive JPEG, each of which visits every pixel. Ten are usual; five megabytes
	// have room for a hundred thousand.
	maxScans = 100
)

// Read reads a picture of at most [MaxBytes] and inspects it. A picture that it refuses is a [*Rejection]; any other
// error is the reader's.
func Read(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, MaxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read the picture: %w", err)
	}
	if err := Inspect(data); err != nil {
		return nil, err
	}
	return data, nil
}

// Inspect refuses, with a [*Rejection], what is too large, not a PNG or JPEG by its content, or would cost too much
// to decode. It looks at the header only, so it is quick, and a picture that ends too early passes: see [Check].
func Inspect(data []byte) error {
	if len(data) > MaxBytes {
		return &Rejection{ErrTooLarge, "The picture is larger than 5 MiB: please choose a smaller one.", nil}
	}
	format, err := formatOf(data)
	if err != nil {
		return err
	}
	config, err := format.config(bytes.NewReader(data))
	if err != nil {
		return damaged(err)
	}
	if config.Width > MaxSide || config.Height > MaxSide || config.Width*config.Height > MaxPixels {
		return &Rejection{ErrDimensions, fmt.Sprintf(
			"The picture has %d × %d pixels: please choose one of at most 24 megapixels, and at most 12,000 on a side.",
			config.Width, config.Height), nil}
	}
	cost := pixelBytes(config.ColorModel)
	if format.isJPEG {
		progressive, scans := jpegScans(data)
		if progressive {
			cost += 4 * 3 // a coefficient of 4 bytes for each of three colors
		}
		if scans > maxScans {
			return &Rejection{ErrDamaged, "The picture is stored in an unusual way: please save it anew.", nil}
		}
	}
	if config.Width*config.Height*cost > maxMemory {
		return &Rejection{ErrDimensions, "The picture takes too much memory to decode: please choose a smaller one.", nil}
	}
	return nil
}

// Check is [Inspect], and then decodes the picture, which alone shows that it is complete. Two bytes less are enough
// to be refused, with a [*Rejection].
func Check(data []byte) error {
	_, _, err := decode(data)
	return err
}

func decode(data []byte) (image.Image, format, error) {
	if err := Inspect(data); err != nil {
		return nil, format{}, err
	}
	f, err := formatOf(data)
	if err != nil {
		return nil, format{}, err
	}
	picture, err := f.decode(bytes.NewReader(data))
	if err != nil {
		return nil, format{}, damaged(err)
	}
	return picture, f, nil
}

// format is what the first bytes of a picture tell. The registry of package image is not asked: any package of the
// program may add formats to it, whose decoders nobody here has thought about.
type format struct {
	isJPEG bool
	config func(io.Reader) (image.Config, error)
	decode func(io.Reader) (image.Image, error)
}

func formatOf(data []byte) (format, error) {
	switch {
	case bytes.HasPrefix(data, []byte("\x89PNG\r\n\x1a\n")):
		return format{false, png.DecodeConfig, png.Decode}, nil
	case bytes.HasPrefix(data, []byte("\xff\xd8\xff")):
		return format{true, jpeg.DecodeConfig, jpeg.Decode}, nil
	}
	return format{}, &Rejection{ErrType, "The file is not a PNG or JPEG picture: please choose one that is.", nil}
}

// pixelBytes returns the memory of one decoded pixel.
func pixelBytes(model color.Model) int {
	switch model {
	case color.GrayModel:
		return 1
	case color.Gray16Model:
		return 2
	case color.YCbCrModel:
		return 3
	case color.RGBAModel, color.NRGBAModel, color.CMYKModel:
		return 4
	case color.RGBA64Model, color.NRGBA64Model:
		return 8
	}
	return 1 // a palette, which cannot be compared
}
