package api

import (
	"context"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v5"

	"usher.example/eventstore"
	"usher.example/identity"
	"usher.example/identity/password"
	"usher.example/server"
)

// verifyEmail answers POST /v1/auth/verify-email, with a code from a mail.
func (a *api) verifyEmail(c *echo.Context) error {
	var body struct {
		Code string `json:"code"`
	}
	if err := server.Decode(c, &body); err != nil {
		return err
	}
	if err := required("code", body.Code); err != nil {
		return err
	}
	m, err := server.Metadata(c, identity.ActorAnonymous)
	if err != nil {
		return err
	}
	command, err := a.CommandOf(c, "verify email", body.Code)
	if err != nil {
		return err
	}
	result, err := a.Identity.Verify(c.Request().Context(), identity.MailCode(body.Code), command, m)
	if err != nil {
		return err
	}
	return done(c, result.Position)
}

// resendVerification answers POST /v1/auth/verify-email/resend: for whoever has an address, or else for the caller.
func (a *api) resendVerification(c *echo.Context) error {
	begin := time.Now()
	var body struct {
		Email string `json:"email"`
	}
	if err := server.Decode(c, &body); err != nil {
		return err
	}
	if body.Email != "" {
		return a.askByAddress(c, begin, "resend verification", body.Email, a.Identity.RequestVerificationOf)
	}
	if len(c.Request().Header[echo.HeaderAuthorization]) == 0 {
		return server.Refuse(identity.CodeInvalidRequest, `the field "email" is needed, or an access token`)
	}
	who, err := a.Caller(c)
	if err != nil {
		return err
	}
	m, err := server.Metadata(c, identity.ActorUser(who.ID))
	if err != nil {
		return err
	}
	command, err := a.CommandOf(c, "resend verification", who.ID.String())
	if err != nil {
		return err
	}
	result, err := a.Identity.RequestVerification(c.Request().Context(), who.ID, command, m)
	if err != nil {
		return err
	}
	return accepted(c, result.Position)
}

// forgotPassword answers POST /v1/auth/password/forgot.
func (a *api) forgotPassword(c *echo.Context) error {
	begin := time.Now()
	var body struct {
		Email string `json:"email"`
	}
	if err := server.Decode(c, &body); err != nil {
		return err
	}
	if err := required("email", body.Email); err != nil {
		return err
	}
	return a.askByAddress(c, begin, "forgot password", body.Email, a.Identity.RequestPasswordReset)
}

// evenTime is what answers take that must not tell, by their time either, whether anybody has an address; those that take
// longer take a multiple of it.
const evenTime = 200 * time.Millisecond

// askByAddress asks for something in the name of whoever has an address, and answers in the same way, after the same time,
// whether or not anybody has.
func (a *api) askByAddress(c *echo.Context, begin time.Time, kind, address string, ask func(context.Context, string, uuid.UUID, eventstore.Metadata) error) error {
	m, err := server.Metadata(c, identity.ActorAnonymous)
	if err != nil {
		return err
	}
	command, err := a.CommandOf(c, kind, address)
	if err != nil {
		return err
	}
	ctx := c.Request().Context()
	err = ask(ctx, address, command, m)
	evenOut(ctx, begin)
	if err != nil {
		return err
	}
	return accepted(c, 0)
}

// evenOut waits until an answer to a request that began at a time has taken as long as others.
func evenOut(ctx context.Context, begin time.Time) {
	timer := time.NewTimer(evenTime - time.Since(begin)%evenTime)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// accepted answers a request of which something is still to come, such as a mail.
func accepted(c *echo.Context, position int64) error {
	if position > 0 {
		server.SetPosition(c, position)
	}
	return c.NoContent(http.StatusAccepted)
}

// resetPassword answers POST /v1/auth/password/reset, with a code from a mail.
func (a *api) resetPassword(c *echo.Context) error {
	var body struct {
		Code        string `json:"code"`
		NewPassword string `json:"new_password"`
	}
	if err := server.Decode(c, &body); err != nil {
		return err
	}
	if err := required("code", body.Code, "new_password", body.NewPassword); err != nil {
		return err
	}
	m, err := server.Metadata(c, identity.ActorAnonymous)
	if err != nil {
		return err
	}
	command, err := a.CommandOf(c, "reset password", body.Code, body.NewPassword)
	if err != nil {
		return err
	}
	set, err := a.Identity.ResetPassword(c.Request().Context(), identity.MailCode(body.Code), password.Password(body.NewPassword), command, m)
	if err != nil {
		return err
	}
	server.SetDevice(c, set.Device)
	return done(c, set.Position)
}

// updateMe answers PATCH /v1/me.
func (a *api) updateMe(c *echo.Context) error {
	var body struct {
		Name       server.PatchText  `json:"name"`
		Attributes server.MergePatch `json:"attributes"`
	}
	who, err := a.command(c, &body)
	if err != nil {
		return err
	}
	change := identity.ProfileChange{Name: body.Name.Value, Attributes: body.Attributes.RawMessage}
	result, err := a.Identity.UpdateOwnProfile(c.Request().Context(), who.ID, change, who.metadata)
	if err != nil {
		return err
	}
	u, err := a.Identity.User(c.Request().Context(), who.ID)
	if err != nil {
		return err
	}
	server.SetPosition(c, result.Position)
	return c.JSONBlob(http.StatusOK, u.JSON())
}

// changePassword answers POST /v1/me/password. The session of the access token goes on, and no other.
func (a *api) changePassword(c *echo.Context) error {
	var body struct {
		Password password.Password   `json:"current_password"`
		New      password.Password   `json:"new_password"`
		TOTP     identity.FactorCode `json:"totp"`
	}
	who, err := a.command(c, &body)
	if err != nil {
		return err
	}
	if err := required("current_password", string(body.Password), "new_password", string(body.New)); err != nil {
		return err
	}
	wish := identity.PasswordChange{
		User: who.ID, Session: who.Session, Proof: identity.Proof{Session: who.Session, Password: body.Password, TOTP: body.TOTP}, New: body.New, Metadata: who.metadata,
	}
	if wish.CommandID, err = a.CommandOf(c, "change password", who.ID.String(), string(body.Password), string(body.New)); err != nil {
		return err
	}
	set, err := a.Identity.ChangePassword(c.Request().Context(), wish)
	if err != nil {
		return err
	}
	server.SetDevice(c, set.Device)
	return done(c, set.Position)
}

// changeEmail answers POST /v1/me/email. The address changes once the code that is mailed to the new one comes back.
func (a *api) changeEmail(c *echo.Context) error {
	var body struct {
		Password password.Password   `json:"current_password"`
		Email    string              `json:"email"`
		TOTP     identity.FactorCode `json:"totp"`
	}
	who, err := a.command(c, &body)
	if err != nil {
		return err
	}
	if err := required("current_password", string(body.Password), "email", body.Email); err != nil {
		return err
	}
	command, err := a.CommandOf(c, "change email", who.ID.String(), string(body.Password), body.Email)
	if err != nil {
		return err
	}
	proof := identity.Proof{Session: who.Session, Password: body.Password, TOTP: body.TOTP}
	result, err := a.Identity.RequestEmailChange(c.Request().Context(), who.ID, proof, body.Email, command, who.metadata)
	if err != nil {
		return err
	}
	return accepted(c, result.Position)
}
