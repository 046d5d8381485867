package api

import "testing"

func FuzzPositionCursor(f *testing.F) {
	key := []byte("key")
	f.Add(positionCursor(key, "list", 7))
	f.Add("")
	f.Add("AAAA")
	f.Fuzz(func(t *testing.T, cursor string) {
		position, err := parsePositionCursor(key, "list", cursor)
		if err == nil && cursor != "" && positionCursor(key, "list", position) != cursor {
			t.Fatalf("%q is read as %d, whose cursor is another", cursor, position)
		}
	})
}

func TestPositionCursor(t *testing.T) {
	t.Parallel()
	key := []byte("key")
	cursor := positionCursor(key, "list", 1<<40)
	if got, err := parsePositionCursor(key, "list", cursor); err != nil || got != 1<<40 {
		t.Errorf("parse = %d, %v", got, err)
	}
	for name, parse := range map[string]func() (int64, error){
		"another list": func() (int64, error) { return parsePositionCursor(key, "other", cursor) },
		"another key":  func() (int64, error) { return parsePositionCursor([]byte("other"), "list", cursor) },
		"a line break": func() (int64, error) { return parsePositionCursor(key, "list", cursor+"\n") },
		"altered":      func() (int64, error) { return parsePositionCursor(key, "list", "B"+cursor[1:]) },
	} {
		if got, err := parse(); err == nil {
			t.Errorf("%s: read as %d", name, got)
		}
	}
}
