package look

import (
	"strings"
	"testing"
	"testing/fstest"

	"usher.example/brand"
)

func newLook(t *testing.T, c Config) *Look {
	t.Helper()
	l, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

type greeting struct {
	View
	Field Field
}

func ours(text string) fstest.MapFS { return fstest.MapFS{"greeting.html": {Data: []byte(text)}} }

const greetingPage = `{{define "title"}}Hello{{end}}{{define "main"}}<h1>{{.Words.Home.Title}}</h1>{{template "field" .Field}}{{end}}`

func TestPage(t *testing.T) {
	t.Parallel()
	l := newLook(t, Config{Brand: brand.Brand{Name: "Müller & <Söhne>"}})
	page, err := Parse[greeting](l, ours(greetingPage), "greeting.html")
	if err != nil {
		t.Fatal(err)
	}
	html, err := page.Render(greeting{l.View(l.Choose("ar")), Field{Name: "email", Label: `"><script>`, Type: "email", Autocomplete: "username", Value: `"><script>`, Errors: []string{"<b>"}}})
	if err != nil {
		t.Fatal(err)
	}
	text := string(html)
	for _, wanted := range []string{
		`<html lang="ar" dir="rtl">`, "Müller &amp; &lt;Söhne&gt;", `autocomplete="username"`, `type="email"`,
		`aria-invalid="true" autofocus aria-describedby="email-errors"`, `<ul class="errors" id="email-errors"><li>&lt;b&gt;</li></ul>`, l.Assets()[0].Path,
	} {
		if !strings.Contains(text, wanted) {
			t.Errorf("the page lacks %s", wanted)
		}
	}
	for _, refused := range []string{"<script", "ZgotmplZ", "style=", "<b>"} {
		if strings.Contains(text, refused) {
			t.Errorf("the page has %s:\n%s", refused, text)
		}
	}
}

func TestPageReplaced(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, text, wanted, err string }{
		{"another", `{{define "title"}}x{{end}}{{define "main"}}<h1>Theirs {{.Brand}}</h1>{{end}}`, "<h1>Theirs usher</h1>", ""},
		{"of a field that is not there", `{{define "title"}}x{{end}}{{define "main"}}{{if .Logo}}{{.Words.Home.Tittle}}{{end}}{{end}}`, "", "Tittle"},
		{"that can't be read", `{{define "main"}}{{if}}{{end}}`, "", "greeting.html"},
		{"that is cut off in a tag", `{{define "title"}}x{{end}}{{define "main"}}<a href="{{end}}`, "", "greeting.html"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := newLook(t, Config{Brand: brand.Brand{Name: "usher"}, Replaced: ours(test.text)})
			page, err := Parse[greeting](l, ours(greetingPage), "greeting.html")
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("Parse = %v, want one with %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			html, err := page.Render(greeting{View: l.View(l.Choose())})
			if err != nil || !strings.Contains(string(html), test.wanted) {
				t.Errorf("Render = %s, %v, want %s in it", html, err, test.wanted)
			}
		})
	}
}

func TestAssets(t *testing.T) {
	t.Parallel()
	plain := newLook(t, Config{}).Assets()
	branded := newLook(t, Config{Brand: brand.Brand{Colour: "#ffd700", Logo: []byte(`<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>`)}}).Assets()
	if len(plain) != 1 || len(branded) != 2 {
		t.Fatalf("%d and %d assets, want 1 and 2", len(plain), len(branded))
	}
	if plain[0].Path == branded[0].Path {
		t.Error("two stylesheets have one path")
	}
	if got := branded[1].ContentType; got != "image/svg+xml" {
		t.Errorf("the logo is %s", got)
	}
	if size := len(plain[0].Content); size > 20<<10 {
		t.Errorf("the stylesheet has %d bytes", size)
	}
	for _, refused := range []string{"url(", "@import", "http:", "https:"} {
		if strings.Contains(string(plain[0].Content), refused) {
			t.Errorf("the stylesheet has %s", refused)
		}
	}
	for _, b := range []brand.Brand{{Colour: "red"}, {Colour: "#12345"}, {Colour: "#12345g"}, {Logo: []byte("GIF89a")}, {Logo: []byte("text")}, {Logo: make([]byte, brand.MaxLogo+1)}} {
		if _, err := New(Config{Brand: b}); err == nil {
			t.Errorf("New took a brand with colour %q and a logo of %d bytes", b.Colour, len(b.Logo))
		}
	}
}
