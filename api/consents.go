package api

import (
	"context"

	"usher.example/client"
	"usher.example/server"
)

// listConsents answers GET /v1/me/consents.
func (a *api) listConsents(ctx context.Context, call *server.Call, _ server.Nothing) (server.Answer, error) {
	list, err := a.Clients.Consents(ctx, call.User)
	return server.OK(page[client.Consent]{Items: list}), err
}

// withdrawConsent answers DELETE /v1/me/consents/{client}.
func (a *api) withdrawConsent(ctx context.Context, call *server.Call, in struct {
	Client string `path:"client"`
}) (server.Answer, error) {
	result, err := a.Identity.WithdrawConsent(ctx, call.User.ID, in.Client, call.Metadata())
	return server.Done(result.Position), err
}
