package brand

import "testing"

// TestContrast holds every colour that text may have against what it stands on, for brands of every colour: WCAG 2.2, 1.4.3.
func TestContrast(t *testing.T) {
	t.Parallel()
	white, black := colour{255, 255, 255}, colour{}
	for i := range 16 * 16 * 16 {
		brand := colour{uint8(i>>8) * 17, uint8(i>>4&15) * 17, uint8(i&15) * 17}
		light, dark := brand.until(black, lightGround), brand.until(white, darkGround)
		for _, pair := range [][2]colour{{light, lightGround}, {light, white}, {dark, darkGround}, {dark, {0x14, 0x16, 0x1a}}, {black, dark}} {
			if got := contrast(pair[0], pair[1]); got < leastContrast {
				t.Fatalf("brand %s: contrast of %s on %s is %.2f", brand, pair[0], pair[1], got)
			}
		}
	}
	if got := contrast(white, black); got != 21 {
		t.Errorf("contrast of white and black = %v, want 21", got)
	}
	// A colour that can be read already stays what it is.
	if got := (colour{0, 0, 128}).until(black, lightGround); got != (colour{0, 0, 128}) {
		t.Errorf("navy became %s", got)
	}
}
