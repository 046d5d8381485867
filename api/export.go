package api

import (
	"context"

	"usher.example/identity"
	"usher.example/server"
)

// exportMe answers GET /v1/me/export, with everything there is of the caller: for a session that began lately, since whoever stole one
// must not have it all.
func (a *api) exportMe(ctx context.Context, call *server.Call, _ server.Nothing) (server.Answer, error) {
	if !a.Identity.BeganLately(call.Session) {
		return server.Answer{}, server.Refuse(identity.CodeForbidden, "the session began too long ago for this; log in again, or send the current_password by POST")
	}
	return a.Exports.Answer(ctx, call), nil
}

// exportMeProven answers POST /v1/me/export, which is GET for whoever shows to be the user.
func (a *api) exportMeProven(ctx context.Context, call *server.Call, in optionalProof) (server.Answer, error) {
	if err := a.Identity.Confirm(ctx, call.User.ID, call.Session, in.of(call), call.Metadata()); err != nil {
		return server.Answer{}, err
	}
	return a.Exports.Answer(ctx, call), nil
}
