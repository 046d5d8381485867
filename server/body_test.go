package server

import (
	"encoding/json"
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
	fields := map[string]nulls{"a": nullMembers, "b": nullItself}
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) == 0 || checkJSON(body, fields) != nil {
			return
		}
		var object map[string]json.RawMessage
		if err := json.Unmarshal(body, &object); err != nil {
			t.Fatalf("%q passed: %v", body, err)
		}
		for name := range object {
			if _, known := fields[name]; !known {
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
