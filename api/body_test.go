package api

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzCheckJSON: what passes is an object of known fields, each once, which encoding/json reads without loss.
func FuzzCheckJSON(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"a":"b"}`, `{"a":{"a":1,"a":2}}`, `{"a":[{"x":"\u0000"}]}`, `{"a":"\ud83d\ude00"}`, `{"a":"\ud83d"}`, `{"a":"\\ud83d"}`,
		`{"a":1}{}`, `{"\u0061":1,"a":2}`, `[`, `{"b":null,"a":{"b":[[],{}]}}`, "{\"a\":\"\xff\"}", ``, ` `,
	} {
		f.Add([]byte(s))
	}
	names := []string{"a", "b"}
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) == 0 || checkJSON(body, names) != nil {
			return
		}
		var object map[string]json.RawMessage
		if err := json.Unmarshal(body, &object); err != nil {
			t.Fatalf("%q passed: %v", body, err)
		}
		for name := range object {
			if !slices.Contains(names, name) {
				t.Fatalf("%q passed with the field %q", body, name)
			}
		}
		var value any
		if err := json.Unmarshal(body, &value); err != nil {
			t.Fatal(err)
		}
		again, err := json.Marshal(value)
		if err != nil || !utf8.Valid(again) || strings.Contains(string(again), `\u0000`) && !strings.Contains(string(again), `\\u0000`) {
			t.Fatalf("%q passed as %q, %v", body, again, err)
		}
		if strings.Contains(string(again), "\ufffd") && !strings.Contains(string(body), "\ufffd") && !strings.Contains(strings.ToLower(string(body)), `\ufffd`) {
			t.Fatalf("%q passed, and a character was replaced: %q", body, again)
		}
	})
}

func TestLoneSurrogate(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		`"x"`: false, `"\n"`: false, `"\\ud83d"`: false, `"\\\ud83d"`: true, `"\ud83d\ude00"`: false, `"\uD83D\uDE00"`: false,
		`"\ud83d"`: true, `"\ude00"`: true, `"\ude00\ud83d"`: true, `"\ud83d\ud83d\ude00"`: true, `"\ud83dx\ude00"`: true, `"\ud83d\`: true, `\u12`: false,
	} {
		if got := loneSurrogate([]byte(text)); got != want {
			t.Errorf("loneSurrogate(%s) = %v, want %v", text, got, want)
		}
	}
}

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
