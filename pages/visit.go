package pages

import (
	"context"
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

// shown answers with a page, and changes nothing.
func (p *pages) shown(answer handler) server.Handler {
	return func(call *server.Call) (server.Answer, error) {
		c := call.Echo()
		p.guard(c)
		return answer(c.Request().Context(), &visit{Call: call, View: p.view(c), query: c.QueryParams()})
	}
}

// sent does what a form is for, unless another website sends it.
func (p *pages) sent(answer handler) server.Handler {
	return p.shown(func(ctx context.Context, v *visit) (a server.Answer, err error) {
		if err := p.crossSite.Check(v.Echo().Request()); err != nil {
			return a, server.Refuse(identity.CodeForbidden, "another website sent this form")
		}
		if v.form, err = v.Form(); err != nil {
			return a, err
		}
		return answer(ctx, v)
	})
}

// view is what a page is drawn with for whoever asks for it.
func (p *pages) view(c *echo.Context) look.View {
	return p.look.View(p.look.Choose(c.QueryParam(uiLocales), c.Request().Header.Get("Accept-Language")))
}

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
func (v *visit) done(position int64) server.Answer {
	to := url.Values{"done": {""}}
	if wish := v.query.Get(uiLocales); wish != "" {
		to.Set(uiLocales, wish)
	}
	path := v.Echo().Path() + "?" + to.Encode()
	return server.Written(func(c *echo.Context) error { return c.Redirect(http.StatusSeeOther, path) }).At(position)
}

func (v *visit) isDone() bool { return v.query.Has("done") }
