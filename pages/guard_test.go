package pages

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"usher.example/brand"
	"usher.example/identity"
	"usher.example/pages/look"
	"usher.example/server"
)

// everyPage is what there is to be opened.
var everyPage = []string{
	"/", "/login", "/login?return=/account/data", "/logout", "/logout?done=", "/logout?done=erased", "/register", "/register?done=",
	"/account/forgot", "/account/forgot?done=", "/account/resend", "/account/resend?done=",
	"/account/verify?code=x", "/account/reset?code=x", "/account/email?code=x", "/account/verify?done=", "/account/reset?done=", "/nothing-here",
}

func TestASVS_3_4_1_3_4_3_3_4_4_3_4_5_3_4_6_Headers(t *testing.T) {
	t.Parallel()
	s := newStack(t, options{public: "https://id.example.org"})
	for _, path := range everyPage {
		a := s.get(path)
		for name, value := range map[string]string{
			"Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
			"Referrer-Policy":         "no-referrer", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store",
			"Strict-Transport-Security": "max-age=31536000; includeSubDomains", "Cross-Origin-Opener-Policy": "same-origin", "Content-Type": "text/html; charset=UTF-8",
		} {
			if got := a.header.Get(name); got != value {
				t.Errorf("%s: %s is %q, want %q", path, name, got, value)
			}
		}
		if !slices.Contains(a.header.Values("Vary"), "Accept-Language") {
			t.Errorf("%s: Vary is %q", path, a.header.Values("Vary"))
		}
		for _, inline := range []string{"<style", "<script", " style=", " onclick=", "http://", "https://"} {
			if strings.Contains(a.body, inline) {
				t.Errorf("%s has %s", path, inline)
			}
		}
	}
}

// A page with all that it needs to be shown is small.
func TestSize(t *testing.T) {
	t.Parallel()
	s := newStack(t, options{})
	p, nobody := s.loggedIn("ada@example.org"), s.person()
	for i, path := range append(slices.Clone(everyPage), ownPages...) {
		who := nobody
		if i >= len(everyPage) {
			who = p
		}
		a := who.get(path)
		_, rest, _ := strings.Cut(a.body, `<link rel="stylesheet" href="`)
		style, _, found := strings.Cut(rest, `"`)
		if size := len(a.body) + len(s.get(style).body); !found || size > 40<<10 {
			t.Errorf("%s has %d bytes with its style", path, size)
		}
	}
}

func TestReferrerPolicy(t *testing.T) {
	t.Parallel()
	for public, want := range map[string]string{
		"https://id.example.org": "no-referrer", "http://localhost:8080": "no-referrer", "http://usher.lan:8080": "same-origin",
	} {
		u, err := url.Parse(public)
		if err != nil {
			t.Fatal(err)
		}
		if got := referrerPolicy(u)[0]; got != want {
			t.Errorf("referrerPolicy(%s) = %s, want %s", public, got, want)
		}
	}
}

func TestAsset(t *testing.T) {
	t.Parallel()
	const svg = `<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>`
	s := newStack(t, options{look: look.Config{Brand: brand.Brand{Name: "Brand", Logo: []byte(svg)}}})
	page := s.get("/account/verify?code=x").body
	for _, prefix := range []string{"/assets/style-", "/assets/logo-"} {
		_, rest, found := strings.Cut(page, `"`+prefix)
		if !found {
			t.Fatalf("the page names no %s", prefix)
		}
		name, _, _ := strings.Cut(rest, `"`)
		a := s.get(prefix + name)
		if a.status != http.StatusOK || a.header.Get("Cache-Control") != "public, max-age=31536000, immutable" {
			t.Errorf("%s: %d, Cache-Control %q", prefix, a.status, a.header.Get("Cache-Control"))
		}
		if got := a.header.Get("Content-Security-Policy"); !strings.Contains(got, "sandbox") || strings.Contains(got, "script-src") {
			t.Errorf("%s: the policy is %q", prefix, got)
		}
	}
}

