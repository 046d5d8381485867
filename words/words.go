// Package words is how texts are kept in every language that usher speaks, and how the language is found that somebody reads.
//
// A room that says something to people has a struct of texts, a Tongue in it, and a catalogue: a file of JSON a language, which has
// all of the struct and nothing else. So a text that is not there does not compile, or is found as the catalogue is loaded. What
// a catalogue can't be asked at once, whether everything is there and in the right language, package wordstest asks in a test.
//
// It knows no text itself.
package words

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"reflect"
	"strings"

	"golang.org/x/text/feature/plural"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
	"golang.org/x/text/number"
)

// Languages are those that there are texts in. The first is for whoever wants none of them.
var Languages = []language.Tag{language.English, language.German, language.French, language.Spanish, language.Japanese, language.Arabic}

// Tongue is which language texts are in. Their struct embeds it.
type Tongue struct {
	Language  string `json:"-"` // as in HTML's lang
	Direction string `json:"direction"`
}

// Phrase is a text with a place {name} for something.
type Phrase string

// With is the text with a value in its place.
func (p Phrase) With(name, value string) string {
	return strings.ReplaceAll(string(p), "{"+name+"}", value)
}

// Plural is a text about a number, {n}, in each form that the language has for one (CLDR).
type Plural struct {
	language language.Tag
	forms    map[string]Phrase
}

// UnmarshalJSON reads the forms by their names.
func (p *Plural) UnmarshalJSON(raw []byte) error { return json.Unmarshal(raw, &p.forms) }

// Forms are the text's forms by their names.
func (p Plural) Forms() map[string]Phrase { return p.forms }

// For is the text about a number.
func (p Plural) For(n int) string {
	return p.forms[Form(p.language, n)].With("n", message.NewPrinter(p.language).Sprint(number.Decimal(n)))
}

var formNames = map[plural.Form]string{
	plural.Zero: "zero", plural.One: "one", plural.Two: "two", plural.Few: "few", plural.Many: "many", plural.Other: "other",
}

// Form is the name of the form that a language has for a whole number.
func Form(tag language.Tag, n int) string {
	return formNames[plural.Cardinal.MatchPlural(tag, n, 0, 0, 0, 0)]
}

// Catalogue is the texts of a T in every language.
type Catalogue[T any] struct {
	list []*T // as Languages are
}

// Load reads a catalogue: from a folder, the file that is called as each language is, such as en.json.
func Load[T any](folder fs.FS) (*Catalogue[T], error) {
	c := &Catalogue[T]{}
	for _, tag := range Languages {
		t, err := read[T](folder, tag)
		if err != nil {
			return nil, fmt.Errorf("read the words in %s: %w", tag, err)
		}
		c.list = append(c.list, t)
	}
	return c, nil
}

func read[T any](folder fs.FS, tag language.Tag) (*T, error) {
	raw, err := fs.ReadFile(folder, tag.String()+".json")
	if err != nil {
		return nil, err
	}
	var t T
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&t); err != nil {
		return nil, err
	}
	tell(reflect.ValueOf(&t).Elem(), tag)
	return &t, nil
}

// tell has everything in a struct of texts that depends on it know the language.
func tell(v reflect.Value, tag language.Tag) {
	switch in := v.Addr().Interface().(type) {
	case *Tongue:
		in.Language = tag.String()
	case *Plural:
		in.language = tag
	default:
		if v.Kind() == reflect.Struct {
			for _, inner := range v.Fields() {
				tell(inner, tag)
			}
		}
	}
}

// All are the texts in every language, as Languages are.
func (c *Catalogue[T]) All() []*T { return c.list }

// Choose is the texts in the first language that somebody wishes for: see Match.
func (c *Catalogue[T]) Choose(wishes ...string) *T { return c.list[Match(wishes...)] }

var matcher = language.NewMatcher(Languages)

// maxWishes bounds what is read of a wish for languages, in bytes.
const maxWishes = 512

// Match is which of Languages is the first that somebody wishes for. A wish is a list as ui_locales has it (OpenID Connect,
// section 3.1.2.1), the locale of a user, or as in Accept-Language; "" for none. The first wish that names a language which there
// is, or one whose speakers mostly read one of those, counts.
func Match(wishes ...string) int {
	for _, wish := range wishes {
		if len(wish) > maxWishes {
			wish = wish[:maxWishes]
		}
		wish = strings.Join(strings.Fields(strings.ReplaceAll(wish, "_", "-")), " ")
		if !strings.ContainsAny(wish, ",;") {
			wish = strings.ReplaceAll(wish, " ", ",")
		}
		tags, _, err := language.ParseAcceptLanguage(wish)
		if err != nil || len(tags) == 0 {
			continue
		}
		if _, at, confidence := matcher.Match(tags...); confidence > language.No {
			return at
		}
	}
	return 0
}
