package pages

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/labstack/echo/v5"

	"usher.example/identity"
	"usher.example/internal/devstack"
	"usher.example/internal/devstack/browser"
	"usher.example/server"
)

// tab is a page in a browser.
type tab struct {
	browser.Tab
	t   *testing.T
	url string // that paths are of
}

// open opens a tab that shows pages as some people have them.
func (s *stack) open(t *testing.T, look ...browser.Action) tab {
	t.Helper()
	return tab{browser.Open(t, look...), t, strings.Replace(s.http.URL, "127.0.0.1", "localhost", 1)}
}

// TestBrowserLooks looks at each page as people have it: WCAG 2.2 AA as axe-core knows it, and nothing that goes off the screen.
func TestBrowserLooks(t *testing.T) {
	t.Parallel()
	s := newStack(t, options{})
	s.project()
	for _, variant := range []struct {
		name   string
		look   []browser.Action
		locale string
		axe    bool
	}{
		{"light", nil, "en", true},
		{"dark, on a phone, right to left", []browser.Action{browser.Dark, browser.Phone}, "ar", true},
		{"on a phone", []browser.Action{browser.Phone}, "de", true},
		{"on a phone, in French", []browser.Action{browser.Phone}, "fr", false},
		{"on a phone, in Spanish", []browser.Action{browser.Phone}, "es", false},
		{"on a phone, in Japanese", []browser.Action{browser.Phone}, "ja", false},
	} {
		t.Run(variant.name, func(t *testing.T) {
			b := s.open(t, variant.look...)
			look := func(page string) {
				t.Helper()
				b.looksRight(page, variant.locale)
				if variant.axe {
					b.Accessible(page, browser.BestPractice)
				}
			}
			open := func(page string) {
				t.Helper()
				separator := "?"
				if strings.Contains(page, "?") {
					separator = "&"
				}
				b.Run(chromedp.Navigate(b.url + page + separator + "ui_locales=" + variant.locale))
			}
			for _, page := range everyPage {
				open(page)
				look(page)
			}
			// A field with an error, which a form leads to.
			open("/account/reset?code=x")
			b.Run(chromedp.RemoveAttribute(chromedp.CSS(`main input[required]`), "required"), chromedp.Click(chromedp.CSS(`main button[type=submit]`)), chromedp.WaitVisible(chromedp.CSS(`.errors`)))
			look("a field with an error")

			// Somebody's own pages, in all that they can be.
			email := variant.locale + "@example.org"
			next := s.withFactor(email)
			u, err := s.identity.UserWith(t.Context(), email)
			if err != nil {
				t.Fatal(err)
			}
			s.app("shop-"+variant.locale, u, "openid", "email", "offline_access")
			open("/login")
			b.fill(map[string]string{"email": email, "password": secret}, `input[name=totp]`)
			look("the second step of a login")
			b.fill(map[string]string{"totp": next()}, `nav`)
			devstack.Eventually(t, "there is a list of what happened", func() bool {
				open("/account/activity")
				return browser.Evaluate[bool](b.Tab, `document.querySelector(".list li") != null`)
			})
			for _, page := range ownPages {
				open(page)
				look(page)
			}
			open("/account/security/codes")
			b.fill(map[string]string{"current_password": secret, "totp": next()}, `.secret`)
			look("recovery codes")
			open("/account/security/off")
			b.fill(map[string]string{"current_password": secret, "totp": next()}, `[role=status]`)
			open("/account/security/factor")
			b.fill(map[string]string{"current_password": secret}, `svg`)
			look("an authenticator that is set up")
			b.fill(map[string]string{"totp": "000000"}, `.errors`)
			look("an authenticator that is set up, with an error")
		})
	}
}

// fill fills in a page's first form that has all of the fields, sends it, and waits for what it leads to.
func (b tab) fill(fields map[string]string, then string) {
	b.t.Helper()
	for name, value := range fields {
		b.Run(chromedp.SetValue(chromedp.CSS(`main input[name=`+name+`]`), value))
	}
	b.Run(chromedp.Click(chromedp.CSS(`main button[type=submit]`)), chromedp.WaitVisible(chromedp.CSS(then)))
}

// looksRight looks at what a screen is measured by.
func (b tab) looksRight(page, locale string) {
	b.t.Helper()
	b.Fits(page, locale)
	if !browser.Evaluate[bool](b.Tab, `getComputedStyle(document.querySelector("main")).borderRadius == "8px"`) {
		b.t.Errorf("%s is not styled", page)
	}
}

