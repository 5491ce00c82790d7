package thumbnail

import (
	"bytes"
	"fmt"
	"image"
	"image/jpeg"
	"image/png"

	"golang.org/x/image/draw"
)

const jpegQuality = 85

// Resize returns the picture, made to fit a square of maxSide pixels: a JPEG, or a PNG if parts are transparent. A
// smaller picture keeps its size. Nothing of the file but its pixels is kept, so what a camera noted about place and
// time is gone; how the camera was held is applied first.
func Resize(data []byte, maxSide int) ([]byte, error) {
	if maxSide < 1 {
		return nil, fmt.Errorf("resize to %d pixels: a picture has at least 1", maxSide)
	}
	picture, format, err := decode(data)
	if err != nil {
		return nil, err
	}
	bounds := picture.Bounds()
	small := image.NewRGBA(fit(bounds.Dx(), bounds.Dy(), maxSide))
	draw.CatmullRom.Scale(small, small.Bounds(), picture, bounds, draw.Src, nil)
	if format.isJPEG {
		small = upright(small, jpegOrientation(data))
	}

	var encoded bytes.Buffer
	if small.Opaque() {
		err = jpeg.Encode(&encoded, small, &jpeg.Options{Quality: jpegQuality})
	} else {
		err = png.Encode(&encoded, small)
	}
	if err != nil {
		return nil, fmt.Errorf("encode the thumbnail: %w", err)
	}
	return encoded.Bytes(), nil
}

// fit returns the largest size of the same shape that fits the square.
func fit(width, height, maxSide int) image.Rectangle {
	longest := max(width, height)
	if longest > maxSide {
		width = max(1, width*maxSide/longest)
		height = max(1, height*maxSide/longest)
	}
	return image.Rect(0, 0, width, height)
}

// upright turns and mirrors a picture as its Exif orientation demands.
func upright(src *image.RGBA, orientation int) *image.RGBA {
	if orientation == 1 {
		return src
	}
	w, h := src.Rect.Dx(), src.Rect.Dy()
	dst := image.NewRGBA(image.Rect(0, 0, w, h))
	if orientation >= 5 { // lies on its side
		dst = image.NewRGBA(image.Rect(0, 0, h, w))
	}
	for y := range h {
		for x := range w {
			toX, toY := x, y
			switch orientation {
			case 2:
				toX = w - 1 - x
			case 3:
				toX, toY = w-1-x, h-1-y
			case 4:
				toY = h - 1 - y
			case 5:
				toX, toY = y, x
			case 6:
				toX, toY = h-1-y, x
			case 7:
				toX, toY = h-1-y, w-1-x
			case 8:
				toX, toY = y, w-1-x
			}
			dst.SetRGBA(toX, toY, src.RGBAAt(x, y))
		}
	}
	return dst
}
