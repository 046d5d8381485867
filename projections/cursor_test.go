package projections

import (
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"
)

// Whatever is taken for a cursor is one: it is what encodeCursor makes of its content.
func FuzzDecodeCursor(f *testing.F) {
	key := []byte("key")
	f.Add(encodeCursor(key, "users", cursor{time.UnixMicro(1_700_000_000_000_000).UTC(), uuid.MustParse("0198a1b2-0000-7000-8000-000000000001")}))
	f.Add(encodeCursor(key, "others", cursor{}))
	f.Add("")
	f.Add("AQ")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := decodeCursor(key, "users", text)
		if err != nil {
			if !errors.Is(err, ErrBadCursor) {
				t.Errorf("decodeCursor(%q) = %v, want %v", text, err, ErrBadCursor)
			}
			return
		}
		if again := encodeCursor(key, "users", c); again != text {
			t.Errorf("decodeCursor(%q) = %v, which is encoded as %q", text, c, again)
		}
	})
}