// tabsTo is how often the tab key has to be pressed on a page until something has the focus, which is then to be seen.
func (b tab) tabsTo(selector string) int {
	b.t.Helper()
	for n := 1; n < 50; n++ {
		b.Run(chromedp.KeyEvent(kb.Tab))
		at := browser.Evaluate[struct{ There, Seen bool }](b.Tab, `({There: document.activeElement.matches(`+quote(selector)+`),
			Seen: document.activeElement === document.body || getComputedStyle(document.activeElement).outlineStyle == "solid"})`)
		if !at.Seen {
			b.t.Errorf("after %d tabs nobody sees where the focus is", n)
		}
		if at.There {
			return n
		}
	}
	b.t.Fatalf("the tab key does not lead to %s", selector)
	return 0
}

func quote(text string) string {
	raw, _ := json.Marshal(text)
	return string(raw)
}

func (b tab) press(key string, times int) {
	b.t.Helper()
	for range times {
		b.Run(chromedp.KeyEvent(key))
	}
}

// TestBrowserKeyboard does what mails link to with the keys alone, in a browser that runs no script.
func TestBrowserKeyboard(t *testing.T) {
	t.Parallel()
	s := newStack(t, options{})
	ada := s.user("ada@example.org")
	with, without := s.open(t), s.open(t, browser.NoScript)
	for _, page := range []struct {
		path     string
		purpose  identity.Purpose
		focus    string
		typed    string
		expected string
	}{
		{"/account/verify", identity.PurposeVerify, `main button[type=submit]`, "", "Your address is confirmed"},
		{"/account/reset", identity.PurposeReset, `input[name=new_password]`, "another horse battery staple", "Your password was changed"},
	} {
		query := "?" + url.Values{"code": {s.code(ada, page.purpose)}, "ui_locales": {"en"}}.Encode()
		with.Run(chromedp.Navigate(with.url + page.path + query))
		tabs := with.tabsTo(page.focus)
		without.Run(chromedp.Navigate(without.url + page.path + query))
		without.press(kb.Tab, tabs)
		if page.typed != "" {
			without.Run(chromedp.KeyEvent(page.typed))
		}
		without.Run(chromedp.KeyEvent(kb.Enter), chromedp.WaitVisible(chromedp.CSS(`[role=status]`)))
		if title := browser.Evaluate[string](without.Tab, `document.querySelector("h1").innerText`); title != page.expected {
			t.Errorf("%s leads to %q, want %q", page.path, title, page.expected)
		}
	}
	// Whatever else there is to do on a page can be come to.
	for _, page := range everyPage {
		with.Run(chromedp.Navigate(with.url + page))
		if browser.Evaluate[bool](with.Tab, `document.querySelector("main button[type=submit]") != null`) {
			with.tabsTo(`main button[type=submit]`)
		}
	}
	if u := s.read(ada); !u.EmailVerified {
		t.Error("the address is not verified")
	}
	if _, err := s.identity.Login(t.Context(), identity.Credentials{Email: "ada@example.org", Password: "another horse battery staple", Metadata: metadata()}); err != nil {
		t.Errorf("login with the new password: %v", err)
	}
}

// TestBrowserLogin registers, logs out and logs in with the keys alone, in a browser that runs no script, and comes back to where it
// wanted to go.
func TestBrowserLogin(t *testing.T) {
	t.Parallel()
	s := newStack(t, options{})
	with, without := s.open(t), s.open(t, browser.NoScript)
	fill := func(path, first string, typed ...string) {
		t.Helper()
		with.Run(chromedp.Navigate(with.url + path))
		tabs := with.tabsTo(first)
		without.Run(chromedp.Navigate(without.url + path))
		without.press(kb.Tab, tabs)
		for i, text := range typed {
			if i > 0 {
				without.Run(chromedp.KeyEvent(kb.Tab))
			}
			without.Run(chromedp.KeyEvent(text))
		}
		without.Run(chromedp.KeyEvent(kb.Enter))
	}
	at := func(path, selector string) {
		t.Helper()
		without.Run(chromedp.WaitVisible(chromedp.CSS(selector)))
		if got := browser.Evaluate[string](without.Tab, `location.pathname + location.search`); got != path {
			t.Errorf("the browser is at %s, want %s", got, path)
		}
	}
	fill("/register?return=/logout", `input[name=name]`, "Ada", "ada@example.org", secret)
	at("/logout", `nav`)
	without.Run(chromedp.Focus(chromedp.CSS(`main button[type=submit]`)), chromedp.KeyEvent(kb.Enter))
	at("/logout?done=", `[role=status]`)
	fill("/login?return=/logout", `input[autocomplete=username]`, "ada@example.org", "wr0ng secret")
	at("/login?return=/logout", `[role=alert]`)
	fill("/login?return=/logout", `input[autocomplete=username]`, "ada@example.org", secret)
	at("/logout", `nav`)
	if got := browser.Evaluate[string](without.Tab, `document.cookie`); got != "" {
		t.Error("a script could read a cookie")
	}
}

