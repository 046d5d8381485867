package api

import (
	"net/http"

	"github.com/labstack/echo/v5"

	"usher.example/identity"
	"usher.example/identity/password"
	"usher.example/server"
)

// proof reads a request in which a user shows to be that user.
func (a *api) proof(c *echo.Context) (commander, identity.Proof, error) {
	who, p, err := a.optionalProof(c)
	if err == nil {
		err = required("current_password", string(p.Password))
	}
	return who, p, err
}

// optionalProof reads one in which a user may show that.
func (a *api) optionalProof(c *echo.Context) (commander, identity.Proof, error) {
	var body struct {
		Password password.Password   `json:"current_password"`
		TOTP     identity.FactorCode `json:"totp"`
	}
	who, err := a.command(c, &body)
	return who, identity.Proof{Session: who.Session, Password: body.Password, TOTP: body.TOTP}, err
}

// startTOTP answers POST /v1/me/totp.
func (a *api) startTOTP(c *echo.Context) error {
	who, p, err := a.proof(c)
	if err != nil {
		return err
	}
	key, err := a.Identity.StartTOTP(c.Request().Context(), who.ID, p, who.metadata)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, struct {
		Secret string `json:"secret"`
		URL    string `json:"otpauth_url"`
	}{string(key.Secret), string(key.URL)})
}

// confirmTOTP answers POST /v1/me/totp/confirm.
func (a *api) confirmTOTP(c *echo.Context) error {
	var body struct {
		Code identity.FactorCode `json:"code"`
	}
	who, err := a.command(c, &body)
	if err != nil {
		return err
	}
	if err := required("code", string(body.Code)); err != nil {
		return err
	}
	result, err := a.Identity.ConfirmTOTP(c.Request().Context(), who.ID, body.Code, who.metadata)
	if err != nil {
		return err
	}
	return done(c, result.Position)
}

// disableTOTP answers DELETE /v1/me/totp.
func (a *api) disableTOTP(c *echo.Context) error {
	who, p, err := a.proof(c)
	if err != nil {
		return err
	}
	result, err := a.Identity.DisableTOTP(c.Request().Context(), who.ID, p, who.metadata)
	if err != nil {
		return err
	}
	return done(c, result.Position)
}

// newRecoveryCodes answers POST /v1/me/recovery-codes.
func (a *api) newRecoveryCodes(c *echo.Context) error {
	who, p, err := a.proof(c)
	if err != nil {
		return err
	}
	codes, result, err := a.Identity.NewRecoveryCodes(c.Request().Context(), who.ID, p, who.metadata)
	if err != nil {
		return err
	}
	server.SetPosition(c, result.Position)
	return c.JSON(http.StatusOK, struct {
		Codes []identity.FactorCode `json:"codes"`
	}{codes})
}
