package api

import (
	"context"

	"github.com/google/uuid"

	"usher.example/client"
	"usher.example/identity"
	"usher.example/server"
)

// refresh answers POST /v1/auth/refresh.
func (a *api) refresh(ctx context.Context, call *server.Call, in struct {
	RefreshToken identity.RefreshToken `json:"refresh_token" required:"true"`
}) (server.Answer, error) {
	result, err := a.Identity.Refresh(ctx, in.RefreshToken, call.Metadata())
	if err != nil {
		return server.Answer{}, err
	}
	return a.grant(result)
}

// logout answers POST /v1/auth/logout: it ends the session of the refresh token in the body, whatever has become of the access
// token by then, or without one that of the access token.
func (a *api) logout(ctx context.Context, call *server.Call, in struct {
	RefreshToken identity.RefreshToken `json:"refresh_token"`
}) (server.Answer, error) {
	if in.RefreshToken != "" {
		return a.logoutBy(ctx, call, in.RefreshToken)
	}
	if err := call.Admit(server.Own(client.ScopeAccountWrite)); err != nil {
		return server.Answer{}, err
	}
	result, err := a.Identity.EndSession(ctx, call.User.ID, call.Session, identity.EndedLogout, call.Metadata())
	return server.Done(result.Position), err
}

// logoutBy ends the session of a refresh token, which counts as a refresh does.
func (a *api) logoutBy(ctx context.Context, call *server.Call, t identity.RefreshToken) (server.Answer, error) {
	if err := call.Admit(server.Anyone(&server.QuotaRefresh)); err != nil {
		return server.Answer{}, err
	}
	m := call.Metadata()
	m.Actor = "" // whose session it is
	result, err := a.Identity.EndSessionOf(ctx, t, identity.EndedLogout, nil, m)
	return server.Done(result.Position), err
}

// logoutAll answers POST /v1/auth/logout-all: it ends every session of the caller, this one too.
func (a *api) logoutAll(ctx context.Context, call *server.Call, in optionalProof) (server.Answer, error) {
	position, err := a.Identity.EndOwnSessions(ctx, call.User.ID, call.Session, in.of(call), call.Metadata())
	return server.Done(position), err
}

// listSessions answers GET /v1/me/sessions.
func (a *api) listSessions(ctx context.Context, call *server.Call, _ server.Nothing) (server.Answer, error) {
	list, err := a.Identity.Sessions(ctx, call.User.ID, call.Session)
	return server.OK(page[identity.Session]{Items: list}), err
}

// endSession answers DELETE /v1/me/sessions/{id}.
func (a *api) endSession(ctx context.Context, call *server.Call, in struct {
	optionalProof
	ID uuid.UUID `path:"id" missing:"there is no such session"`
}) (server.Answer, error) {
	result, err := a.Identity.EndOwnSession(ctx, call.User.ID, call.Session, in.ID, in.of(call), call.Metadata())
	return server.Done(result.Position), err
}
