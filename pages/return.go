package pages

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/labstack/echo/v5"
)

// returnTo is the parameter of the page to go on to once somebody is logged in.
const returnTo = "return"

// maxReturn bounds the address of that page, in bytes.
const maxReturn = 4096

// back is where to go on to after a login: a page of ours that was asked for, else the account.
func (v *visit) back() string {
	if to := v.query.Get(returnTo); isOurs(to) {
		return to
	}
	return v.link("/account", "", "")
}

// withBack is the address of a page of ours that leads to the same page afterwards.
func (v *visit) withBack(path string) string {
	if to := v.query.Get(returnTo); isOurs(to) {
		return v.link(path, returnTo, to)
	}
	return v.link(path, "", "")
}

// isOurs says whether an address is a path of this host, whatever reads it: browsers, which take a backslash for a slash and pass over
// control characters, and what may stand between them and us and clean paths up. So everything is refused that any of them could
// take for another host.
func isOurs(address string) bool {
	if len(address) > maxReturn || !strings.HasPrefix(address, "/") || strings.ContainsFunc(address, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '\\' }) {
		return false
	}
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || u.Fragment != "" {
		return false
	}
	for _, path := range []string{u.Path, u.EscapedPath()} {
		if strings.Contains(path, "//") || strings.Contains(path, `\`) || strings.Contains(path+"/", "/./") || strings.Contains(path+"/", "/../") {
			return false
		}
	}
	return true
}

// askToLogIn leads whoever has to be logged in to where that can be done, and from there back.
func (p *pages) askToLogIn(c *echo.Context) error {
	to := c.Request().URL.Path
	q := url.Values{}
	if query := c.Request().URL.RawQuery; query != "" && c.Request().Method == http.MethodGet {
		to += "?" + query
	}
	if isOurs(to) {
		q.Set(returnTo, to)
	}
	if wish := c.QueryParam(uiLocales); wish != "" {
		q.Set(uiLocales, wish)
	}
	return c.Redirect(http.StatusSeeOther, "/login?"+q.Encode())
}
