package pages

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"sync"

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
	return filled(html), nil
}

// filled answers with a page that is filled, in one piece.
func filled(html []byte) server.Answer {
	return server.Written(func(c *echo.Context) error {
		c.Response().Header().Set(echo.HeaderContentLength, strconv.Itoa(len(html)))
		return c.HTMLBlob(http.StatusOK, html)
	})
}

// still is a page that is the same for everybody who is not logged in and asks for nothing in particular, in each language: it is filled
// once. Whoever comes to log in does so all at once at times, and most of what a page costs is to fill it.
type still[T any] struct {
	page *look.Page[T]
	mu   sync.RWMutex
	kept map[string][]byte // by language
}

// show answers with the page, filled as it is for this visit.
func (s *still[T]) show(v *visit, fill func() T) (server.Answer, error) {
	if v.User != nil || v.Request().URL.RawQuery != "" {
		return show(s.page, fill())
	}
	s.mu.RLock()
	html, there := s.kept[v.Words.Language]
	s.mu.RUnlock()
	if !there {
		var err error
		if html, err = s.page.Render(fill()); err != nil {
			return server.Answer{}, err
		}
		s.mu.Lock()
		s.kept[v.Words.Language] = html
		s.mu.Unlock()
	}
	return filled(html), nil
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
