package pages

import (
	"net/http"
	"strings"

	"github.com/labstack/echo/v5"

	"usher.example/pages/look"
	"usher.example/server"
)

// onwardPage leads on by itself.
type onwardPage struct {
	look.View
	Text look.OnwardPage
	Path string
}

// leavesUs says whether a path of ours leads to other hosts, as those of the provider do: to the application that somebody comes from.
func leavesUs(path string) bool { return strings.HasPrefix(path, "/oauth2/") }

// goOn leads whoever is logged in to where they wanted. Where that leads to another host it is not by a redirect: this one may have come
// after a form, and browsers hold every redirect after a form against the form-action of the page that the form was on (Content
// Security Policy, section 6.4.1), which names no other host.
func (p *pages) goOn(v *visit) (server.Answer, error) {
	to := v.back()
	if !leavesUs(to) {
		return goTo(to), nil
	}
	html, err := p.onward.Render(onwardPage{v.View, v.Words.Onward, to})
	if err != nil {
		return server.Answer{}, err
	}
	return server.Written(func(c *echo.Context) error {
		c.Response().Header().Set("Refresh", "0; url="+to)
		return c.HTMLBlob(http.StatusOK, html)
	}), nil
}
