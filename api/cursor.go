package api

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"strings"
)

// positionCursor is where a page of events ends, authenticated, and bound to the list that it was given out for.
//
// Its form is base64url of the position (8 bytes) and the first 16 bytes of an HMAC-SHA-256 over list and position.
func positionCursor(key []byte, list string, position int64) string {
	raw := binary.BigEndian.AppendUint64(nil, uint64(position))
	return base64.RawURLEncoding.EncodeToString(append(raw, cursorMAC(key, list, raw)...))
}

// parsePositionCursor reads a cursor; the empty one is the beginning of the list. It fails with code invalid_cursor.
func parsePositionCursor(key []byte, list, cursor string) (int64, error) {
	if cursor == "" {
		return 0, nil
	}
	invalid := refuse(codeInvalidCursor, "")
	raw, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	// The decoder passes over line breaks, which would give one cursor many texts.
	if err != nil || len(raw) != 8+16 || strings.ContainsAny(cursor, "\r\n") {
		return 0, invalid
	}
	if !hmac.Equal(raw[8:], cursorMAC(key, list, raw[:8])) {
		return 0, invalid
	}
	return int64(binary.BigEndian.Uint64(raw[:8])), nil
}

func cursorMAC(key []byte, list string, position []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(list))
	mac.Write([]byte{0})
	mac.Write(position)
	return mac.Sum(nil)[:16]
}
