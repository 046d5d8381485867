// Package look is what everything that a person sees in a browser has in common: the layout, one stylesheet of ours, the brand,
// and the words in every language.
//
// Pages are html/template files, each checked against the Go struct that it is filled from before anything is served, whether
// it is ours or one that an operator put in its place: see Parse. So no page can fail because of what it is made of.
//
// Guarantees: a page asks for nothing from another host, and needs no script; its stylesheet has the brand's colour in it, so that
// nothing is inline; every text is there in every language.
//
// It does not answer requests (package pages) and knows nothing of users.
package look

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"io"
	"io/fs"

	"github.com/jba/templatecheck"

	"usher.example/brand"
	"usher.example/words"
)

//go:embed layout.html style.css
var files embed.FS

// Config is what a Look is made of.
type Config struct {
	Brand brand.Brand
	// Replaced has the templates that stand in for ours of the same name. It may be nil.
	Replaced fs.FS
}

// Look is how the pages of a process look. It is safe for concurrent use.
type Look struct {
	brand    brand.Brand
	replaced fs.FS
	words    *words.Catalogue[Words]
	style    Asset
	logo     *Asset
}

// Asset is a file that pages refer to. Its path has a hash of its content in it, so it may be kept for ever.
type Asset struct {
	Path, ContentType string
	Content           []byte
}

// AssetsPath is what the paths of all assets begin with.
const AssetsPath = "/assets/"

func newAsset(name, extension, contentType string, content []byte) Asset {
	sum := sha256.Sum256(content)
	return Asset{AssetsPath + name + "-" + base64.RawURLEncoding.EncodeToString(sum[:9]) + extension, contentType, content}
}

// New makes a look. It fails where the brand can't be used.
func New(c Config) (*Look, error) {
	style, err := files.ReadFile("style.css")
	if err != nil {
		return nil, err
	}
	onLight, onDark, err := c.Brand.Colours()
	if err != nil {
		return nil, err
	}
	// Nothing is inline, so the brand's colours are the stylesheet's beginning.
	colours := fmt.Appendf(nil, ":root{--brand-on-light:%s;--brand-on-dark:%s}\n", onLight, onDark)
	l := &Look{brand: c.Brand, replaced: c.Replaced, style: newAsset("style", ".css", "text/css; charset=utf-8", append(colours, style...))}
	if l.words, err = loadWords(); err != nil {
		return nil, err
	}
	if len(c.Brand.Logo) > 0 {
		logo, err := c.Brand.Picture()
		if err != nil {
			return nil, err
		}
		asset := newAsset("logo", logo.Extension, logo.ContentType, c.Brand.Logo)
		l.logo = &asset
	}
	return l, nil
}

// Assets are the files that pages refer to.
func (l *Look) Assets() []Asset {
	if l.logo == nil {
		return []Asset{l.style}
	}
	return []Asset{l.style, *l.logo}
}

// View is what every page is drawn with. The struct of a page embeds it.
type View struct {
	Words *Words
	Brand string // the name
	Logo  string // its path; "" for none
	Style string // the path of the stylesheet
	Nav   *Nav   // nil on pages that are nobody's
}

// Nav leads whoever is logged in through the account.
type Nav struct {
	Who  string // the name, or the address where there is none
	Here string // the path of the page
}

// View is that of a page in a language: see Words.
func (l *Look) View(w *Words) View {
	v := View{Words: w, Brand: l.brand.Name, Style: l.style.Path}
	if l.logo != nil {
		v.Logo = l.logo.Path
	}
	return v
}

// Tongue is a language that pages are in.
type Tongue struct{ Tag, Name string }

// Tongues are all of them, each by its own name.
func (l *Look) Tongues() (list []Tongue) {
	for _, w := range l.words.All() {
		list = append(list, Tongue{w.Language, w.Layout.Tongue})
	}
	return list
}

// Option is one of a field that is chosen from several.
type Option struct{ Value, Label string }

// Field is one of a form's.
type Field struct {
	Name, Label  string
	Type         string // of the input: text, email, password
	Autocomplete string // the token of HTML for it
	Value        string
	Hint         string
	Errors       []string // what is wrong with the value
	Optional     bool
	Numeric      bool     // is typed on the digits of a phone's keyboard
	Options      []Option // to choose from; none for one that is typed
}

// Page is one kind of page, which is filled from a T.
type Page[T any] struct {
	template *templatecheck.CheckedTemplate[T]
}

// Parse reads the template of a page: the file of that name in Config.Replaced if there is one, else in ours. It fails where the
// template asks for what a T has not.
func Parse[T any](l *Look, ours fs.FS, name string) (*Page[T], error) {
	t := template.New("layout.html")
	for _, part := range []struct {
		name string
		in   fs.FS
	}{{"layout.html", files}, {name, ours}} {
		text, err := l.read(part.in, part.name)
		if err != nil {
			return nil, fmt.Errorf("read the template %s: %w", part.name, err)
		}
		if _, err := t.Parse(string(text)); err != nil {
			return nil, fmt.Errorf("read the template %s: %w", part.name, err)
		}
	}
	checked, err := templatecheck.NewChecked[T](t)
	if err != nil {
		return nil, fmt.Errorf("check the template %s: %w", name, err)
	}
	// Contexts are told apart when a template is first used: better now than for somebody.
	var nothing T
	if err := checked.Execute(io.Discard, nothing); isContextError(err) {
		return nil, fmt.Errorf("check the template %s: %w", name, err)
	}
	return &Page[T]{checked}, nil
}

func isContextError(err error) bool {
	var wrong *template.Error
	return errors.As(err, &wrong)
}

func (l *Look) read(ours fs.FS, name string) ([]byte, error) {
	if l.replaced != nil {
		text, err := fs.ReadFile(l.replaced, name)
		if !errors.Is(err, fs.ErrNotExist) {
			return text, err
		}
	}
	return fs.ReadFile(ours, name)
}

// Render is the page filled from data.
func (p *Page[T]) Render(data T) ([]byte, error) {
	var b bytes.Buffer
	b.Grow(4 << 10)
	if err := p.template.Execute(&b, data); err != nil {
		return nil, fmt.Errorf("fill a page: %w", err)
	}
	return b.Bytes(), nil
}
