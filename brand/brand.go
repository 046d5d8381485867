// Package brand is in whose name people are addressed, on pages and in mails: a name, a colour and a logo.
//
// The colour is moved as far as it takes for everybody to read it, on light and on dark grounds.
package brand

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

// Brand is whose service it is.
type Brand struct {
	Name   string
	Colour string // #rrggbb; ours when empty
	Logo   []byte // a picture: SVG, PNG, JPEG or WebP; none when empty
}

const ourColour = "#2457c5"

// The grounds that something in the brand's colour may stand on, in the stylesheets of pages and mails too: the darkest of the light
// ones and the lightest of the dark ones.
var (
	lightGround = colour{0xf4, 0xf5, 0xf7}
	darkGround  = colour{0x1d, 0x20, 0x26}
)

// leastContrast is what WCAG 2.2 asks for between a text and what is behind it (1.4.3).
const leastContrast = 4.5

// Colours are the brand's colour, moved towards black or white as far as it takes to be read on light and on dark grounds. White is
// read on the first then, and black on the second.
func (b Brand) Colours() (onLight, onDark string, err error) {
	c, err := ParseColour(cmp.Or(b.Colour, ourColour))
	if err != nil {
		return "", "", err
	}
	return c.until(colour{}, lightGround).String(), c.until(colour{255, 255, 255}, darkGround).String(), nil
}

type colour [3]uint8

var hexColour = regexp.MustCompile(`^#[0-9a-fA-F]{6}$`)

// ParseColour reads a colour of the form #rrggbb.
func ParseColour(text string) (c colour, err error) {
	if !hexColour.MatchString(text) {
		return c, errors.New("the colour has to be of the form #rrggbb")
	}
	n, err := strconv.ParseUint(text[1:], 16, 24+1)
	return colour{uint8(n >> 16), uint8(n >> 8), uint8(n)}, err
}

func (c colour) String() string { return fmt.Sprintf("#%02x%02x%02x", c[0], c[1], c[2]) }

// until moves a colour towards another until it has the contrast that a text needs on a background.
func (c colour) until(towards, ground colour) colour {
	for step := range 101 {
		var moved colour
		for i := range c {
			moved[i] = uint8((int(c[i])*(100-step) + int(towards[i])*step) / 100)
		}
		if contrast(moved, ground) >= leastContrast {
			return moved
		}
	}
	return towards
}

// contrast is the contrast ratio of WCAG 2.2.
func contrast(a, b colour) float64 {
	x, y := a.luminance(), b.luminance()
	return (max(x, y) + 0.05) / (min(x, y) + 0.05)
}

func (c colour) luminance() float64 {
	weights := [3]float64{0.2126, 0.7152, 0.0722}
	sum := 0.0
	for i, w := range weights {
		v := float64(c[i]) / 255
		if v <= 0.04045 {
			v /= 12.92
		} else {
			v = math.Pow((v+0.055)/1.055, 2.4)
		}
		sum += w * v
	}
	return sum
}

// MaxLogo bounds a logo, in bytes: each page brings it along once.
const MaxLogo = 256 << 10

// Picture is what kind of picture a logo is.
type Picture struct{ ContentType, Extension string }

// Picture finds out what the logo is, by looking at it. It fails where that is none of what browsers show.
func (b Brand) Picture() (Picture, error) {
	if len(b.Logo) > MaxLogo {
		return Picture{}, fmt.Errorf("the logo is larger than %d bytes", MaxLogo)
	}
	p := Picture{ContentType: http.DetectContentType(b.Logo)}
	known := false
	if p.Extension, known = map[string]string{"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp"}[p.ContentType]; known {
		return p, nil
	}
	if strings.Contains(string(b.Logo[:min(len(b.Logo), 1024)]), "<svg") {
		return Picture{"image/svg+xml", ".svg"}, nil
	}
	return Picture{}, errors.New("the logo is neither SVG, PNG, JPEG nor WebP")
}
