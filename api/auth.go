package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/labstack/echo/v5"

	"usher.example/identity"
	"usher.example/identity/password"
	"usher.example/server"
	"usher.example/token"
)

// register answers POST /v1/auth/register.
func (a *api) register(c *echo.Context) error {
	begin := time.Now()
	user, position, err := a.doRegister(c)
	a.metrics.registered(err)
	if err == nil && a.Identity.EnumerationSafe() {
		evenOut(c.Request().Context(), begin)
	}
	if err != nil {
		return err
	}
	if position > 0 {
		server.SetPosition(c, position)
	}
	return c.JSON(http.StatusCreated, struct {
		User any `json:"user"`
	}{user})
}

func (a *api) doRegister(c *echo.Context) (user any, position int64, err error) {
	var body struct {
		Email    string `json:"email"`
		Password string `json:"password"`
		Name     string `json:"name"`
	}
	if err := server.Decode(c, &body); err != nil {
		return nil, 0, err
	}
	if err := required("email", body.Email, "password", body.Password); err != nil {
		return nil, 0, err
	}
	r := identity.Registration{Email: body.Email, Password: password.Password(body.Password), Name: body.Name}
	key, err := server.IdempotencyKey(c)
	if err != nil {
		return nil, 0, err
	}
	if key != "" {
		r.CommandID = identity.CommandID("register", key)
	}
	if r.Metadata, err = server.Metadata(c, identity.ActorAnonymous); err != nil {
		return nil, 0, err
	}
	result, err := a.Identity.Register(c.Request().Context(), r)
	if err != nil {
		return nil, 0, err
	}
	if result.User == nil {
		// What everybody is told, whether or not the address was free.
		return struct {
			Email string `json:"email"`
			Name  string `json:"name"`
		}{result.Email.String(), result.Name}, 0, nil
	}
	return json.RawMessage(result.User.JSON()), result.Position, nil
}

// login answers POST /v1/auth/login.
func (a *api) login(c *echo.Context) error {
	begin := time.Now()
	result, err := a.doLogin(c)
	a.metrics.loggedIn(err)
	if errors.Is(err, identity.ErrInvalidCredentials) && a.Identity.EnumerationSafe() {
		evenOut(c.Request().Context(), begin) // of a user who is not in memory more is read than of nobody
	}
	if err != nil {
		return err
	}
	if err := a.endFormer(c); err != nil {
		return err
	}
	return a.grant(c, result)
}

// endFormer ends the session that a login came with an access token of: the one that begins takes its place.
func (a *api) endFormer(c *echo.Context) error {
	if len(c.Request().Header[echo.HeaderAuthorization]) == 0 {
		return nil
	}
	who, err := a.Caller(c)
	if server.IsRefused(err) { // it is over already
		return nil
	}
	if err != nil {
		return err
	}
	m, err := server.Metadata(c, identity.ActorUser(who.ID))
	if err != nil {
		return err
	}
	_, err = a.Identity.EndSession(c.Request().Context(), who.ID, who.Session, identity.EndedLogout, m)
	if errors.Is(err, identity.ErrNotFound) {
		err = nil
	}
	return err
}

// grant answers with the tokens of a session.
func (a *api) grant(c *echo.Context, r identity.LoginResult) error {
	access, claims, err := a.Issuer.Issue(token.Grant{
		Subject: r.User.ID.String(), Session: r.Session.String(), Roles: r.User.Roles, Until: r.ExpiresAt,
	})
	if err != nil {
		return err
	}
	if r.Position > 0 {
		server.SetPosition(c, r.Position)
	}
	server.SetDevice(c, r.Device)
	return c.JSON(http.StatusOK, struct {
		AccessToken      string          `json:"access_token"`
		TokenType        string          `json:"token_type"`
		ExpiresIn        int64           `json:"expires_in"` // seconds
		RefreshToken     string          `json:"refresh_token"`
		RefreshExpiresIn int64           `json:"refresh_expires_in"` // seconds
		User             json.RawMessage `json:"user"`
	}{
		access, server.BearerType, int64(claims.ExpiresAt.Sub(claims.IssuedAt) / time.Second),
		string(r.Refresh), int64(r.RefreshExpiresAt.Sub(a.Now()).Round(time.Second) / time.Second), r.User.JSON(),
	})
}

func (a *api) doLogin(c *echo.Context) (identity.LoginResult, error) {
	var body struct {
		Email    string `json:"email"`
		Password string `json:"password"`
		TOTP     string `json:"totp"`
	}
	if err := server.Decode(c, &body); err != nil {
		return identity.LoginResult{}, err
	}
	if err := required("email", body.Email, "password", body.Password); err != nil {
		return identity.LoginResult{}, err
	}
	m, err := server.Metadata(c, identity.ActorAnonymous)
	if err != nil {
		return identity.LoginResult{}, err
	}
	return a.Identity.Login(c.Request().Context(), identity.Credentials{
		Email: body.Email, Password: password.Password(body.Password), TOTP: identity.FactorCode(body.TOTP), Device: server.Device(c), Metadata: m,
	})
}

// required refuses the first of the fields, given as names and values, that is empty.
func required(fields ...string) error {
	for i := 0; i < len(fields); i += 2 {
		if fields[i+1] == "" {
			return server.Refuse(identity.CodeInvalidRequest, "the field %q is needed", fields[i])
		}
	}
	return nil
}
