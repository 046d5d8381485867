package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// What a terminal would obey, or show in another order, is shown as it is written; in JSON it is the same text.
func TestVisible(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"Ada\n\tÉva 世界 🎉":       "Ada\n\tÉva 世界 🎉",
		"\x1b[31mred\x1b[0m":    `\u001b[31mred\u001b[0m`,
		"a\u009b31mb\u0085\x7f": `a\u009b31mb\u0085\u007f`,
		"a\x9bb":                `a\x9bb`,
		"pay \u202eeman\u2066x": `pay \u202eeman\u2066x`,
		"one\rtwo\btoo":         `one\u000dtwo\u0008too`,
		"a\u2028b\u200fc":       `a\u2028b\u200fc`,
	} {
		for piece := 1; piece <= len(in); piece++ { // however the text is cut
			var out bytes.Buffer
			v := &visible{w: &out}
			for rest := in; rest != ""; rest = rest[min(piece, len(rest)):] {
				if n, err := v.Write([]byte(rest[:min(piece, len(rest))])); err != nil || n != min(piece, len(rest)) {
					t.Fatal(n, err)
				}
			}
			if out.String() != want {
				t.Errorf("%q in pieces of %d is %q, want %q", in, piece, &out, want)
			}
		}
	}
	var out bytes.Buffer
	name := "a\u009b\u202eb\u2028\x7f"
	if err := printJSON(&visible{w: &out}, map[string]string{"name": name}); err != nil {
		t.Fatal(err)
	}
	var read map[string]string
	if err := json.Unmarshal(out.Bytes(), &read); err != nil || read["name"] != name || strings.ContainsAny(out.String(), name[1:]) && strings.Contains(out.String(), "\u202e") {
		t.Errorf("as JSON it is %q, read again %q, %v", &out, read["name"], err)
	}
	// A cell is one line and one column, and the columns stay in line.
	out.Reset()
	if err := printTable(&out, []string{"NAME", "STATUS"}, [][]any{{"A\nB\tC\u202e", "active"}, {"Ada", "locked"}}); err != nil {
		t.Fatal(err)
	}
	if want := "NAME                   STATUS\n" + `A\u000aB\u0009C\u202e  active` + "\nAda                    locked\n"; out.String() != want {
		t.Errorf("the table is\n%s\nwant\n%s", &out, want)
	}
}
