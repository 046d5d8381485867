package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"usher.example/client"
	"usher.example/identity"
	"usher.example/identity/password"
	"usher.example/server"
	"usher.example/token"
)

type registration struct {
	Email    string            `json:"email" required:"true"`
	Password password.Password `json:"password" required:"true"`
	Name     string            `json:"name"`
}

// register answers POST /v1/auth/register.
func (a *api) register(ctx context.Context, call *server.Call, in registration) (server.Answer, error) {
	type answer struct {
		User any `json:"user"`
	}
	begin := time.Now()
	result, err := a.Identity.Register(ctx, identity.Registration{
		Email: in.Email, Password: in.Password, Name: in.Name, CommandID: call.CommandID("register"), Metadata: call.Metadata(),
	})
	if err != nil {
		return server.Answer{}, err
	}
	if a.Identity.EnumerationSafe() {
		server.EvenOut(ctx, begin)
	}
	if result.User == nil {
		// What everybody is told, whether or not the address was free.
		return server.With(http.StatusCreated, answer{struct {
			Email string `json:"email"`
			Name  string `json:"name"`
		}{result.Email.String(), result.Name}}), nil
	}
	return server.With(http.StatusCreated, answer{json.RawMessage(result.User.JSON())}).At(result.Position), nil
}

type credentialsGiven struct {
	Email    string              `json:"email" required:"true"`
	Password password.Password   `json:"password" required:"true"`
	TOTP     identity.FactorCode `json:"totp"`
}

// login answers POST /v1/auth/login.
func (a *api) login(ctx context.Context, call *server.Call, in credentialsGiven) (server.Answer, error) {
	begin := time.Now()
	result, err := a.Identity.Login(ctx, identity.Credentials{
		Email: in.Email, Password: in.Password, TOTP: in.TOTP, Device: call.Device(), Metadata: call.Metadata(),
	})
	if errors.Is(err, identity.ErrInvalidCredentials) && a.Identity.EnumerationSafe() {
		server.EvenOut(ctx, begin) // of a user who is not in memory more is read than of nobody
	}
	if err != nil {
		return server.Answer{}, err
	}
	if err := a.endFormer(ctx, call); err != nil {
		return server.Answer{}, err
	}
	return a.grant(result)
}

// endFormer ends the session that a login came with an access token of: the one that begins takes its place.
func (a *api) endFormer(ctx context.Context, call *server.Call) error {
	if !call.HasCredentials() {
		return nil
	}
	err := call.Identify()
	if server.IsRefused(err) { // it is over already
		return nil
	}
	if err != nil {
		return err
	}
	if call.User == nil { // a client's own token is of no session
		return nil
	}
	_, err = a.Identity.EndSession(ctx, call.User.ID, call.Session, identity.EndedLogout, call.Metadata())
	if errors.Is(err, identity.ErrNotFound) {
		err = nil
	}
	return err
}

// grant answers with the tokens of a session.
func (a *api) grant(r identity.LoginResult) (server.Answer, error) {
	access, claims, err := a.Issuer.Issue(token.Grant{
		Subject: r.User.ID.String(), Session: r.Session.String(), Roles: r.User.Roles, Scopes: client.Scopes, Until: r.ExpiresAt,
	})
	if err != nil {
		return server.Answer{}, err
	}
	return server.OK(struct {
		AccessToken      string          `json:"access_token"`
		TokenType        string          `json:"token_type"`
		ExpiresIn        int64           `json:"expires_in"` // seconds
		RefreshToken     string          `json:"refresh_token"`
		RefreshExpiresIn int64           `json:"refresh_expires_in"` // seconds
		User             json.RawMessage `json:"user"`
	}{
		access, server.BearerType, int64(claims.ExpiresAt.Sub(claims.IssuedAt) / time.Second),
		string(r.Refresh), int64(r.RefreshExpiresAt.Sub(a.Now()).Round(time.Second) / time.Second), r.User.JSON(),
	}).At(r.Position).On(r.Device), nil
}

// counted tells what came of every call.
func counted(came func(error), answer server.Handler) server.Handler {
	return func(call *server.Call) (server.Answer, error) {
		a, err := answer(call)
		came(err)
		return a, err
	}
}
