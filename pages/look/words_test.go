package look

import (
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/text/feature/plural"
	"golang.org/x/text/language"
)

// TestWords looks at every text in every language: it is there, says something else than in English, and has the same places for
// values; a text about a number has each form that the language has, and no other.
func TestWords(t *testing.T) {
	t.Parallel()
	list, err := loadWords()
	if err != nil {
		t.Fatal(err)
	}
	english := textsOf(reflect.ValueOf(*list[0]), "")
	for i, w := range list {
		texts := textsOf(reflect.ValueOf(*w), "")
		for name, text := range texts {
			if phrase, ok := text.(string); ok {
				if phrase == "" {
					t.Errorf("%s: %s is empty", languages[i], name)
				}
				if got, want := places(phrase), places(english[name].(string)); !slices.Equal(got, want) {
					t.Errorf("%s: %s has places for %v, want %v", languages[i], name, got, want)
				}
				if i > 0 && len(phrase) > 8 && phrase == english[name] {
					t.Errorf("%s: %s is in English", languages[i], name)
				}
				continue
			}
			forms := text.(Plural).forms
			if got, want := slices.Sorted(maps.Keys(forms)), pluralForms(languages[i]); !slices.Equal(got, want) {
				t.Errorf("%s: %s has the forms %v, want %v", languages[i], name, got, want)
			}
			for form, phrase := range forms {
				if got := places(string(phrase)); !slices.Equal(got, []string{"{n}"}) {
					t.Errorf("%s: %s, %s, has places for %v", languages[i], name, form, got)
				}
			}
		}
		if len(texts) != len(english) {
			t.Errorf("%s: %d texts, want %d", languages[i], len(texts), len(english))
		}
	}
}

// textsOf are the texts in words, by the names of their fields.
func textsOf(v reflect.Value, name string) map[string]any {
	texts := map[string]any{}
	switch {
	case v.Type() == reflect.TypeFor[Plural]():
		texts[name] = v.Interface()
	case v.Kind() == reflect.String:
		texts[name] = v.String()
	case v.Kind() == reflect.Struct:
		for f, inner := range v.Fields() {
			maps.Copy(texts, textsOf(inner, strings.Trim(name+"."+f.Name, ".")))
		}
	}
	return texts
}

var place = regexp.MustCompile(`\{[^}]*\}`)

func places(text string) []string {
	list := place.FindAllString(text, -1)
	slices.Sort(list)
	return list
}

// pluralForms are the forms that a language has for whole numbers.
func pluralForms(tag language.Tag) []string {
	forms := map[string]bool{}
	for n := range 2_000 {
		forms[formNames[plural.Cardinal.MatchPlural(tag, n, 0, 0, 0, 0)]] = true
	}
	forms[formNames[plural.Cardinal.MatchPlural(tag, 1_000_000, 0, 0, 0, 0)]] = true
	return slices.Sorted(maps.Keys(forms))
}

func TestPlural(t *testing.T) {
	t.Parallel()
	l := newLook(t, Config{})
	for _, test := range []struct {
		language string
		n        int
		want     string
	}{
		{"en", 1, "Try again in 1 second."},
		{"en", 1200, "Try again in 1,200 seconds."},
		{"de", 1, "in 1 Sekunde noch"},
		{"de", 1200, "in 1.200 Sekunden noch"},
		{"fr", 0, "dans 0 seconde."},
		{"fr", 2, "dans 2 secondes."},
		{"es", 1, "de 1 segundo."},
		{"ja", 1, "1 秒後"},
		{"ar", 2, "ثانيتين (٢)"},
		{"ar", 3, "٣ ثوانٍ"},
		{"ar", 11, "١١ ثانية"},
	} {
		if got := l.Choose(test.language).Failed.TooOften.For(test.n); !strings.Contains(got, test.want) {
			t.Errorf("%s, %d: %q, want %q in it", test.language, test.n, got, test.want)
		}
	}
}

func TestChoose(t *testing.T) {
	t.Parallel()
	l := newLook(t, Config{})
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
		if got := l.Choose(test.uiLocales, test.locale, test.accept).Language; got != test.want {
			t.Errorf("Choose(%q, %q, %.40q) = %s, want %s", test.uiLocales, test.locale, test.accept, got, test.want)
		}
	}
}

func FuzzChoose(f *testing.F) {
	l, err := New(Config{})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{"de-AT,de;q=0.9", "fr es", "zh_Hant_TW", "x-a-b-c", "*;q=0", "-", "de\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, wish string) {
		if l.Choose(wish) == nil {
			t.Error("no words")
		}
	})
}
