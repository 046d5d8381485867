// Package wordstest is what every catalogue of texts passes.
package wordstest

import (
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/text/language"

	"usher.example/words"
)

// Complete looks at every text in every language: it is there, says something else than in English, and has the same places for
// values; a text about a number has each form that the language has, and no other; the direction is one of HTML's.
func Complete[T any](t *testing.T, c *words.Catalogue[T]) {
	t.Helper()
	list := c.All()
	english := textsOf(reflect.ValueOf(*list[0]), "")
	for i, w := range list {
		texts := textsOf(reflect.ValueOf(*w), "")
		if len(texts) != len(english) {
			t.Errorf("%s: %d texts, want %d", words.Languages[i], len(texts), len(english))
		}
		for name, text := range texts {
			if _, there := english[name]; !there {
				t.Errorf("%s: %s is not there in English", words.Languages[i], name)
				continue
			}
			for _, wrong := range faults(words.Languages[i], name, text, english[name]) {
				t.Errorf("%s: %s %s", words.Languages[i], name, wrong)
			}
		}
	}
}

func faults(tag language.Tag, name string, text, english any) (list []string) {
	if about, is := text.(words.Plural); is {
		forms := about.Forms()
		if got, want := slices.Sorted(maps.Keys(forms)), formsOf(tag); !slices.Equal(got, want) {
			list = append(list, fmt.Sprintf("has the forms %v, want %v", got, want))
		}
		for form, phrase := range forms {
			if got := places(string(phrase)); !slices.Equal(got, []string{"{n}"}) {
				list = append(list, fmt.Sprintf("has, as %s, places for %v", form, got))
			}
		}
		return list
	}
	phrase, same := text.(string), english.(string)
	if phrase == "" {
		list = append(list, "is empty")
	}
	if got, want := places(phrase), places(same); !slices.Equal(got, want) {
		list = append(list, fmt.Sprintf("has places for %v, want %v", got, want))
	}
	if tag != words.Languages[0] && phrase == same && len(place.ReplaceAllString(phrase, "")) > maxName {
		list = append(list, "is in English")
	}
	if direction := strings.HasSuffix(name, "Tongue.Direction"); direction && phrase != "ltr" && phrase != "rtl" {
		list = append(list, "is no direction")
	}
	return list
}

// maxName is how long a text may be that several languages may have in common, such as the names of months.
const maxName = len("September")

// textsOf are the texts in a value, by the names of their fields.
func textsOf(v reflect.Value, name string) map[string]any {
	texts := map[string]any{}
	switch {
	case v.Type() == reflect.TypeFor[words.Plural]():
		texts[name] = v.Interface()
	case v.Kind() == reflect.String:
		texts[name] = v.String()
	case v.Kind() == reflect.Array:
		for i := range v.Len() {
			maps.Copy(texts, textsOf(v.Index(i), fmt.Sprintf("%s[%d]", name, i)))
		}
	case v.Kind() == reflect.Map:
		for _, key := range v.MapKeys() {
			maps.Copy(texts, textsOf(v.MapIndex(key), name+"."+key.String()))
		}
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

// formsOf are the forms that a language has for whole numbers.
func formsOf(tag language.Tag) []string {
	forms := map[string]bool{}
	for n := range 2_000 {
		forms[words.Form(tag, n)] = true
	}
	forms[words.Form(tag, 1_000_000)] = true
	return slices.Sorted(maps.Keys(forms))
}
