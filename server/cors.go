package server

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v5"
)

// ParseOrigins reads origins as browsers send them (RFC 6454): a scheme, a host and, unless it is the scheme's own, a port. A slash at
// the end, upper case and the scheme's own port are taken, and make no difference.
func ParseOrigins(list []string) ([]string, error) {
	origins := make([]string, len(list))
	for i, text := range list {
		u, err := url.Parse(strings.TrimSuffix(strings.ToLower(text), "/"))
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.Scheme+"://"+u.Host != u.String() || strings.Contains(u.Host, "*") ||
			strings.ContainsFunc(u.Host, func(r rune) bool { return r > '~' }) {
			return nil, fmt.Errorf("%q is no origin such as https://app.example.org", text)
		}
		own := map[string]string{"https": ":443", "http": ":80"}[u.Scheme]
		origins[i] = u.Scheme + "://" + strings.TrimSuffix(u.Host, own)
	}
	return origins, nil
}

// What pages of another origin may send and read. Credentials are not among it: nobody is known by a cookie here.
var (
	corsMethods = strings.Join([]string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}, ", ")
	corsHeaders = strings.Join([]string{echo.HeaderAuthorization, echo.HeaderContentType, HeaderIdempotencyKey, "If-None-Match", HeaderMinPosition, HeaderDevice, headerProof}, ", ")
	corsExposed = strings.Join([]string{HeaderPosition, HeaderDevice, echo.HeaderRetryAfter, echo.HeaderXRequestID, "ETag", echo.HeaderLocation, echo.HeaderWWWAuthenticate, headerNonce}, ", ")
)

// corsMaxAge is how long browsers may keep the answer to a preflight, in seconds: ten minutes, of which a browser may make less.
const corsMaxAge = "600"

// originWait bounds how long a request waits to be told whose its origin is, where memory does not know: it may be one that needs no
// database, and is answered without CORS then.
const originWait = 2 * time.Second

// isAllowed says whether pages of an origin may read answers: those that the setting names, and those of every client.
func (s *Server) isAllowed(ctx context.Context, origin string) bool {
	if slices.Contains(s.AllowedOrigins, origin) {
		return true
	}
	if s.Clients == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, originWait)
	defer cancel()
	allowed, err := s.Clients.AllowsOrigin(ctx, origin)
	if err != nil {
		s.Logger.WarnContext(ctx, "whether an origin is a client's is not known, so its pages can't read an answer", slog.Any("error", err))
	}
	return allowed
}

// allowOrigin lets pages of the origins that are allowed read answers (CORS, in the Fetch standard), and says whether the request is a
// preflight of one of them, which is to be answered without more.
func (s *Server) allowOrigin(c *echo.Context) (preflight bool) {
	if len(s.AllowedOrigins) == 0 && s.Clients == nil {
		return false
	}
	r, h := c.Request(), c.Response().Header()
	h.Add(echo.HeaderVary, echo.HeaderOrigin) // an answer without an origin must not be kept for one that has
	wish := r.Header.Get(echo.HeaderAccessControlRequestMethod)
	asked := r.Method == http.MethodOptions && wish != ""
	if asked {
		h.Add(echo.HeaderVary, echo.HeaderAccessControlRequestMethod)
		h.Add(echo.HeaderVary, echo.HeaderAccessControlRequestHeaders)
	}
	origin := r.Header[echo.HeaderOrigin]
	if len(origin) != 1 || !s.isAllowed(r.Context(), origin[0]) {
		return false
	}
	h.Set(echo.HeaderAccessControlAllowOrigin, origin[0])
	if !asked {
		h.Set(echo.HeaderAccessControlExposeHeaders, corsExposed)
		return false
	}
	h.Set(echo.HeaderAccessControlAllowMethods, corsMethods)
	h.Set(echo.HeaderAccessControlAllowHeaders, corsHeaders)
	h.Set(echo.HeaderAccessControlMaxAge, corsMaxAge)
	return true
}
