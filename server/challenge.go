package server

import (
	"errors"
	"net/http"
	"strings"

	"github.com/labstack/echo/v5"

	"usher.example/token"
)

// PathResource is where what is needed to call the API is described (RFC 9728, section 3).
const PathResource = "/.well-known/oauth-protected-resource"

// challenge says what a request lacks that is refused with 401, or with 403 for want of a scope (RFC 6750, section 3): by the scheme that
// the request has chosen, or that its token needs, and where to find out how to get one (RFC 9728, section 5). It is "" for any other.
func (s *Server) challenge(c *echo.Context, status int, err error) string {
	var lacking *scopeError
	if status != http.StatusUnauthorized && !errors.As(err, &lacking) {
		return ""
	}
	scheme := BearerType
	if headers := c.Request().Header[echo.HeaderAuthorization]; len(headers) > 0 {
		if _, dpop := Credentials(headers, DPoPType); dpop || errors.Is(err, token.ErrBound) {
			scheme = DPoPType
		}
	}
	text := scheme + ` realm="usher"`
	switch {
	case lacking != nil:
		text += `, error="insufficient_scope", scope="` + lacking.scope + `"`
	case errors.Is(err, token.ErrNonce):
		text += `, error="use_dpop_nonce"`
	case errors.Is(err, token.ErrProof):
		text += `, error="invalid_dpop_proof"`
	case IsRefused(err):
		text += `, error="invalid_token"`
	}
	if scheme == DPoPType {
		text += `, algs="` + ProofAlgorithms + `"`
	}
	return text + `, resource_metadata="` + strings.TrimSuffix(s.PublicURL, "/") + PathResource + `"`
}
