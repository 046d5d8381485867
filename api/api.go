// Package api is the JSON API: JSON in and out, problems as RFC 9457 says, access tokens as bearers.
//
// It is one of the surfaces that stand on package server. It holds no state and decides nothing: package identity carries out the
// commands, package projections answers the queries over many users. Every route is in schema/openapi.yaml, and every answer
// is held against it in tests.
package api

import (
	"context"
	"errors"
	"time"

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
	Keys        *token.KeyRing
	PublicURL   string // where clients reach the server
	Users       projections.Users
	Sessions    projections.Sessions
	Activity    projections.Activity
	Stats       projections.Stats
	Checkpoints *projections.Checkpoints
	Projections *projections.Operator
	Webhooks    *webhook.Service
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
	r.POST("/v1/auth/register", a.Limited(&quotaRegister, a.register))
	r.POST("/v1/auth/login", a.Limited(&quotaLogin, a.login))
	r.POST("/v1/auth/refresh", a.Limited(&quotaRefresh, a.refresh))
	r.POST("/v1/auth/logout", a.logout)
	r.POST("/v1/auth/logout-all", a.logoutAll)
	r.POST("/v1/auth/verify-email", a.Limited(&quotaCode, a.verifyEmail))
	r.POST("/v1/auth/verify-email/resend", a.Limited(&quotaMail, a.resendVerification))
	r.POST("/v1/auth/password/forgot", a.Limited(&quotaMail, a.forgotPassword))
	r.POST("/v1/auth/password/reset", a.Limited(&quotaCode, a.resetPassword))
	r.GET("/v1/me", a.me)
	r.PATCH("/v1/me", a.updateMe)
	r.DELETE("/v1/me", a.eraseMe)
	r.POST("/v1/me/password", a.changePassword)
	r.POST("/v1/me/email", a.changeEmail)
	r.POST("/v1/me/totp", a.startTOTP)
	r.DELETE("/v1/me/totp", a.disableTOTP)
	r.POST("/v1/me/totp/confirm", a.confirmTOTP)
	r.POST("/v1/me/recovery-codes", a.newRecoveryCodes)
	r.GET("/v1/me/sessions", a.listSessions)
	r.DELETE("/v1/me/sessions/:id", a.endSession)
	r.GET("/v1/me/activity", a.listOwnActivity)
	r.GET("/v1/users", a.Admin(a.listUsers))
	r.POST("/v1/users", a.Admin(a.createUser))
	r.GET("/v1/users/:id", a.Admin(a.showUser))
	r.PATCH("/v1/users/:id", a.Admin(a.changeUser))
	r.DELETE("/v1/users/:id", a.Admin(a.onUser(a.Identity.Erase)))
	r.POST("/v1/users/:id/lock", a.Admin(a.onUser(a.Identity.LockUser)))
	r.POST("/v1/users/:id/unlock", a.Admin(a.onUser(a.Identity.UnlockUser)))
	r.POST("/v1/users/:id/disable", a.Admin(a.onUser(a.Identity.DisableUser)))
	r.POST("/v1/users/:id/enable", a.Admin(a.onUser(a.Identity.EnableUser)))
	r.POST("/v1/users/:id/password-reset", a.Admin(a.sendPasswordReset))
	r.POST("/v1/users/:id/logout-all", a.Admin(a.onUser(a.Identity.RevokeSessions)))
	r.DELETE("/v1/users/:id/totp", a.Admin(a.onUser(a.Identity.ResetTOTP)))
	r.PUT("/v1/users/:id/roles/:role", a.Admin(a.onRole(a.Identity.GrantRole)))
	r.DELETE("/v1/users/:id/roles/:role", a.Admin(a.onRole(a.Identity.RevokeRole)))
	r.GET("/v1/users/:id/events", a.Admin(a.listUserEvents))
	r.GET("/v1/users/:id/sessions", a.Admin(a.listUserSessions))
	r.GET("/v1/events", a.Admin(a.listEvents))
	r.GET("/v1/activity", a.Admin(a.listActivity))
	r.GET("/v1/stats", a.Admin(a.showStats))
	r.GET("/v1/projections", a.Admin(a.listProjections))
	r.POST("/v1/projections/:name/pause", a.Admin(a.pauseProjection()))
	r.POST("/v1/projections/:name/resume", a.Admin(a.resumeProjection()))
	r.POST("/v1/projections/:name/rebuild", a.Admin(a.rebuildProjection()))
	r.DELETE("/v1/projections/:name/rebuild", a.Admin(a.cancelRebuild()))
	r.POST("/v1/projections/:name/retry", a.Admin(a.retryProjection()))
	r.POST("/v1/projections/:name/skip", a.Admin(a.skipEvent()))
	r.GET("/v1/outbox", a.Admin(a.showOutbox))
	r.GET("/v1/webhooks", a.Admin(a.listWebhooks))
	r.POST("/v1/webhooks", a.Admin(a.createWebhook))
	r.GET("/v1/webhooks/:id", a.Admin(a.showWebhook))
	r.PATCH("/v1/webhooks/:id", a.Admin(a.changeWebhook))
	r.DELETE("/v1/webhooks/:id", a.Admin(a.deleteWebhook))
	r.GET("/v1/webhooks/:id/deliveries", a.Admin(a.listDeliveries))
	r.POST("/v1/webhooks/:id/deliveries/:delivery/redrive", a.Admin(a.redriveOne))
	r.POST("/v1/webhooks/:id/redrive", a.Admin(a.redriveAll))
	r.POST("/v1/webhooks/:id/test", a.Admin(a.testWebhook))
	r.GET(pathKeys, a.jwks)
	r.GET("/.well-known/openid-configuration", a.describeServer)
	r.GET(pathMetadata, a.describeServer)
	r.GET("/", a.showIndex)
	r.GET(pathOpenAPI, a.openAPI)
	r.GET(pathJSON, a.openAPIJSON)
	oauth := a.Routes(server.Surface{Tell: tellOAuth})
	oauth.POST(pathIntrospect, a.onToken(a.introspect))
	oauth.POST(pathRevoke, a.onToken(a.revoke))
}

// explain gives errors of read models their codea.
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