// TestASVS_3_5_1_CrossSite sends forms as browsers do for another website.
func TestASVS_3_5_1_CrossSite(t *testing.T) {
	t.Parallel()
	s := newStack(t, options{public: "https://id.example.org"})
	ada := s.user("ada@example.org")
	form := url.Values{"code": {s.code(ada, identity.PurposeVerify)}}
	for _, headers := range [][]string{
		{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"},
		{"Sec-Fetch-Site", "", "Origin", "https://evil.example"}, {"Sec-Fetch-Site", "", "Origin", "null"},
	} {
		if a := s.post("/account/verify", form, headers...); a.status != http.StatusForbidden || !strings.Contains(a.body, "Another website sent this form") {
			t.Errorf("%v: %d %s", headers, a.status, a.body)
		}
	}
	if s.read(ada).EmailVerified {
		t.Fatal("another website verified an address")
	}
	if a := s.post("/account/verify", form, "Sec-Fetch-Site", "", "Origin", "https://id.example.org"); a.status != http.StatusSeeOther {
		t.Errorf("from the public URL: %d %s", a.status, a.body)
	}
}

func TestProblems(t *testing.T) {
	t.Parallel()
	s := newStack(t, options{server: func(c *server.Config) { c.RateLimits = true }})
	for _, test := range []struct {
		method, path, accept string
		status               int
		contentType          string
	}{
		{"GET", "/nothing-here", "text/html", 404, "text/html; charset=UTF-8"},
		{"GET", "/nothing-here", "application/xhtml+xml, TEXT/HTML;q=0.1", 404, "text/html; charset=UTF-8"},
		{"GET", "/nothing-here", "*/*", 404, "application/problem+json"},
		{"GET", "/nothing-here", "", 404, "application/problem+json"},
		{"GET", "/nothing-here", "application/json, text/html;q=0", 404, "application/problem+json"},
		{"GET", "/", "text/html", 200, "text/html; charset=UTF-8"},
		{"HEAD", "/", "text/html", 200, "text/html; charset=UTF-8"},
		{"GET", "/", "*/*", 200, "application/json"},
		{"POST", "/account/verify", "text/html", 422, "text/html; charset=UTF-8"},
		{"POST", "/account/verify", "application/json", 422, "application/problem+json"},
		{"PUT", "/account/verify", "text/html", 405, "text/html; charset=UTF-8"},
		{"POST", "/livez", "application/json", 405, "application/problem+json"},
	} {
		var form url.Values
		if test.method == "POST" {
			form = url.Values{"code": {"wrong"}}
		}
		a := s.call(test.method, test.path, form, "Accept", test.accept, "Sec-Fetch-Site", "same-origin")
		if a.status != test.status || a.header.Get("Content-Type") != test.contentType {
			t.Errorf("%s %s, accepting %q: %d %s, want %d %s", test.method, test.path, test.accept, a.status, a.header.Get("Content-Type"), test.status, test.contentType)
		}
	}
	var a answer
	for range server.QuotaCode.Burst + 1 {
		a = s.post("/account/verify", url.Values{"code": {"wrong"}})
	}
	if a.status != http.StatusTooManyRequests || !strings.Contains(a.body, "That was too often. Try again in 1 second.") || a.header.Get("Retry-After") != "1" {
		t.Errorf("too many codes: %d %s", a.status, a.body)
	}
	if a := s.call("POST", "/account/verify", nil, "Content-Type", "application/json", "Sec-Fetch-Site", "same-origin"); a.status >= 500 {
		t.Errorf("a form that is JSON: %d", a.status)
	}
}

func TestLanguage(t *testing.T) {
	t.Parallel()
	s := newStack(t, options{})
	for _, test := range []struct{ path, accept, want string }{
		{"/account/verify?code=x", "", `<html lang="en" dir="ltr">`},
		{"/account/verify?code=x", "ja", `<html lang="ja" dir="ltr">`},
		{"/account/verify?code=x&ui_locales=nl+ar", "ja", `<html lang="ar" dir="rtl">`},
		{"/nothing-here?ui_locales=fr", "ja", `<html lang="fr" dir="ltr">`},
	} {
		if a := s.get(test.path, "Accept-Language", test.accept); !strings.Contains(a.body, test.want) {
			t.Errorf("%s, accepting %q: no %s in %s", test.path, test.accept, test.want, a.body)
		}
	}
}
