package api

import (
	"github.com/labstack/echo/v5"
)

// eraseMe answers DELETE /v1/me: the caller's own account is erased, and with it the session of the access token.
func (s *Server) eraseMe(c *echo.Context) error {
	who, p, err := s.proof(c)
	if err != nil {
		return err
	}
	result, err := s.Identity.EraseOwn(c.Request().Context(), who.ID, p, who.metadata)
	if err != nil {
		return err
	}
	return done(c, result.Position)
}