// TestBrowserAccount goes through somebody's own pages with the keys alone, in a browser that runs no script.
func TestBrowserAccount(t *testing.T) {
	t.Parallel()
	s := newStack(t, options{})
	s.project()
	ada := s.user("ada@example.org")
	s.app("shop", ada, "openid", "email")
	with, without := s.open(t), s.open(t, browser.NoScript)
	for _, b := range []tab{with, without} {
		b.Run(chromedp.Navigate(b.url + "/login"))
		b.fill(map[string]string{"email": "ada@example.org", "password": secret}, `nav`)
	}
	for _, page := range ownPages {
		with.Run(chromedp.Navigate(with.url + page))
		target := `main button[type=submit]`
		if page == "/account/activity" {
			target = `nav a[aria-current=page]`
		}
		with.tabsTo(target)
	}
	// type what the tab key leads to, as a person does, and send it.
	typed := func(path, first string, then string, keys ...string) {
		t.Helper()
		with.Run(chromedp.Navigate(with.url + path))
		tabs := with.tabsTo(first)
		without.Run(chromedp.Navigate(without.url + path))
		without.press(kb.Tab, tabs)
		for _, key := range keys {
			without.Run(chromedp.KeyEvent(key))
		}
		without.Run(chromedp.KeyEvent(kb.Enter), chromedp.WaitVisible(chromedp.CSS(then)))
	}
	typed("/account", `input[name=name]`, `[role=status]`, "Countess ")
	if got := s.read(ada).Name; !strings.Contains(got, "Countess") {
		t.Errorf("the name is %q", got)
	}
	typed("/account/consents", `main button[type=submit]`, `[role=status]`)
	if got := s.read(ada).Consents(); len(got) > 0 {
		t.Errorf("the consents are %+v", got)
	}
	typed("/account/sessions", `main button[type=submit]`, `[role=status]`)
	with.Run(chromedp.Navigate(with.url + "/account"))
	if got := browser.Evaluate[string](with.Tab, `location.pathname`); got != "/login" {
		t.Errorf("the other browser is at %s, though its session has ended", got)
	}
	with.fill(map[string]string{"email": "ada@example.org", "password": secret}, `nav`)
	typed("/account/security", `input[name=current_password]`, `[role=status]`, secret, kb.Tab, "another horse battery staple")
	with.Run(chromedp.Navigate(with.url + "/login"))
	with.fill(map[string]string{"email": "ada@example.org", "password": "another horse battery staple"}, `nav`)
	typed("/account/data", `input[name=current_password]`, `[role=status]`, "another horse battery staple")
	if got := browser.Evaluate[string](without.Tab, `document.querySelector("h1").innerText`); got != "Your account is erased" {
		t.Errorf("the page says %q", got)
	}
}

// TestBrowserOnward logs in on the way to an application on another host, as a provider of tokens leads there. Browsers hold the
// redirects after a form against the form-action of the page that it was on, so they must not be of one chain.
func TestBrowserOnward(t *testing.T) {
	t.Parallel()
	s := newStack(t, options{})
	s.user("ada@example.org")
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, `<!doctype html><title>app</title><p id="app">`+r.URL.Query().Get("code"))
	}))
	t.Cleanup(app.Close)
	s.server.Routes(server.Surface{}).GET("/oauth2/authorize", server.Browser, func(c *server.Call) (server.Answer, error) {
		return server.Written(func(e *echo.Context) error {
			return e.Redirect(http.StatusFound, app.URL+"/callback?code="+c.Echo().QueryParam("state"))
		}), nil
	})
	for name, b := range map[string]tab{"with scripts": s.open(t), "without": s.open(t, browser.NoScript)} {
		b.Run(chromedp.Navigate(b.url + "/login?" + url.Values{"return": {"/oauth2/authorize?state=a%26b&client_id=x"}}.Encode()))
		b.fill(map[string]string{"email": "ada@example.org", "password": secret}, `#app`)
		if got := browser.Evaluate[string](b.Tab, `document.body.innerText`); !strings.Contains(got, "a") || !strings.HasPrefix(browser.Evaluate[string](b.Tab, `location.href`), app.URL+"/callback") {
			t.Errorf("%s the browser is at %s", name, browser.Evaluate[string](b.Tab, `location.href`))
		}
	}
}
