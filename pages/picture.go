package pages

import (
	"fmt"
	"image/color"
	"strings"

	"github.com/boombuler/barcode/qr"
)

// picture is a QR code as the path of an SVG.
type picture struct {
	Size int // of a side, in squares, with the quiet zone around
	Path string
}

// quietZone is what has to be left free around a QR code, in squares (ISO/IEC 18004).
const quietZone = 4

// draw draws a text as a QR code.
func draw(text string) (picture, error) {
	code, err := qr.Encode(text, qr.M, qr.Auto)
	if err != nil {
		return picture{}, fmt.Errorf("draw a QR code: %w", err)
	}
	side := code.Bounds().Dx()
	var path strings.Builder
	for y := range side {
		for x := 0; x < side; x++ {
			from := x
			for x < side && code.At(x, y) == color.Black {
				x++
			}
			if n := x - from; n > 0 {
				fmt.Fprintf(&path, "M%d %dh%dv1h-%dz", from+quietZone, y+quietZone, n, n)
			}
		}
	}
	return picture{side + 2*quietZone, path.String()}, nil
}
