package pages

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"

	"github.com/labstack/echo/v5"

	"usher.example/identity"
	"usher.example/pages/look"
	"usher.example/server"
)

// visit is a request for a page.
type visit struct {
	*server.Call
	look.View
	query, form url.Values
}

// handler answers a visit.
type handler func(context.Context, *visit) (server.Answer, error)

// shown answers with a page, and changes nothing. Whoever is logged in is known on every page, also on those that are for
// anybody.
func (p *pages) shown(answer handler) server.Handler {
	return func(call *server.Call) (server.Answer, error) {
		c := call.Echo()
		p.guard(c)
		if call.User == nil {
			if err := call.IdentifyBrowser(); err != nil && !errors.Is(err, identity.ErrSessionEnded) {
				return server.Answer{}, err
			}
		}
		return answer(c.Request().Context(), &visit{Call: call, View: p.view(c, call.User), query: c.QueryParams()})
	}
}

// sent does what a form is for, unless another website sends it.
func (p *pages) sent(answer handler) server.Handler {
	page := p.shown(func(ctx context.Context, v *visit) (a server.Answer, err error) {
		if v.form, err = v.Form(); err != nil {
			return a, err
		}
		return answer(ctx, v)
	})
	return func(call *server.Call) (server.Answer, error) {
		if err := p.crossSite.Check(call.Request()); err != nil {
			return server.Answer{}, server.Refuse(identity.CodeForbidden, "another website sent this form")
		}
		return page(call)
	}
}

// view is what a page is drawn with for whoever asks for it, who may be nobody that is known. What went wrong later is told in the
// same words.
func (p *pages) view(c *echo.Context, who *identity.User) look.View {
	if known, ok := c.Get(viewKey).(look.View); ok {
		return known
	}
	var locale string
	if who != nil {
		locale = who.Locale()
	}
	v := p.look.View(p.look.Choose(c.QueryParam(uiLocales), locale, c.Request().Header.Get("Accept-Language")))
	if who != nil {
		v.Nav = &look.Nav{Who: cmp.Or(who.Name, who.Email), Here: c.Path()}
	}
	c.Set(viewKey, v)
	return v
}

// viewKey is where a request's view is kept.
const viewKey = "view"

// uiLocales is the parameter by which whoever links here says in which languages (OpenID Connect, section 3.1.2.1).
const uiLocales = "ui_locales"

// show answers with a page.
func show[T any](page *look.Page[T], data T) (server.Answer, error) {
	html, err := page.Render(data)
	if err != nil {
		return server.Answer{}, err
	}
	return server.Written(func(c *echo.Context) error { return c.HTMLBlob(http.StatusOK, html) }), nil
}

// done leads from a form that was carried out to where that is said, so that to load that page again does nothing again.
func (v *visit) done(position int64) server.Answer { return v.doneWith("", position) }

// doneWith is done for a page that can say several things.
func (v *visit) doneWith(what string, position int64) server.Answer {
	return goTo(v.link(v.Echo().Path(), "done", what)).At(position)
}

func (v *visit) isDone() bool { return v.query.Has("done") }

// link is the address of a page of ours, in the language that was asked for, with a parameter of its own unless that has no name.
func (v *visit) link(path, name, value string) string {
	q := url.Values{}
	if wish := v.query.Get(uiLocales); wish != "" {
		q.Set(uiLocales, wish)
	}
	if name != "" {
		q.Set(name, value)
	}
	if len(q) == 0 {
		return path
	}
	return path + "?" + q.Encode()
}

// goTo leads to another address.
func goTo(address string) server.Answer {
	return server.Written(func(c *echo.Context) error { return c.Redirect(http.StatusSeeOther, address) })
}

// refused is a request that failed, as the page says it that is filled for that.
func refused[T any](err error, page *look.Page[T], fill func(server.Failure) T) (server.Answer, error) {
	return server.Answer{}, onPage{err, func(f server.Failure) ([]byte, error) { return page.Render(fill(f)) }}
}
