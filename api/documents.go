package api

import (
	"net/http"

	"github.com/labstack/echo/v5"

	"usher/schema"
)

// publicFor is how long documents that seldom change may be kept.
var publicFor = []string{"public, max-age=300"}

// jwks answers GET /.well-known/jwks.json, the public keys that verify access tokens (RFC 7517).
func (s *Server) jwks(c *echo.Context) error {
	c.Response().Header()[echo.HeaderCacheControl] = publicFor
	return c.Blob(http.StatusOK, "application/jwk-set+json", s.Keys.JWKS())
}

// openAPI answers GET /openapi.yaml, the description of this API.
func (s *Server) openAPI(c *echo.Context) error {
	c.Response().Header()[echo.HeaderCacheControl] = publicFor
	return c.Blob(http.StatusOK, "application/yaml", schema.OpenAPI)
}
