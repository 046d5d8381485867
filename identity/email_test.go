package identity

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestParseEmail(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 64)
	for in, key := range map[string]string{
		"ada@example.org":                "ada@example.org",
		"  Ada@Example.ORG\n":            "ada@example.org",
		"Ada.Love+lace@example.co.uk":    "ada.love+lace@example.co.uk",
		"o'brien!#$%&*=?^_`{|}~-/@x.org": "o'brien!#$%&*=?^_`{|}~-/@x.org",
		long + "@example.org":            long + "@example.org",
		"STRASSE@example.org":            "strasse@example.org",
		"Straße@example.org":             "strasse@example.org",
		"ｆｕｌｌ@example.org":               "full@example.org",
		"e\u0301a@example.org":           "éa@example.org",
		"ÉA@example.org":                 "éa@example.org",
		"иван@почта.рф":                  "иван@xn--80a1acny.xn--p1ai",
		"x@BÜCHER.example":               "x@xn--bcher-kva.example",
		"x@xn--bcher-kva.example":        "x@xn--bcher-kva.example",
		"x@example。org":                  "x@example.org",
		"root@localhost":                 "root@localhost",
		"😀@example.org":                  "😀@example.org",
	} {
		e, err := ParseEmail(in)
		if err != nil {
			t.Errorf("ParseEmail(%q): %v", in, err)
			continue
		}
		if e.Key() != key {
			t.Errorf("ParseEmail(%q).Key() = %q, want %q", in, e.Key(), key)
		}
		if e.String() != strings.TrimSpace(in) {
			t.Errorf("ParseEmail(%q) = %q, want it as it was typed", in, e)
		}
	}
	for in, reason := range map[string]string{
		"":                              "empty",
		" \t":                           "empty",
		"ada":                           "no @",
		"@example.org":                  "nothing stands before",
		"ada@":                          "nothing stands after",
		"a@b@example.org":               "more than one",
		"ada\xff@example.org":           "UTF-8",
		"a\x00da@example.org":           "can't be there",
		"a da@example.org":              "can't be there",
		"a\u00a0da@example.org":         "can't be there",
		"a\u200bda@example.org":         "can't be there",  // zero width space
		"a\u202eda@example.org":         "can't be there",  // right-to-left override
		"a＠b@example.org":               "can't be there",  // full-width @ becomes @
		"a．．b@example.org":              "follows another", // so do full-width dots
		"ada(comment)@example.org":      "can't be there",
		`"ada love"@example.org`:        "can't be there",
		".ada@example.org":              "dot",
		"ada.@example.org":              "dot",
		"a..da@example.org":             "dot",
		long + "a@example.org":          "longer than 64",
		"a@" + strings.Repeat("b", 260): "longer than 254",
		"ada@[127.0.0.1]":               "literal",
		"ada@127.0.0.1":                 "numbers",
		"ada@intranet":                  "no dot",
		"ada@example.org.":              "domain",
		"ada@example..org":              "domain",
		"ada@-example.org":              "domain",
		"ada@exa_mple.org":              "domain",
		"ada@exa mple.org":              "domain",
		"ada@example.org\x00":           "domain",
		"ada@example.org (comment)":     "domain",
		"ada@" + long + ".org":          "domain", // a label has at most 63
		"ada@xn--a.org":                 "domain",
	} {
		_, err := ParseEmail(in)
		if !errors.Is(err, ErrInvalidEmail) || !strings.Contains(err.Error(), reason) {
			t.Errorf("ParseEmail(%q) = %v, want a refusal with %q", in, err, reason)
		}
	}
}

func FuzzParseEmail(f *testing.F) {
	for _, s := range []string{"ada@example.org", "Straße@BÜCHER.example", "a＠b@example.org", "ﬀ@x.org", "İ@x.org", "ͅ@x.org"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		e, err := ParseEmail(text)
		if err != nil {
			if !errors.Is(err, ErrInvalidEmail) {
				t.Fatalf("ParseEmail(%q): %v", text, err)
			}
			return
		}
		local, domain, _ := strings.Cut(e.Key(), "@")
		if strings.Contains(domain, "@") || local == "" || domain == "" || !utf8.ValidString(e.Key()) {
			t.Fatalf("ParseEmail(%q).Key() = %q", text, e.Key())
		}
		again, err := ParseEmail(e.Key())
		if err != nil || again.Key() != e.Key() {
			t.Fatalf("ParseEmail(%q).Key() = %q, whose key is %q, %v", text, e.Key(), again.Key(), err)
		}
	})
}

func TestParseName(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                       "",
		"  Ada Lovelace ":        "Ada Lovelace",
		"山田 太郎":                  "山田 太郎",
		strings.Repeat("é", 200): strings.Repeat("é", 200),
	} {
		if got, err := ParseName(in); err != nil || got != want {
			t.Errorf("ParseName(%q) = %q, %v, want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"a\x00b", "a\nb", "a\x1bb", "a\u2028b", "\xff", strings.Repeat("a", 201)} {
		if got, err := ParseName(in); !errors.Is(err, ErrInvalidName) {
			t.Errorf("ParseName(%q) = %q, %v, want a refusal", in, got, err)
		}
	}
}
