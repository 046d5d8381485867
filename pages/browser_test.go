package pages

import (
	"context"
	"encoding/json"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"usher.example/identity"
)

// running is a Chromium that the tests of this package share; each has a profile of its own in it.
type running struct {
	ctx  context.Context
	stop func()
	err  error
}

// browser starts it once: a context that two use before it has started starts two.
var browser = sync.OnceValue(func() running {
	flags := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(os.Getenv("CHROMIUM")))
	if os.Geteuid() == 0 {
		flags = append(flags, chromedp.NoSandbox) // which root can't have
	}
	allocator, cancel := chromedp.NewExecAllocator(context.Background(), flags...)
	ctx, stop := chromedp.NewContext(allocator)
	return running{ctx, func() { stop(); cancel() }, chromedp.Do(ctx)}
})

// tab is a page in a browser.
type tab struct {
	t   *testing.T
	ctx context.Context
	url string // that paths are of
}

// open opens a tab that shows pages as some people have them.
func (s *stack) open(t *testing.T, look ...chromedp.Action[chromedp.Void]) tab {
	t.Helper()
	if os.Getenv("CHROMIUM") == "" || os.Getenv("AXE_CORE") == "" {
		t.Fatal("there is no Chromium or no axe-core: run the tests with test/chromium.sh, as make test does")
	}
	started := browser()
	if started.err != nil {
		t.Fatalf("start Chromium: %v", started.err)
	}
	ctx, cancel := chromedp.NewContext(started.ctx, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil { // a tab that is opened under a deadline ends with it
		t.Fatalf("open a tab: %v", err)
	}
	ctx, cancelTime := context.WithTimeout(ctx, 5*time.Minute)
	t.Cleanup(cancelTime)
	b := tab{t, ctx, strings.Replace(s.http.URL, "127.0.0.1", "localhost", 1)}
	b.run(look...)
	return b
}

func (b tab) run(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, actions...); err != nil {
		b.t.Fatal(err)
	}
}

// evaluate answers with what a script says in the page, which the page's own policy does not keep from it.
func evaluate[T any](b tab, script string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](script, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatal(err)
	}
	return v
}

// dark has pages shown in their dark colours.
var dark = command(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}}})

// phone is the narrowest screen that WCAG 2.2 asks for (1.4.10).
var phone = chromedp.EmulateViewport(320, 640)

// noScript is a browser that runs no script of any page.
var noScript = command(emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})

func command[P, R any](c cdp.Command[P, R], parameters P) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, c, parameters)
		return err
	})
}

// TestBrowserLooks looks at each page as people have it: WCAG 2.2 AA as axe-core knows it, and nothing that goes off the screen.
func TestBrowserLooks(t *testing.T) {
	t.Parallel()
	s := newStack(t, options{})
	axe, err := os.ReadFile(os.Getenv("AXE_CORE"))
	if err != nil {
		t.Fatalf("read axe-core: %v; run the tests with test/chromium.sh, as make test does", err)
	}
	for _, variant := range []struct {
		name   string
		look   []chromedp.Action[chromedp.Void]
		locale string
		axe    bool
	}{
		{"light", nil, "en", true},
		{"dark, on a phone, right to left", []chromedp.Action[chromedp.Void]{dark, phone}, "ar", true},
		{"on a phone", []chromedp.Action[chromedp.Void]{phone}, "de", true},
		{"on a phone, in French", []chromedp.Action[chromedp.Void]{phone}, "fr", false},
		{"on a phone, in Spanish", []chromedp.Action[chromedp.Void]{phone}, "es", false},
		{"on a phone, in Japanese", []chromedp.Action[chromedp.Void]{phone}, "ja", false},
	} {
		t.Run(variant.name, func(t *testing.T) {
			b := s.open(t, variant.look...)
			for _, page := range everyPage {
				separator := "?"
				if strings.Contains(page, "?") {
					separator = "&"
				}
				b.run(chromedp.Navigate(b.url + page + separator + "ui_locales=" + variant.locale))
				b.looksRight(page, variant.locale)
				if variant.axe {
					b.accessible(string(axe), page)
				}
			}
			// A field with an error, which a form leads to.
			b.run(chromedp.Navigate(b.url+"/account/reset?code=x&ui_locales="+variant.locale),
				chromedp.RemoveAttribute(chromedp.CSS(`main input[required]`), "required"), chromedp.Click(chromedp.CSS(`main button[type=submit]`)), chromedp.WaitVisible(chromedp.CSS(`.errors`)))
			b.looksRight("a field with an error", variant.locale)
			if variant.axe {
				b.accessible(string(axe), "a field with an error")
			}
		})
	}
}

