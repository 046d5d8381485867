package server

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func FuzzParseForm(f *testing.F) {
	for _, seed := range []string{"", "token=a&token_type_hint=b", "token=a&token=b", "token=%ff", "a=%00", "a;b", "&&&=", "%zz=1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		got, err := parseForm(body)
		if err != nil {
			return
		}
		for name, values := range got {
			if len(values) != 1 || !IsText(name) || !IsText(values[0]) {
				t.Errorf("parseForm(%q) = %q", body, got)
			}
		}
		again, err := parseForm(got.Encode())
		if diff := cmp.Diff(got, again); err != nil || diff != "" {
			t.Errorf("written and read again (%v):\n%s", err, diff)
		}
	})
}
