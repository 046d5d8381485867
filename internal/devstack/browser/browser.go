// Package browser is a Chromium for tests, and axe-core, which looks for what keeps people out of a page. test/chromium.sh says where
// both are.
package browser

import (
	"context"
	"encoding/json"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// Action is what is done in a tab, or set for it.
type Action = chromedp.Action[chromedp.Void]

// running is a Chromium that the tests of a package share; each has a profile of its own in it.
type running struct {
	ctx  context.Context
	stop func()
	err  error
}

var begun atomic.Bool

// start starts it once: a context that two use before it has started starts two.
var start = sync.OnceValue(func() running {
	begun.Store(true)
	flags := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(os.Getenv("CHROMIUM")))
	if os.Geteuid() == 0 {
		flags = append(flags, chromedp.NoSandbox) // which root can't have
	}
	allocator, cancel := chromedp.NewExecAllocator(context.Background(), flags...)
	ctx, stop := chromedp.NewContext(allocator)
	return running{ctx, func() { stop(); cancel() }, chromedp.Do(ctx)}
})

// Stop ends the browser of a package's tests, if they had one.
func Stop() {
	if begun.Load() {
		start().stop()
	}
}

// Tab is a page in a browser.
type Tab struct {
	t   *testing.T
	ctx context.Context
}

// Open opens a tab that shows pages as some people have them. It ends with the test.
func Open(t *testing.T, look ...Action) Tab {
	t.Helper()
	if os.Getenv("CHROMIUM") == "" || os.Getenv("AXE_CORE") == "" {
		t.Fatal("there is no Chromium or no axe-core: run the tests with test/chromium.sh, as make test does")
	}
	started := start()
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
	b := Tab{t, ctx}
	b.Run(look...)
	return b
}

// Run does something in the tab.
func (b Tab) Run(actions ...Action) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, actions...); err != nil {
		b.t.Fatal(err)
	}
}

// Evaluate answers with what a script says in the page, which the page's own policy does not keep from it.
func Evaluate[T any](b Tab, script string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](script, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatal(err)
	}
	return v
}

// Dark has pages shown in their dark colours.
var Dark = command(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}}})

// Phone is the narrowest screen that WCAG 2.2 asks for (1.4.10).
var Phone = chromedp.EmulateViewport(320, 640)

// NoScript is a browser that runs no script of any page.
var NoScript = command(emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})

func command[P, R any](c cdp.Command[P, R], parameters P) Action {
	return chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, c, parameters)
		return err
	})
}

// Fits looks whether a page is in a language, from right to left where that is Arabic, and no wider than the screen.
func (b Tab) Fits(page, language string) {
	b.t.Helper()
	seen := Evaluate[struct {
		Language     string
		Wide, Screen float64
		RightToLeft  bool
	}](b, `({
		Language: document.documentElement.lang, Wide: document.documentElement.scrollWidth, Screen: document.documentElement.clientWidth,
		RightToLeft: getComputedStyle(document.body).direction == "rtl"})`)
	if seen.Language != language || seen.RightToLeft != (language == "ar") {
		b.t.Errorf("%s is in %s, right to left %v", page, seen.Language, seen.RightToLeft)
	}
	if seen.Wide > seen.Screen {
		b.t.Errorf("%s is %v wide on a screen of %v", page, seen.Wide, seen.Screen)
	}
}

var axeCore = sync.OnceValues(func() (string, error) {
	text, err := os.ReadFile(os.Getenv("AXE_CORE"))
	return string(text), err
})

// BestPractice are rules of axe-core for whole pages.
const BestPractice = "best-practice"

// Accessible holds a page against what axe-core knows of WCAG 2.2 AA, and against more of its rules.
func (b Tab) Accessible(page string, more ...string) {
	b.t.Helper()
	axe, err := axeCore()
	if err != nil {
		b.t.Fatalf("read axe-core: %v", err)
	}
	rules, err := json.Marshal(append([]string{"wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"}, more...))
	if err != nil {
		b.t.Fatal(err)
	}
	Evaluate[int](b, axe+";0")
	found := Evaluate[string](b, `axe.run(document, {runOnly: `+string(rules)+`}).then(r => JSON.stringify({
			passes: r.passes.length, violations: r.violations.map(v => v.id + ": " + v.nodes.map(n => n.html + " " + n.failureSummary).join("; "))}))`)
	var result struct {
		Passes     int
		Violations []string
	}
	if err := json.Unmarshal([]byte(found), &result); err != nil {
		b.t.Fatal(err)
	}
	if result.Passes < 5 {
		b.t.Errorf("%s: axe-core looked at %d rules only", page, result.Passes)
	}
	for _, v := range result.Violations {
		b.t.Errorf("%s: %s", page, v)
	}
}
