package words

import (
	"strings"
	"testing"
	"testing/fstest"
)

func TestMatch(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		uiLocales, locale, accept, want string
	}{
		{"", "", "", "en"},
		{"", "", "de-AT,de;q=0.9,en;q=0.5", "de"},
		{"", "", "nl;q=0.9, fr;q=0.2", "fr"},
		{"", "", "en;q=0.1, ja;q=0.9", "ja"},
		{"", "", "xx-nonsense;;;q", "en"},
		{"", "", strings.Repeat("de-", 4000), "en"},
		{"", "ar_EG", "de", "ar"},
		{"", "ar", "de", "ar"},
		{"", "nl", "de", "de"},
		{"", "gsw-CH", "en", "de"},
		{"fr-CA fr en", "ar", "de", "fr"},
		{"nl es", "ar", "de", "es"},
		{"nl", "ja-JP", "de", "ja"},
	} {
		if got := Languages[Match(test.uiLocales, test.locale, test.accept)].String(); got != test.want {
			t.Errorf("Match(%q, %q, %.40q) = %s, want %s", test.uiLocales, test.locale, test.accept, got, test.want)
		}
	}
}

func FuzzMatch(f *testing.F) {
	for _, seed := range []string{"de-AT,de;q=0.9", "fr es", "zh_Hant_TW", "x-a-b-c", "*;q=0", "-", "de\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, wish string) {
		if at := Match(wish); at < 0 || at >= len(Languages) {
			t.Errorf("Match(%q) = %d", wish, at)
		}
	})
}

type texts struct {
	Tongue
	Hello Phrase `json:"hello"`
	Times struct {
		Again Plural `json:"again"`
	} `json:"times"`
}

func catalogue(change map[string]string) fstest.MapFS {
	folder := fstest.MapFS{}
	for _, tag := range Languages {
		text := `{"direction": "ltr", "hello": "Hello {name}", "times": {"again": {"one": "{n} time", "other": "{n} times"}}}`
		if other, is := change[tag.String()]; is {
			text = other
		}
		folder[tag.String()+".json"] = &fstest.MapFile{Data: []byte(text)}
	}
	return folder
}

func TestLoad(t *testing.T) {
	t.Parallel()
	c, err := Load[texts](catalogue(nil))
	if err != nil {
		t.Fatal(err)
	}
	german := c.Choose("de")
	if german.Language != "de" || german.Hello.With("name", "Ada") != "Hello Ada" || german.Times.Again.For(1200) != "1.200 times" {
		t.Errorf("Choose() = %+v", german)
	}
	for name, text := range map[string]string{"a text too many": `{"direction": "ltr", "bye": "Bye"}`, "no JSON": "{", "another type": `{"hello": 1}`} {
		if _, err := Load[texts](catalogue(map[string]string{"fr": text})); err == nil || !strings.Contains(err.Error(), "words in fr") {
			t.Errorf("%s: Load() = %v", name, err)
		}
	}
	if _, err := Load[texts](fstest.MapFS{}); err == nil {
		t.Error("no catalogue is no error")
	}
}
