package projections

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"time"

	"github.com/google/uuid"
)

// cursor is where a page ends: at the user with this time and id.
type cursor struct {
	createdAt time.Time
	id        uuid.UUID
}

// A cursor's text is, in base64: its form (1 byte, 1), the time in microseconds since 1970 (8 bytes, big-endian), the
// id (16 bytes), and the first 16 bytes of the HMAC-SHA-256 of all that and of the list that it belongs to.
const (
	cursorForm    = 1
	cursorContent = 1 + 8 + 16
	cursorTag     = 16
)

var cursorText = base64.RawURLEncoding.Strict()

func encodeCursor(key []byte, list string, c cursor) string {
	raw := make([]byte, 1, cursorContent+cursorTag)
	raw[0] = cursorForm
	raw = binary.BigEndian.AppendUint64(raw, uint64(c.createdAt.UnixMicro()))
	raw = append(raw, c.id[:]...)
	return cursorText.EncodeToString(append(raw, cursorMAC(key, list, raw)...))
}

// decodeCursor fails with ErrBadCursor for everything that encodeCursor did not make for the same list.
func decodeCursor(key []byte, list, text string) (cursor, error) {
	raw, err := cursorText.DecodeString(text)
	if err != nil || len(text) != cursorText.EncodedLen(cursorContent+cursorTag) || raw[0] != cursorForm {
		return cursor{}, ErrBadCursor
	}
	content := raw[:cursorContent]
	if !hmac.Equal(raw[cursorContent:], cursorMAC(key, list, content)) {
		return cursor{}, ErrBadCursor
	}
	return cursor{time.UnixMicro(int64(binary.BigEndian.Uint64(content[1:9]))).UTC(), uuid.UUID(content[9:])}, nil
}

func cursorMAC(key []byte, list string, content []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write(content)
	mac.Write([]byte(list))
	return mac.Sum(nil)[:cursorTag]
}
