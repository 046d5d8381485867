package pages

import (
	"net/http"
	"net/url"

	"github.com/labstack/echo/v5"

	"usher.example/pages/look"
	"usher.example/server"
)

// What a browser may do with a page: show it, with our stylesheet and pictures, and send its forms back to us. It may not be
// shown inside of another.
var (
	contentPolicy = []string{"default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"}
	// A picture may be somebody else's SVG: opened by itself it may do nothing at all.
	assetPolicy = []string{"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox"}
	sameOrigin  = []string{"same-origin"}
	forEver     = []string{"public, max-age=31536000, immutable"}
)

// referrerPolicy keeps addresses with codes in them to ourselves. Browsers say of a page without a referrer neither which origin
// its form comes from, nor, where the connection is not trusted, from which kind of site: it could not be told from another
// website's. There the origin itself is told the address, and nobody else.
func referrerPolicy(public *url.URL) []string {
	if public.Scheme == "https" || public.Hostname() == "localhost" {
		return []string{"no-referrer"}
	}
	return sameOrigin
}

// guard says what a browser may do with the answer.
func (p *pages) guard(c *echo.Context) {
	h := c.Response().Header()
	h["Content-Security-Policy"] = contentPolicy
	h["Referrer-Policy"] = p.referrer
	h["Cross-Origin-Opener-Policy"] = sameOrigin
	h["Cross-Origin-Resource-Policy"] = sameOrigin
	h.Add(echo.HeaderVary, "Accept-Language")
}

func asset(a look.Asset) server.Handler {
	answer := server.Written(func(c *echo.Context) error {
		h := c.Response().Header()
		h["Content-Security-Policy"] = assetPolicy
		h["Cross-Origin-Resource-Policy"] = sameOrigin
		h[echo.HeaderCacheControl] = forEver
		return c.Blob(http.StatusOK, a.ContentType, a.Content)
	})
	return func(*server.Call) (server.Answer, error) { return answer, nil }
}
