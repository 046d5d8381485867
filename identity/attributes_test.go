package identity

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"usher.example/eventstore"
)

func TestMergeAttributes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ present, patch, want string }{
		// The examples of RFC 7396, appendix A, that are between objects.
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`{"e":null}`, `{"a":1}`, `{"a":1,"e":null}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},

		{`{"b":1,"a":2}`, ` { } `, `{"a":2,"b":1}`},
		{`{}`, `{"n":12345678901234567890.50,"m":1e2,"a":[null,true,{}]}`, `{"a":[null,true,{}],"m":1e2,"n":12345678901234567890.50}`},
		{`{}`, `{"a":{"b":{"c":{"d":[]}}}}`, `{"a":{"b":{"c":{"d":[]}}}}`},
		{`{}`, `{"` + strings.Repeat("k", 64) + `":1}`, `{"` + strings.Repeat("k", 64) + `":1}`},
		{`{}`, `{"a":"` + strings.Repeat("x", 8<<10-8) + `"}`, `{"a":"` + strings.Repeat("x", 8<<10-8) + `"}`},
	} {
		got, err := MergeAttributes(json.RawMessage(c.present), json.RawMessage(c.patch))
		if err != nil || string(got) != c.want {
			t.Errorf("MergeAttributes(%s, %s) = %s, %v, want %s", c.present, c.patch, got, err, c.want)
		}
	}
}

func TestAttributesRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ raw, says string }{
		{``, "not a JSON object"},
		{`null`, "not a JSON object"},
		{`[]`, "not a JSON object"},
		{`"a"`, "not a JSON object"},
		{`{"a":1`, "not a JSON object"},
		{`{"a":1} {}`, "not a JSON object"},
		{"{\"a\":\"\xff\"}", "UTF-8"},
		{`{"a":"x\u0000"}`, "NUL"},
		{`{"a":{"\u0000":1}}`, "NUL"},
		{`{"a":[["x\u0000"]]}`, "NUL"},
		{`{"":1}`, "1 to 64 bytes"},
		{`{"a":[{"":1}]}`, "1 to 64 bytes"},
		{`{"` + strings.Repeat("k", 65) + `":1}`, "1 to 64 bytes"},
		{`{"a":{"b":{"c":{"d":{"e":{}}}}}}`, "5 deep"},
		{`{"a":[[[[[]]]]]}`, "5 deep"},
		{`{"a":1e400}`, "out of range"},
		{`{"a":"` + strings.Repeat("x", 8<<10-7) + `"}`, "8193 bytes, at most 8192"},
	} {
		_, err := ParseAttributes(json.RawMessage(c.raw))
		if !errors.Is(err, ErrInvalidAttributes) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("ParseAttributes(%.60q) = %v, want ErrInvalidAttributes that says %q", c.raw, err, c.says)
		}
	}
	// What is there counts too.
	half := json.RawMessage(`{"a":"` + strings.Repeat("x", 5000) + `"}`)
	if _, err := MergeAttributes(half, json.RawMessage(`{"b":"`+strings.Repeat("y", 5000)+`"}`)); !errors.Is(err, ErrInvalidAttributes) {
		t.Errorf("MergeAttributes to more than may be = %v, want ErrInvalidAttributes", err)
	}
}

// A value that is no name may be empty or long; only names are bounded.
func TestAttributeValuesAreNoNames(t *testing.T) {
	t.Parallel()
	raw := `{"a":["","` + strings.Repeat("x", 100) + `",{"b":"","c":"` + strings.Repeat("y", 100) + `"}],"d":""}`
	if got, err := ParseAttributes(json.RawMessage(raw)); err != nil || string(got) != raw {
		t.Errorf("ParseAttributes(%s) = %s, %v", raw, got, err)
	}
}

func FuzzParseAttributes(f *testing.F) {
	for _, seed := range []string{`{}`, `{"a":{"b":[1,2.5e3,null,true,"x\u00e9"]}}`, `{"a":"\ud800"}`, `[{]}`, `{"a":1e999}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		once, err := ParseAttributes(json.RawMessage(raw))
		if err != nil {
			if !errors.Is(err, ErrInvalidAttributes) {
				t.Fatal(err)
			}
			return
		}
		again, err := ParseAttributes(once)
		if err != nil || string(again) != string(once) {
			t.Fatalf("%s becomes %s, %v", once, again, err)
		}
	})
}

func TestUpdateOwnProfile(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, func(c *Config) { c.UserAttributes = []string{"city"} })
		u := mustRegister(t, s, "ada@example.org")
		name := "  Ada Lovelace "
		if _, err := s.ChangeUser(t.Context(), u.ID, UserChange{ProfileChange: ProfileChange{Name: &name, Attributes: json.RawMessage(`{"plan":"paid","city":"Bath"}`)}}, eventstore.Metadata{}); err != nil {
			t.Fatal(err)
		}
		own := func(patch string) error {
			_, err := s.UpdateOwnProfile(t.Context(), u.ID, ProfileChange{Attributes: json.RawMessage(patch)}, eventstore.Metadata{})
			return err
		}
		if err := own(`{"city":"London"}`); err != nil {
			t.Error(err)
		}
		for _, patch := range []string{`{"plan":"free"}`, `{"city":"York","plan":null}`} {
			if err := own(patch); CodeOf(err) != CodeForbidden || !strings.Contains(err.Error(), `"plan"`) {
				t.Errorf("own attributes %s: %v, want CodeForbidden of the plan", patch, err)
			}
		}
		before := len(d.events(t, s))
		again, err := s.UpdateOwnProfile(t.Context(), u.ID, ProfileChange{Name: &name, Attributes: json.RawMessage(`{"city":"London"}`)}, eventstore.Metadata{})
		if err != nil || again.Version != 3 {
			t.Errorf("a change to what is there already = %+v, %v, want version 3", again, err)
		}
		if n := len(d.events(t, s)); n != before {
			t.Errorf("%d events, want %d: nothing changed", n, before)
		}
		got, err := s.User(t.Context(), u.ID)
		if err != nil || got.Name != "Ada Lovelace" || string(got.Attributes) != `{"city":"London","plan":"paid"}` {
			t.Errorf("User = %+v, %v", got, err)
		}
		if err := d.service(t, func(c *Config) { c.UserAttributes = []string{"*"} }).maySetAttributes(json.RawMessage(`{"plan":1}`)); err != nil {
			t.Errorf("with %q: %v", "*", err)
		}
	})
}

// The language is everybody's own to choose, whatever else an application lets users set.
func TestUpdateOwnLocale(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, nil)
		u := mustRegister(t, s, "ada@example.org")
		choose := func(locale string) error {
			_, err := s.UpdateOwnProfile(t.Context(), u.ID, ProfileChange{Locale: &locale}, eventstore.Metadata{})
			return err
		}
		for _, locale := range []string{"de", "de", "pt-BR", ""} {
			if err := choose(locale); err != nil {
				t.Errorf("%q: %v", locale, err)
			}
			if present, err := s.User(t.Context(), u.ID); err != nil || present.Locale() != locale {
				t.Errorf("the locale is %q, %v, want %q", present.Locale(), err, locale)
			}
		}
		if got, want := len(d.events(t, s)), 4; got != want {
			t.Errorf("there are %d events, want %d", got, want)
		}
		for _, locale := range []string{"no language", "d", strings.Repeat("de-", 40) + "de", "de\x00"} {
			wantCode(t, locale, choose(locale), CodeInvalidAttributes)
		}
	})
}
