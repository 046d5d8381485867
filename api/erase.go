package api

import (
	"github.com/labstack/echo/v5"

	"usher/identity"
	"usher/identity/password"
)

// eraseMe answers DELETE /v1/me: the caller's own account is erased, and with it the session of the access token.
func (s *Server) eraseMe(c *echo.Context) error {
	var body struct {
		Password password.Password   `json:"current_password"`
		TOTP     identity.FactorCode `json:"totp"`
	}
	who, err := s.command(c, &body)
	if err != nil {
		return err
	}
	if err := required("current_password", string(body.Password)); err != nil {
		return err
	}
	result, err := s.Identity.EraseOwn(c.Request().Context(), who.ID, identity.Proof{Password: body.Password, TOTP: body.TOTP}, who.metadata)
	if err != nil {
		return err
	}
	return done(c, result.Position)
}
