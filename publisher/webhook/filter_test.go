package webhook

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var someTypes = []string{"key.rotated", "user.locked", "user.registered"}

func TestParseFilters(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ in, want []string }{
		{nil, []string{"*"}},
		{[]string{}, []string{"*"}},
		{[]string{"user.locked"}, []string{"user.locked"}},
		{[]string{"user.*", "key.rotated", "user.*"}, []string{"user.*", "key.rotated"}},
		{[]string{"*"}, []string{"*"}},
	} {
		got, err := parseFilters(c.in, someTypes)
		if err != nil {
			t.Errorf("parseFilters(%q): %v", c.in, err)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("parseFilters(%q) (-want +got):\n%s", c.in, diff)
		}
	}
	for _, filter := range []string{"", "user", "user.", "users.*", "user.l*", "user*", "*.locked", "**", ".*", "USER.LOCKED", " user.locked", "user.locked\x00", strings.Repeat("x", 5000)} {
		_, err := parseFilters([]string{"user.*", filter}, someTypes)
		if !errors.Is(err, ErrUnknownEvent) || !strings.Contains(err.Error(), "user.registered") || len(err.Error()) > 1000 {
			t.Errorf("parseFilters(%.20q) = %v, want ErrUnknownEvent with the types that there are", filter, err)
		}
	}
	if _, err := parseFilters(make([]string, maxFilters+1), someTypes); !errors.Is(err, ErrUnknownEvent) {
		t.Errorf("parseFilters of too many = %v", err)
	}
}

func TestWants(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		filters []string
		passes  string // of someTypes, in their order
	}{
		{[]string{"*"}, "yes yes yes"},
		{[]string{"user.*"}, "no yes yes"},
		{[]string{"user.locked"}, "no yes no"},
		{[]string{"user.locked", "key.*"}, "yes yes no"},
	} {
		var got []string
		for _, eventType := range someTypes {
			got = append(got, map[bool]string{true: "yes", false: "no"}[wants(c.filters, eventType)])
		}
		if strings.Join(got, " ") != c.passes {
			t.Errorf("%q: %q pass: %s, want %s", c.filters, someTypes, strings.Join(got, " "), c.passes)
		}
	}
}
