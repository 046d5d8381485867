package api

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/google/uuid"
	"github.com/labstack/echo/v5"

	"usher.example/eventstore"
	"usher.example/identity"
	"usher.example/identity/password"
	"usher.example/server"
)

// createUser answers POST /v1/users.
func (a *api) createUser(c *echo.Context) error {
	var body struct {
		Email         string          `json:"email"`
		Password      string          `json:"password"`
		Name          string          `json:"name"`
		Roles         []string        `json:"roles"`
		EmailVerified bool            `json:"email_verified"`
		Attributes    json.RawMessage `json:"attributes"`
	}
	who, err := a.command(c, &body)
	if err != nil {
		return err
	}
	if err := required("email", body.Email); err != nil {
		return err
	}
	n := identity.NewUser{Email: body.Email, Password: password.Password(body.Password), Name: body.Name, Roles: body.Roles,
		EmailVerified: body.EmailVerified, Attributes: body.Attributes, Metadata: who.metadata}
	if n.CommandID, err = who.commandID(c, "create user"); err != nil {
		return err
	}
	u, result, err := a.Identity.CreateUser(c.Request().Context(), n)
	if err != nil {
		return err
	}
	c.Response().Header().Set(echo.HeaderLocation, "/v1/users/"+u.ID.String())
	server.SetPosition(c, result.Position)
	return c.JSONBlob(http.StatusCreated, u.JSON())
}

// commandID is the command id that a caller's idempotency key stands for in a kind of requests; the nil UUID for no key.
func (who commander) commandID(c *echo.Context, kind string) (uuid.UUID, error) {
	key, err := server.IdempotencyKey(c)
	if err != nil || key == "" {
		return uuid.Nil, err
	}
	return identity.CommandID(kind+"\x00"+who.ID.String(), key), nil
}

// changeUser answers PATCH /v1/users/{id}.
func (a *api) changeUser(c *echo.Context) error {
	var body struct {
		Name          server.PatchText  `json:"name"`
		Attributes    server.MergePatch `json:"attributes"`
		Email         *string           `json:"email"`
		EmailVerified *bool             `json:"email_verified"`
	}
	who, err := a.command(c, &body)
	if err != nil {
		return err
	}
	id, err := pathID(c, noUser)
	if err != nil {
		return err
	}
	ctx := c.Request().Context()
	result, err := a.Identity.ChangeUser(ctx, id, identity.UserChange{
		ProfileChange: identity.ProfileChange{Name: body.Name.Value, Attributes: body.Attributes.RawMessage}, Email: body.Email, EmailVerified: body.EmailVerified,
	}, who.metadata)
	if err != nil {
		return err
	}
	u, err := a.Identity.ReadUser(ctx, id)
	if err != nil {
		return err
	}
	server.SetPosition(c, result.Position)
	return c.JSONBlob(http.StatusOK, u.JSON())
}

// onUser answers a request that names a user in its path, and is done by a command that needs no more than that.
func (a *api) onUser(do func(context.Context, uuid.UUID, eventstore.Metadata) (eventstore.Result, error)) echo.HandlerFunc {
	return func(c *echo.Context) error {
		who, err := a.command(c, nil)
		if err != nil {
			return err
		}
		id, err := pathID(c, noUser)
		if err != nil {
			return err
		}
		result, err := do(c.Request().Context(), id, who.metadata)
		if err != nil {
			return err
		}
		return done(c, result.Position)
	}
}

// onRole answers PUT and DELETE /v1/users/{id}/roles/{role}.
func (a *api) onRole(do func(context.Context, uuid.UUID, string, eventstore.Metadata) (eventstore.Result, error)) echo.HandlerFunc {
	return func(c *echo.Context) error {
		return a.onUser(func(ctx context.Context, id uuid.UUID, m eventstore.Metadata) (eventstore.Result, error) {
			return do(ctx, id, c.Param("role"), m)
		})(c)
	}
}

// sendPasswordReset answers POST /v1/users/{id}/password-reset.
func (a *api) sendPasswordReset(c *echo.Context) error {
	who, err := a.command(c, nil)
	if err != nil {
		return err
	}
	id, err := pathID(c, noUser)
	if err != nil {
		return err
	}
	command, err := who.commandID(c, "password reset of "+id.String())
	if err != nil {
		return err
	}
	result, err := a.Identity.SendPasswordReset(c.Request().Context(), id, command, who.metadata)
	if err != nil {
		return err
	}
	return accepted(c, result.Position)
}
