package mail

import (
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"usher.example/brand"
	"usher.example/internal/devstack/browser"
)

// TestBrowserMails looks at the mails as people have them, where their program shows HTML as a browser does: nothing goes off the screen of a
// narrow phone, whatever the language, and everybody can read it (WCAG 2.2 AA as axe-core knows it), on light and on dark grounds.
func TestBrowserMails(t *testing.T) {
	t.Parallel()
	l := lettersOf(t, LettersConfig{Brand: brand.Brand{Name: "Acme", Colour: "#ffd700"}})
	shown := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, language, _ := strings.Cut(path.Base(r.URL.Path), ".")
		m, err := l.Example(name, language)
		if err != nil { // the icon of the site
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'") // as strict as mail programs are
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Write([]byte(m.HTML)) //nolint:errcheck // the browser would see nothing
	}))
	t.Cleanup(shown.Close)
	typical := []string{string(kindVerify), string(kindNewDevice)} // with a link, and with facts
	for _, variant := range []struct {
		name     string
		look     []browser.Action
		language string
		ground   string // behind everything
		all      bool   // mails, and typical ones by axe-core too
	}{
		{"light", nil, "en", "rgb(244, 245, 247)", true},
		{"dark, on a phone, right to left", []browser.Action{browser.Dark, browser.Phone}, "ar", "rgb(20, 22, 26)", true},
		{"on a phone", []browser.Action{browser.Phone}, "de", "rgb(244, 245, 247)", false},
		{"on a phone, in French", []browser.Action{browser.Phone}, "fr", "rgb(244, 245, 247)", false},
		{"on a phone, in Spanish", []browser.Action{browser.Phone}, "es", "rgb(244, 245, 247)", false},
		{"on a phone, in Japanese", []browser.Action{browser.Phone}, "ja", "rgb(244, 245, 247)", false},
	} {
		names := typical
		if variant.all {
			names = Names()
		}
		t.Run(variant.name, func(t *testing.T) {
			b := browser.Open(t, variant.look...)
			for _, name := range names {
				b.Run(chromedp.Navigate(shown.URL + "/" + name + "." + variant.language))
				b.Fits(name, variant.language)
				if ground := browser.Evaluate[string](b, `getComputedStyle(document.body).backgroundColor`); ground != variant.ground {
					t.Errorf("%s stands on %s, want %s", name, ground, variant.ground)
				}
				if variant.all && slices.Contains(typical, name) {
					b.Accessible(name)
				}
			}
		})
	}
}
