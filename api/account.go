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
)

// verifyEmail answers POST /v1/auth/verify-email, with a code from a mail.
func (s *Server) verifyEmail(c *echo.Context) error {
	var body struct {
		Code string `json:"code"`
	}
	if err := decode(c, &body); err != nil {
		return err
	}
	if err := required("code", body.Code); err != nil {
		return err
	}
	m, err := metadata(c, identity.ActorAnonymous)
	if err != nil {
		return err
	}
	command, err := s.commandOf(c, "verify email", body.Code)
	if err != nil {
		return err
	}
	result, err := s.Identity.Verify(c.Request().Context(), identity.MailCode(body.Code), command, m)
	if err != nil {
		return err
	}
	return done(c, result.Position)
}

// resendVerification answers POST /v1/auth/verify-email/resend: for whoever has an address, or else for the caller.
func (s *Server) resendVerification(c *echo.Context) error {
	begin := time.Now()
	var body struct {
		Email string `json:"email"`
	}
	if err := decode(c, &body); err != nil {
		return err
	}
	if body.Email != "" {
		return s.askByAddress(c, begin, "resend verification", body.Email, s.Identity.RequestVerificationOf)
	}
	if len(c.Request().Header[echo.HeaderAuthorization]) == 0 {
		return refuse(identity.CodeInvalidRequest, `the field "email" is needed, or an access token`)
	}
	who, err := s.caller(c)
	if err != nil {
		return err
	}
	m, err := metadata(c, identity.ActorUser(who.ID))
	if err != nil {
		return err
	}
	command, err := s.commandOf(c, "resend verification", who.ID.String())
	if err != nil {
		return err
	}
	result, err := s.Identity.RequestVerification(c.Request().Context(), who.ID, command, m)
	if err != nil {
		return err
	}
	return accepted(c, result.Position)
}

// forgotPassword answers POST /v1/auth/password/forgot.
func (s *Server) forgotPassword(c *echo.Context) error {
	begin := time.Now()
	var body struct {
		Email string `json:"email"`
	}
	if err := decode(c, &body); err != nil {
		return err
	}
	if err := required("email", body.Email); err != nil {
		return err
	}
	return s.askByAddress(c, begin, "forgot password", body.Email, s.Identity.RequestPasswordReset)
}

// evenTime is what answers take that must not tell, by their time either, whether anybody has an address; those that take
// longer take a multiple of it.
const evenTime = 200 * time.Millisecond

// askByAddress asks for something in the name of whoever has an address, and answers in the same way, after the same time,
// whether or not anybody has.
func (s *Server) askByAddress(c *echo.Context, begin time.Time, kind, address string, ask func(context.Context, string, uuid.UUID, eventstore.Metadata) error) error {
	m, err := metadata(c, identity.ActorAnonymous)
	if err != nil {
		return err
	}
	command, err := s.commandOf(c, kind, address)
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
		setPosition(c, position)
	}
	return c.NoContent(http.StatusAccepted)
}

// resetPassword answers POST /v1/auth/password/reset, with a code from a mail.
func (s *Server) resetPassword(c *echo.Context) error {
	var body struct {
		Code        string `json:"code"`
		NewPassword string `json:"new_password"`
	}
	if err := decode(c, &body); err != nil {
		return err
	}
	if err := required("code", body.Code, "new_password", body.NewPassword); err != nil {
		return err
	}
	m, err := metadata(c, identity.ActorAnonymous)
	if err != nil {
		return err
	}
	command, err := s.commandOf(c, "reset password", body.Code, body.NewPassword)
	if err != nil {
		return err
	}
	set, err := s.Identity.ResetPassword(c.Request().Context(), identity.MailCode(body.Code), password.Password(body.NewPassword), command, m)
	if err != nil {
		return err
	}
	setDevice(c, set.Device)
	return done(c, set.Position)
}

// updateMe answers PATCH /v1/me.
func (s *Server) updateMe(c *echo.Context) error {
	var body struct {
		Name       patchText  `json:"name"`
		Attributes mergePatch `json:"attributes"`
	}
	who, err := s.command(c, &body)
	if err != nil {
		return err
	}
	change := identity.ProfileChange{Name: body.Name.value, Attributes: body.Attributes.RawMessage}
	result, err := s.Identity.UpdateOwnProfile(c.Request().Context(), who.ID, change, who.metadata)
	if err != nil {
		return err
	}
	u, err := s.Identity.User(c.Request().Context(), who.ID)
	if err != nil {
		return err
	}
	setPosition(c, result.Position)
	return c.JSONBlob(http.StatusOK, u.JSON())
}

// changePassword answers POST /v1/me/password. The session of the access token goes on, and no other.
func (s *Server) changePassword(c *echo.Context) error {
	var body struct {
		Password password.Password   `json:"current_password"`
		New      password.Password   `json:"new_password"`
		TOTP     identity.FactorCode `json:"totp"`
	}
	who, err := s.command(c, &body)
	if err != nil {
		return err
	}
	if err := required("current_password", string(body.Password), "new_password", string(body.New)); err != nil {
		return err
	}
	wish := identity.PasswordChange{
		User: who.ID, Session: who.session, Proof: identity.Proof{Session: who.session, Password: body.Password, TOTP: body.TOTP}, New: body.New, Metadata: who.metadata,
	}
	if wish.CommandID, err = s.commandOf(c, "change password", who.ID.String(), string(body.Password), string(body.New)); err != nil {
		return err
	}
	set, err := s.Identity.ChangePassword(c.Request().Context(), wish)
	if err != nil {
		return err
	}
	setDevice(c, set.Device)
	return done(c, set.Position)
}

// changeEmail answers POST /v1/me/email. The address changes once the code that is mailed to the new one comes back.
func (s *Server) changeEmail(c *echo.Context) error {
	var body struct {
		Password password.Password   `json:"current_password"`
		Email    string              `json:"email"`
		TOTP     identity.FactorCode `json:"totp"`
	}
	who, err := s.command(c, &body)
	if err != nil {
		return err
	}
	if err := required("current_password", string(body.Password), "email", body.Email); err != nil {
		return err
	}
	command, err := s.commandOf(c, "change email", who.ID.String(), string(body.Password), body.Email)
	if err != nil {
		return err
	}
	proof := identity.Proof{Session: who.session, Password: body.Password, TOTP: body.TOTP}
	result, err := s.Identity.RequestEmailChange(c.Request().Context(), who.ID, proof, body.Email, command, who.metadata)
	if err != nil {
		return err
	}
	return accepted(c, result.Position)
}
