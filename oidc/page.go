package oidc

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"errors"
	"html/template"
	"net/http"
	"net/url"
	"slices"

	"github.com/labstack/echo/v5"

	"usher.example/identity"
	"usher.example/pages/look"
	"usher.example/server"
)

//go:embed *.html submit.js
var files embed.FS

// screens are the pages of the surface.
type screens struct {
	look   *look.Look
	answer *look.Page[answerPage]
	leave  *look.Page[leavePage]
	failed *look.Page[failedPage]
	script look.Asset // sends the form of a page, where scripts are on
}

// answerPage sends a client, by a form, what came of its request.
type answerPage struct {
	look.View
	Text   look.OnwardPage
	To     template.URL
	Fields []hidden
	Script string
}

// hidden is a field of a form that nobody sees.
type hidden struct{ Name, Value string }

// leavePage asks whether somebody wants to be logged out.
type leavePage struct {
	look.View
	Text   look.LogoutPage
	Fields []hidden
}

// failedPage says what is wrong with a request of an application, which nobody but those who made it can mend.
type failedPage struct {
	look.View
	Problem string
	Detail  string // for them
}

func newScreens(l *look.Look) (screens, error) {
	s := screens{look: l}
	var errs [4]error
	s.answer, errs[0] = look.Parse[answerPage](l, files, "answer.html")
	s.leave, errs[1] = look.Parse[leavePage](l, files, "leave.html")
	s.failed, errs[2] = look.Parse[failedPage](l, files, "failed.html")
	script, err := files.ReadFile("submit.js")
	errs[3] = err
	sum := sha256.Sum256(script)
	s.script = look.Asset{Path: look.AssetsPath + "submit-" + base64.RawURLEncoding.EncodeToString(sum[:9]) + ".js", ContentType: "text/javascript; charset=utf-8", Content: script}
	return s, errors.Join(errs[:]...)
}

// noTarget is for pages whose forms go to no other host.
const noTarget = ""

// scripted lets a page have our scripts, beside a target of its form.
const scripted = "; script-src 'self'"

// guard says what a browser may do with a page: as all of ours, but that its form may lead on to a target.
func (p *provider) guard(c *echo.Context, target string) {
	if target != noTarget {
		target = " " + target
	}
	h := c.Response().Header()
	h["Content-Security-Policy"] = []string{"default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'" + target + "; base-uri 'none'; frame-ancestors 'none'"}
	h["Referrer-Policy"] = []string{"no-referrer"}
	h["Cross-Origin-Resource-Policy"] = []string{"same-origin"}
}

// targetOf is a URI as a form-action names it: by its origin, or by its scheme alone.
func targetOf(uri string) string {
	u, err := url.Parse(uri)
	if err != nil || u.Host == "" {
		scheme := "https:"
		if err == nil {
			scheme = u.Scheme + ":"
		}
		return scheme
	}
	return u.Scheme + "://" + u.Host
}

// view is what a page is drawn with for whoever asks.
func (p *provider) view(c *echo.Context, uiLocales string, who *identity.User) look.View {
	var locale string
	if who != nil {
		locale = who.Locale()
	}
	c.Response().Header().Add(echo.HeaderVary, "Accept-Language")
	return p.screens.look.View(p.screens.look.Choose(uiLocales, locale, c.Request().Header.Get("Accept-Language")))
}

// postToClient answers with a form that goes to the client, by itself where scripts are on (OAuth 2.0 Form Post Response Mode).
func (p *provider) postToClient(call *server.Call, a *authorization, values url.Values) (server.Answer, error) {
	c := call.Echo()
	p.guard(c, targetOf(a.redirect)+scripted)
	v := p.view(c, a.form.Get(paramUILocales), call.User)
	return filled(p.screens.answer, answerPage{View: v, Text: v.Words.Onward, To: template.URL(a.redirect), Fields: hiddenFields(values), Script: p.screens.script.Path})
}

func hiddenFields(values url.Values) []hidden {
	var list []hidden
	for name := range values {
		list = append(list, hidden{name, values.Get(name)})
	}
	slices.SortFunc(list, func(a, b hidden) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return list
}

func filled[T any](page *look.Page[T], data T) (server.Answer, error) {
	html, err := page.Render(data)
	if err != nil {
		return server.Answer{}, err
	}
	return server.Written(func(c *echo.Context) error { return c.HTMLBlob(http.StatusOK, html) }), nil
}

// goTo leads to another address.
func goTo(address string) server.Answer {
	return server.Written(func(c *echo.Context) error { return c.Redirect(http.StatusSeeOther, address) })
}

// tellBrowser tells of a failure on a page to whoever asks for one, and as OAuth does to anybody else.
func (p *provider) tellBrowser(c *echo.Context, f server.Failure) error {
	p.guard(c, noTarget)
	if !server.WantsHTML(c.Request()) {
		return tell(c, f)
	}
	v := p.view(c, c.QueryParam(paramUILocales), nil)
	page := failedPage{View: v, Problem: v.Words.Failed.BadRequest, Detail: f.Detail}
	if f.Status >= http.StatusInternalServerError {
		page.Problem, page.Detail = v.Words.Failed.Internal, f.RequestID
	}
	html, err := p.screens.failed.Render(page)
	if err != nil {
		return err
	}
	return c.HTMLBlob(f.Status, html)
}

// showScript answers with the script that sends a form.
func (p *provider) showScript(*server.Call) (server.Answer, error) {
	a := p.screens.script
	return server.Written(func(c *echo.Context) error {
		h := c.Response().Header()
		h["Content-Security-Policy"] = []string{"default-src 'none'; frame-ancestors 'none'; sandbox"}
		h["Cross-Origin-Resource-Policy"] = []string{"same-origin"}
		h[echo.HeaderCacheControl] = []string{"public, max-age=31536000, immutable"}
		return c.Blob(http.StatusOK, a.ContentType, a.Content)
	}), nil
}