// looksRight looks at what a screen is measured by.
func (b tab) looksRight(page, locale string) {
	b.t.Helper()
	seen := evaluate[struct {
		Language            string
		Wide, Screen        float64
		Styled, RightToLeft bool
	}](b, `({
		Language: document.documentElement.lang, Wide: document.documentElement.scrollWidth, Screen: document.documentElement.clientWidth,
		Styled: getComputedStyle(document.querySelector("main")).borderRadius == "8px", RightToLeft: getComputedStyle(document.body).direction == "rtl"})`)
	if seen.Language != locale || seen.RightToLeft != (locale == "ar") || !seen.Styled {
		b.t.Errorf("%s is in %s, right to left %v, styled %v", page, seen.Language, seen.RightToLeft, seen.Styled)
	}
	if seen.Wide > seen.Screen {
		b.t.Errorf("%s is %v wide on a screen of %v", page, seen.Wide, seen.Screen)
	}
}

// accessible holds a page against what axe-core knows of WCAG 2.2 AA.
func (b tab) accessible(axe, page string) {
	b.t.Helper()
	evaluate[int](b, axe+";0")
	found := evaluate[string](b, `axe.run(document, {runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}).then(r => JSON.stringify({
			passes: r.passes.length, violations: r.violations.map(v => v.id + ": " + v.nodes.map(n => n.html + " " + n.failureSummary).join("; "))}))`)
	var result struct {
		Passes     int
		Violations []string
	}
	if err := json.Unmarshal([]byte(found), &result); err != nil {
		b.t.Fatal(err)
	}
	if result.Passes < 10 {
		b.t.Errorf("%s: axe-core looked at %d rules only", page, result.Passes)
	}
	for _, v := range result.Violations {
		b.t.Errorf("%s: %s", page, v)
	}
}

// tabsTo is how often the tab key has to be pressed on a page until something has the focus, which is then to be seen.
func (b tab) tabsTo(selector string) int {
	b.t.Helper()
	for n := 1; n < 50; n++ {
		b.run(chromedp.KeyEvent(kb.Tab))
		at := evaluate[struct{ There, Seen bool }](b, `({There: document.activeElement.matches(`+quote(selector)+`),
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
		b.run(chromedp.KeyEvent(key))
	}
}

// TestBrowserKeyboard does what mails link to with the keys alone, in a browser that runs no script.
func TestBrowserKeyboard(t *testing.T) {
	t.Parallel()
	s := newStack(t, options{})
	ada := s.user("ada@example.org")
	with, without := s.open(t), s.open(t, noScript)
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
		with.run(chromedp.Navigate(with.url + page.path + query))
		tabs := with.tabsTo(page.focus)
		without.run(chromedp.Navigate(without.url + page.path + query))
		without.press(kb.Tab, tabs)
		if page.typed != "" {
			without.run(chromedp.KeyEvent(page.typed))
		}
		without.run(chromedp.KeyEvent(kb.Enter), chromedp.WaitVisible(chromedp.CSS(`[role=status]`)))
		if title := evaluate[string](without, `document.querySelector("h1").innerText`); title != page.expected {
			t.Errorf("%s leads to %q, want %q", page.path, title, page.expected)
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
	with, without := s.open(t), s.open(t, noScript)
	fill := func(path, first string, typed ...string) {
		t.Helper()
		with.run(chromedp.Navigate(with.url + path))
		tabs := with.tabsTo(first)
		without.run(chromedp.Navigate(without.url + path))
		without.press(kb.Tab, tabs)
		for i, text := range typed {
			if i > 0 {
				without.run(chromedp.KeyEvent(kb.Tab))
			}
			without.run(chromedp.KeyEvent(text))
		}
		without.run(chromedp.KeyEvent(kb.Enter))
	}
	at := func(path, selector string) {
		t.Helper()
		without.run(chromedp.WaitVisible(chromedp.CSS(selector)))
		if got := evaluate[string](without, `location.pathname + location.search`); got != path {
			t.Errorf("the browser is at %s, want %s", got, path)
		}
	}
	fill("/register?return=/logout", `input[name=name]`, "Ada", "ada@example.org", secret)
	at("/logout", `nav`)
	without.run(chromedp.Focus(chromedp.CSS(`main button[type=submit]`)), chromedp.KeyEvent(kb.Enter))
	at("/logout?done=", `[role=status]`)
	fill("/login?return=/logout", `input[autocomplete=username]`, "ada@example.org", "wr0ng secret")
	at("/login?return=/logout", `[role=alert]`)
	fill("/login?return=/logout", `input[autocomplete=username]`, "ada@example.org", secret)
	at("/logout", `nav`)
	if got := evaluate[string](without, `document.cookie`); got != "" {
		t.Error("a script could read a cookie")
	}
}
