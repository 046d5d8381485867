// Package api is the JSON API: JSON in and out, problems as RFC 9457 says, access tokens as bearers.
//
// It is one of the surfaces that stand on package server. It holds no state and decides nothing: package identity carries out the
// commands, package projections answers the queries over many users. Every route is in schema/openapi.yaml, and every answer
// is held against it in tests.
package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"usher.example/client"
	"usher.example/identity"
	"usher.example/identity/password"
	"usher.example/projections"
	"usher.example/publisher/webhook"
	"usher.example/server"
	"usher.example/token"
)

// Config is what the API stands on, beside its server. All fields are needed but those with a default.
type Config struct {
	Passwords   *password.Pool // whose queue is shown as a metric
	Issuer      *token.Issuer
	PublicURL   string // where clients reach the server
	Users       projections.Users
	Sessions    projections.Sessions
	Activity    projections.Activity
	Stats       projections.Stats
	Checkpoints *projections.Checkpoints
	Projections *projections.Operator
	Webhooks    *webhook.Service
	Exports     *server.Exports
	// Outbox answers with the state of the relay.
	Outbox func(context.Context) (Outbox, error)
	// CursorKey authenticates cursors. It is the same in all processes.
	CursorKey []byte
	// PositionWait bounds how long a read waits for Usher-Min-Position. 5 s when 0.
	PositionWait time.Duration
}

// api answers the requests of the API.
type api struct {
	*server.Server
	Config
	metrics metrics
	feed    feed
}

// Register adds the API to a server.
func Register(s *server.Server, c Config) { newAPI(s, c).routes() }

func newAPI(s *server.Server, c Config) *api {
	if c.PositionWait == 0 {
		c.PositionWait = 5 * time.Second
	}
	return &api{Server: s, Config: c, metrics: newMetrics(s.Registry, c.Passwords)}
}

