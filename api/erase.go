package api

import (
	"github.com/labstack/echo/v5"
)

// eraseMe answers DELETE /v1/me: the caller's own account is erased, and with it the session of the access token.
func (a *api) eraseMe(c *echo.Context) error {
	who, p, err := a.proof(c)
	if err != nil {
		return err
	}
	result, err := a.Identity.EraseOwn(c.Request().Context(), who.ID, p, who.metadata)
	if err != nil {
		return err
	}
	return done(c, result.Position)
}
