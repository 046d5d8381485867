package api

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/google/uuid"

	"usher.example/client"
	"usher.example/eventstore"
	"usher.example/identity"
	"usher.example/identity/password"
	"usher.example/server"
)

// createUser answers POST /v1/users.
func (a *api) createUser(ctx context.Context, call *server.Call, in struct {
	Email         string            `json:"email" required:"true"`
	Password      password.Password `json:"password"`
	Name          string            `json:"name"`
	Roles         []string          `json:"roles"`
	EmailVerified bool              `json:"email_verified"`
	Attributes    json.RawMessage   `json:"attributes"`
}) (server.Answer, error) {
	if err := call.Need(client.Rights(in.Roles)...); err != nil {
		return server.Answer{}, err
	}
	u, result, err := a.Identity.CreateUser(ctx, identity.NewUser{
		Email: in.Email, Password: in.Password, Name: in.Name, Roles: in.Roles, EmailVerified: in.EmailVerified, Attributes: in.Attributes,
		CommandID: call.CommandID("create user"), Metadata: call.Metadata(),
	})
	if err != nil {
		return server.Answer{}, err
	}
	return server.Created("/v1/users/"+u.ID.String(), json.RawMessage(u.JSON())).At(result.Position), nil
}

// ofUser is a path that names a user.
type ofUser struct {
	ID uuid.UUID `path:"id" missing:"there is no such user"`
}

// mayOver lets nobody do to a user what would make them more than they are: who has a role that allows more than the caller may is for
// others. Whoever may everything is asked nothing.
func (a *api) mayOver(ctx context.Context, call *server.Call, id uuid.UUID) error {
	if call.Need(client.ServiceScopes...) == nil {
		return nil
	}
	u, err := a.Identity.ReadUser(ctx, id)
	if errors.Is(err, identity.ErrNotFound) { // which is for the command to say
		return nil
	}
	if err != nil {
		return err
	}
	return call.Need(client.Rights(u.Roles)...)
}

// changeUser answers PATCH /v1/users/{id}, with the user, which is for those who may read about users.
func (a *api) changeUser(ctx context.Context, call *server.Call, in struct {
	ofUser
	profileChange
	Email         *string `json:"email"`
	EmailVerified *bool   `json:"email_verified"`
}) (server.Answer, error) {
	if err := call.Need(client.ScopeUsersRead); err != nil {
		return server.Answer{}, err
	}
	if err := a.mayOver(ctx, call, in.ID); err != nil {
		return server.Answer{}, err
	}
	change := identity.UserChange{ProfileChange: in.profileChange.of(), Email: in.Email, EmailVerified: in.EmailVerified}
	result, err := a.Identity.ChangeUser(ctx, in.ID, change, call.Metadata())
	if err != nil {
		return server.Answer{}, err
	}
	u, err := a.Identity.ReadUser(ctx, in.ID)
	if err != nil {
		return server.Answer{}, err
	}
	return server.OK(json.RawMessage(u.JSON())).At(result.Position), nil
}

// onUser answers a call that names a user in its path, and is done by a command that needs no more than that.
func (a *api) onUser(do func(context.Context, uuid.UUID, eventstore.Metadata) (eventstore.Result, error)) server.Handler {
	return server.Handle(func(ctx context.Context, call *server.Call, in ofUser) (server.Answer, error) {
		if err := a.mayOver(ctx, call, in.ID); err != nil {
			return server.Answer{}, err
		}
		result, err := do(ctx, in.ID, call.Metadata())
		return server.Done(result.Position), err
	})
}

// onRole answers PUT and DELETE /v1/users/{id}/roles/{role}. Nobody gives a role that allows more than they may themselves.
func (a *api) onRole(do func(context.Context, uuid.UUID, string, eventstore.Metadata) (eventstore.Result, error)) server.Handler {
	type ofRole struct {
		ofUser
		Role string `path:"role"`
	}
	return server.Handle(func(ctx context.Context, call *server.Call, in ofRole) (server.Answer, error) {
		if err := call.Need(client.Rights([]string{in.Role})...); err != nil {
			return server.Answer{}, err
		}
		if err := a.mayOver(ctx, call, in.ID); err != nil {
			return server.Answer{}, err
		}
		result, err := do(ctx, in.ID, in.Role, call.Metadata())
		return server.Done(result.Position), err
	})
}

// sendPasswordReset answers POST /v1/users/{id}/password-reset.
func (a *api) sendPasswordReset(ctx context.Context, call *server.Call, in ofUser) (server.Answer, error) {
	if err := a.mayOver(ctx, call, in.ID); err != nil {
		return server.Answer{}, err
	}
	result, err := a.Identity.SendPasswordReset(ctx, in.ID, call.CommandID("password reset of "+in.ID.String()), call.Metadata())
	return server.Accepted().At(result.Position), err
}