func (a *api) routes() {
	r := a.Routes(server.Surface{Explain: explain})
	r.POST("/v1/auth/register", server.Anyone(&server.QuotaRegister), counted(a.Registered, server.Handle(a.register)))
	r.POST("/v1/auth/login", server.Anyone(&server.QuotaLogin), counted(a.LoggedIn, server.Handle(a.login)))
	r.POST("/v1/auth/refresh", server.Anyone(&server.QuotaRefresh), counted(a.metrics.refreshed, server.Handle(a.refresh)))
	r.POST("/v1/auth/logout", server.Open, server.Handle(a.logout))
	r.POST("/v1/auth/logout-all", server.Own(client.ScopeAccountWrite), server.Handle(a.logoutAll))
	r.POST("/v1/auth/verify-email", server.Anyone(&server.QuotaCode), server.Handle(a.verifyEmail))
	r.POST("/v1/auth/verify-email/resend", server.Anyone(&server.QuotaMail), server.Handle(a.resendVerification))
	r.POST("/v1/auth/password/forgot", server.Anyone(&server.QuotaMail), server.Handle(a.forgotPassword))
	r.POST("/v1/auth/password/reset", server.Anyone(&server.QuotaCode), server.Handle(a.resetPassword))
	r.GET("/v1/me", server.Own(client.ScopeAccountRead), me)
	r.PATCH("/v1/me", server.Own(client.ScopeAccountWrite), server.Handle(a.updateMe))
	r.DELETE("/v1/me", server.Own(client.ScopeAccountWrite), server.Handle(a.eraseMe))
	r.POST("/v1/me/password", server.Own(client.ScopeAccountWrite), server.Handle(a.changePassword))
	r.POST("/v1/me/email", server.Own(client.ScopeAccountWrite), server.Handle(a.changeEmail))
	r.POST("/v1/me/totp", server.Own(client.ScopeAccountWrite), server.Handle(a.startTOTP))
	r.DELETE("/v1/me/totp", server.Own(client.ScopeAccountWrite), server.Handle(a.disableTOTP))
	r.POST("/v1/me/totp/confirm", server.Own(client.ScopeAccountWrite), server.Handle(a.confirmTOTP))
	r.POST("/v1/me/recovery-codes", server.Own(client.ScopeAccountWrite), server.Handle(a.newRecoveryCodes))
	r.GET("/v1/me/sessions", server.Own(client.ScopeAccountRead), server.Handle(a.listSessions))
	r.DELETE("/v1/me/sessions/:id", server.Own(client.ScopeAccountWrite), server.Handle(a.endSession))
	r.GET("/v1/me/consents", server.Own(client.ScopeAccountRead), server.Handle(a.listConsents))
	r.DELETE("/v1/me/consents/:client", server.Own(client.ScopeAccountWrite), server.Handle(a.withdrawConsent))
	r.GET("/v1/me/activity", server.Own(client.ScopeAccountRead), server.Handle(a.listOwnActivity))
	r.GET("/v1/me/export", server.Own(client.ScopeAccountRead), server.Handle(a.exportMe))
	r.POST("/v1/me/export", server.Own(client.ScopeAccountRead), server.Handle(a.exportMeProven))
	r.GET("/v1/users", server.Scoped(client.ScopeUsersRead), server.Handle(a.listUsers))
	r.POST("/v1/users", server.Scoped(client.ScopeUsersWrite), server.Handle(a.createUser))
	r.GET("/v1/users/:id", server.Scoped(client.ScopeUsersRead), server.Handle(a.showUser))
	r.PATCH("/v1/users/:id", server.Scoped(client.ScopeUsersWrite), server.Handle(a.changeUser))
	r.DELETE("/v1/users/:id", server.Scoped(client.ScopeUsersWrite), a.onUser(a.Identity.Erase))
	r.POST("/v1/users/:id/lock", server.Scoped(client.ScopeUsersWrite), a.onUser(a.Identity.LockUser))
	r.POST("/v1/users/:id/unlock", server.Scoped(client.ScopeUsersWrite), a.onUser(a.Identity.UnlockUser))
	r.POST("/v1/users/:id/disable", server.Scoped(client.ScopeUsersWrite), a.onUser(a.Identity.DisableUser))
	r.POST("/v1/users/:id/enable", server.Scoped(client.ScopeUsersWrite), a.onUser(a.Identity.EnableUser))
	r.POST("/v1/users/:id/password-reset", server.Scoped(client.ScopeUsersWrite), server.Handle(a.sendPasswordReset))
	r.POST("/v1/users/:id/logout-all", server.Scoped(client.ScopeUsersWrite), a.onUser(a.Identity.RevokeSessions))
	r.DELETE("/v1/users/:id/totp", server.Scoped(client.ScopeUsersWrite), a.onUser(a.Identity.ResetTOTP))
	r.PUT("/v1/users/:id/roles/:role", server.Scoped(client.ScopeUsersWrite), a.onRole(a.Identity.GrantRole))
	r.DELETE("/v1/users/:id/roles/:role", server.Scoped(client.ScopeUsersWrite), a.onRole(a.Identity.RevokeRole))
	r.GET("/v1/users/:id/events", server.Scoped(client.ScopeUsersRead), server.Handle(a.listUserEvents))
	r.GET("/v1/users/:id/sessions", server.Scoped(client.ScopeUsersRead), server.Handle(a.listUserSessions))
	r.GET("/v1/events", server.Scoped(client.ScopeEventsRead), server.Handle(a.listEvents))
	r.GET("/v1/activity", server.Scoped(client.ScopeUsersRead), server.Handle(a.listActivity))
	r.GET("/v1/stats", server.Scoped(client.ScopeOperateRead), server.Handle(a.showStats))
	r.GET("/v1/projections", server.Scoped(client.ScopeOperateRead), server.Handle(a.listProjections))
	r.POST("/v1/projections/:name/pause", server.Scoped(client.ScopeOperateWrite), a.onProjection(http.StatusOK, a.Projections.Pause))
	r.POST("/v1/projections/:name/resume", server.Scoped(client.ScopeOperateWrite), a.onProjection(http.StatusOK, a.Projections.Resume))
	r.POST("/v1/projections/:name/rebuild", server.Scoped(client.ScopeOperateWrite), server.Handle(a.rebuildProjection))
	r.DELETE("/v1/projections/:name/rebuild", server.Scoped(client.ScopeOperateWrite), a.onProjection(http.StatusOK, a.cancelRebuild))
	r.POST("/v1/projections/:name/retry", server.Scoped(client.ScopeOperateWrite), server.Handle(a.retryProjection))
	r.POST("/v1/projections/:name/skip", server.Scoped(client.ScopeOperateWrite), server.Handle(a.skipEvent))
	r.GET("/v1/outbox", server.Scoped(client.ScopeOperateRead), server.Handle(a.showOutbox))
	r.GET("/v1/webhooks", server.Scoped(client.ScopeOperateRead), server.Handle(a.listWebhooks))
	r.POST("/v1/webhooks", server.Scoped(client.ScopeWebhooksWrite), server.Handle(a.createWebhook))
	r.GET("/v1/webhooks/:id", server.Scoped(client.ScopeOperateRead), server.Handle(a.showWebhook))
	r.PATCH("/v1/webhooks/:id", server.Scoped(client.ScopeWebhooksWrite), server.Handle(a.changeWebhook))
	r.DELETE("/v1/webhooks/:id", server.Scoped(client.ScopeWebhooksWrite), server.Handle(a.deleteWebhook))
	r.GET("/v1/webhooks/:id/deliveries", server.Scoped(client.ScopeOperateRead), server.Handle(a.listDeliveries))
	r.POST("/v1/webhooks/:id/deliveries/:delivery/redrive", server.Scoped(client.ScopeOperateWrite), server.Handle(a.redriveOne))
	r.POST("/v1/webhooks/:id/redrive", server.Scoped(client.ScopeOperateWrite), server.Handle(a.redriveAll))
	r.POST("/v1/webhooks/:id/test", server.Scoped(client.ScopeWebhooksWrite), server.Handle(a.testWebhook))
	r.GET("/v1/clients", server.Scoped(client.ScopeOperateRead), server.Handle(a.listClients))
	r.POST("/v1/clients", server.Scoped(client.ScopeClientsWrite), server.Handle(a.createClient))
	r.GET("/v1/clients/:id", server.Scoped(client.ScopeOperateRead), server.Handle(a.showClient))
	r.PATCH("/v1/clients/:id", server.Scoped(client.ScopeClientsWrite), server.Handle(a.changeClient))
	r.DELETE("/v1/clients/:id", server.Scoped(client.ScopeClientsWrite), server.Handle(a.deleteClient))
	r.POST("/v1/clients/:id/secrets", server.Scoped(client.ScopeClientsWrite), server.Handle(a.rotateClientSecret))
	r.POST("/v1/clients/:id/keys", server.Scoped(client.ScopeClientsWrite), server.Handle(a.addClientKey))
	r.DELETE("/v1/clients/:id/credentials/:credential", server.Scoped(client.ScopeClientsWrite), server.Handle(a.retireClientCredential))
	r.GET("/", server.Open, a.showIndex)
	r.GET(pathOpenAPI, server.Open, a.openAPI)
	r.GET(pathJSON, server.Open, a.openAPIJSON)
}

// explain gives errors of read models their codes.
func explain(err error) (identity.Code, string) {
	var filter *projections.FilterError
	switch {
	case errors.Is(err, projections.ErrBadCursor):
		return server.CodeInvalidCursor, ""
	case errors.As(err, &filter):
		return identity.CodeInvalidRequest, filter.Detail
	case errors.Is(err, projections.ErrNotFound):
		return identity.CodeNotFound, ""
	case errors.Is(err, projections.ErrBehind):
		return identity.CodeBehind, ""
	case errors.Is(err, projections.ErrUnknownProjection):
		return identity.CodeBehind, "the read model has not been made yet"
	case errors.Is(err, projections.ErrOtherVersion):
		return identity.CodeBehind, "the read model is that of another version of usher, and lacks what this needs until it is rebuilt"
	}
	return "", ""
}
