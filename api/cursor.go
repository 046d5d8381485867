package api

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"strings"

	"github.com/google/uuid"

	"usher.example/server"
)

// page is a part of a list.
type page[T any] struct {
	Items      []T    `json:"items"`
	NextCursor string `json:"next_cursor,omitempty"`
}

// pageOf makes a page of a number of items, of which there are more if one too many was read.
func pageOf[T any](items []T, size int, cursor func(last T) string) page[T] {
	if len(items) <= size {
		return page[T]{Items: items}
	}
	return page[T]{items[:size], cursor(items[size-1])}
}

// A cursor is where a page ends, authenticated, and bound to the list that it was given out for. Its form is base64url of
// the place, a number of bytes, and the first 16 bytes of an HMAC-SHA-256 over list and place.

func cursorOf(key []byte, list string, place []byte) string {
	return base64.RawURLEncoding.EncodeToString(append(place, cursorMAC(key, list, place)...))
}

// parseCursor reads a cursor whose place has a size. It fails with code invalid_cursor.
func parseCursor(key []byte, list, cursor string, size int) (place []byte, err error) {
	invalid := server.Refuse(server.CodeInvalidCursor, "")
	raw, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	// The decoder passes over line breaks, which would give one cursor many texts.
	if err != nil || len(raw) != size+16 || strings.ContainsAny(cursor, "\r\n") {
		return nil, invalid
	}
	if !hmac.Equal(raw[size:], cursorMAC(key, list, raw[:size])) {
		return nil, invalid
	}
	return raw[:size], nil
}

// positionCursor is where a page of events ends.
func positionCursor(key []byte, list string, position int64) string {
	return cursorOf(key, list, binary.BigEndian.AppendUint64(nil, uint64(position)))
}

// parsePositionCursor reads a cursor; the empty one is the beginning of the list. It fails with code invalid_cursor.
func parsePositionCursor(key []byte, list, cursor string) (int64, error) {
	if cursor == "" {
		return 0, nil
	}
	place, err := parseCursor(key, list, cursor, 8)
	if err != nil {
		return 0, err
	}
	return int64(binary.BigEndian.Uint64(place)), nil
}

// idCursor is where a page of a list in the order of ids ends.
func idCursor(key []byte, list string, id uuid.UUID) string { return cursorOf(key, list, id[:]) }

// parseIDCursor reads a cursor; the empty one is the beginning of the list. It fails with code invalid_cursor.
func parseIDCursor(key []byte, list, cursor string) (id uuid.UUID, err error) {
	if cursor == "" {
		return uuid.Nil, nil
	}
	place, err := parseCursor(key, list, cursor, len(id))
	if err != nil {
		return uuid.Nil, err
	}
	return uuid.UUID(place), nil
}

func cursorMAC(key []byte, list string, place []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(list))
	mac.Write([]byte{0})
	mac.Write(place)
	return mac.Sum(nil)[:16]
}
