// Package api is the HTTP API: JSON in and out, problems as RFC 9457 says, access tokens as bearers.
//
// It holds no state and decides nothing: package identity carries out the commands, package projections answers the
// queries over many users. Every route is in schema/openapi.yaml, and every answer is held against it in tests.
//
// Guarantees: a body is read strictly or refused; nothing that a caller sends leads to a 5xx; whatever goes wrong on our
// side is answered with a problem that gives nothing away and with Retry-After where trying again may help; no secret is
// logged, and of a request only method, route, status and id are.
//
// It does not terminate TLS.
package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/labstack/echo/v5"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"usher.example/eventstore"
	"usher.example/identity"
	"usher.example/identity/password"
	"usher.example/projections"
	"usher.example/publisher/webhook"
	"usher.example/token"
)

// Config is what a Server stands on. All fields are needed but those with a default.
type Config struct {
	Identity    *identity.Service
	Log         *eventstore.Log
	Passwords   *password.Pool // whose queue is shown as a metric
	Issuer      *token.Issuer
	Verifier    *token.Verifier
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
	// Checks are what /readyz stands on.
	Checks []Check
	// CursorKey authenticates cursors. It is the same in all processes.
	CursorKey []byte
	// RateLimits bounds how often a network may do what needs no access token.
	RateLimits bool
	// TrustedProxies are believed when they say for whom they ask, and as which part of which trace: see ParseProxies.
	TrustedProxies []netip.Prefix
	// AllowedOrigins are those whose pages may call from a browser: see ParseOrigins.
	AllowedOrigins []string

	Registry *prometheus.Registry // a new one when nil
	Tracer   trace.Tracer         // records requests; none when nil
	Logger   *slog.Logger         // nothing is logged when nil
	// PositionWait bounds how long a read waits for Usher-Min-Position. 5 s when 0.
	PositionWait time.Duration
	// ShutdownWait bounds how long Run waits for requests that are being answered. 10 s when 0.
	ShutdownWait time.Duration
	Now          func() time.Time // time.Now when nil
}

// Server answers the HTTP API.
type Server struct {
	Config
	echo    *echo.Echo
	logger  *slog.Logger
	metrics metrics
	limits  *limits
	proxies proxies
	ready   readiness
	head    head
	feed    feed
}

// New makes a server.
func New(c Config) *Server {
	if c.Registry == nil {
		c.Registry = prometheus.NewRegistry()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if c.PositionWait == 0 {
		c.PositionWait = 5 * time.Second
	}
	if c.ShutdownWait == 0 {
		c.ShutdownWait = 10 * time.Second
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	s := &Server{Config: c, logger: c.Logger, metrics: newMetrics(c.Registry, c.Passwords), limits: newLimits(c.Now)}
	s.feed.closing = make(chan struct{})
	s.ready = readiness{checks: c.Checks, now: c.Now, logger: c.Logger}
	s.proxies = proxies{trusted: c.TrustedProxies, logger: c.Logger}
	s.echo = echo.NewWithConfig(echo.Config{Logger: c.Logger, HTTPErrorHandler: s.fail, IPExtractor: s.proxies.client})
	s.echo.Use(s.attend)
	s.routes()
	return s
}

func (s *Server) routes() {
	e := s.echo
	get := func(path string, answer echo.HandlerFunc) {
		e.GET(path, answer)
		e.HEAD(path, answer) // net/http leaves the body out
	}
	e.POST("/v1/auth/register", s.limited(&quotaRegister, s.register))
	e.POST("/v1/auth/login", s.limited(&quotaLogin, s.login))
	e.POST("/v1/auth/refresh", s.limited(&quotaRefresh, s.refresh))
	e.POST("/v1/auth/logout", s.logout)
	e.POST("/v1/auth/logout-all", s.logoutAll)
	e.POST("/v1/auth/verify-email", s.limited(&quotaCode, s.verifyEmail))
	e.POST("/v1/auth/verify-email/resend", s.limited(&quotaMail, s.resendVerification))
	e.POST("/v1/auth/password/forgot", s.limited(&quotaMail, s.forgotPassword))
	e.POST("/v1/auth/password/reset", s.limited(&quotaCode, s.resetPassword))
	get("/v1/me", s.me)
	e.PATCH("/v1/me", s.updateMe)
	e.DELETE("/v1/me", s.eraseMe)
	e.POST("/v1/me/password", s.changePassword)
	e.POST("/v1/me/email", s.changeEmail)
	e.POST("/v1/me/totp", s.startTOTP)
	e.DELETE("/v1/me/totp", s.disableTOTP)
	e.POST("/v1/me/totp/confirm", s.confirmTOTP)
	e.POST("/v1/me/recovery-codes", s.newRecoveryCodes)
	get("/v1/me/sessions", s.listSessions)
	e.DELETE("/v1/me/sessions/:id", s.endSession)
	get("/v1/me/activity", s.listOwnActivity)
	get("/v1/users", s.admin(s.listUsers))
	e.POST("/v1/users", s.admin(s.createUser))
	get("/v1/users/:id", s.admin(s.showUser))
	e.PATCH("/v1/users/:id", s.admin(s.changeUser))
	e.DELETE("/v1/users/:id", s.admin(s.onUser(s.Identity.Erase)))
	e.POST("/v1/users/:id/lock", s.admin(s.onUser(s.Identity.LockUser)))
	e.POST("/v1/users/:id/unlock", s.admin(s.onUser(s.Identity.UnlockUser)))
	e.POST("/v1/users/:id/disable", s.admin(s.onUser(s.Identity.DisableUser)))
	e.POST("/v1/users/:id/enable", s.admin(s.onUser(s.Identity.EnableUser)))
	e.POST("/v1/users/:id/password-reset", s.admin(s.sendPasswordReset))
	e.POST("/v1/users/:id/logout-all", s.admin(s.onUser(s.Identity.RevokeSessions)))
	e.DELETE("/v1/users/:id/totp", s.admin(s.onUser(s.Identity.ResetTOTP)))
	e.PUT("/v1/users/:id/roles/:role", s.admin(s.onRole(s.Identity.GrantRole)))
	e.DELETE("/v1/users/:id/roles/:role", s.admin(s.onRole(s.Identity.RevokeRole)))
	get("/v1/users/:id/events", s.admin(s.listUserEvents))
	get("/v1/users/:id/sessions", s.admin(s.listUserSessions))
	get("/v1/events", s.admin(s.listEvents))
	get("/v1/activity", s.admin(s.listActivity))
	get("/v1/stats", s.admin(s.showStats))
	get("/v1/projections", s.admin(s.listProjections))
	e.POST("/v1/projections/:name/pause", s.admin(s.pauseProjection()))
	e.POST("/v1/projections/:name/resume", s.admin(s.resumeProjection()))
	e.POST("/v1/projections/:name/rebuild", s.admin(s.rebuildProjection()))
	e.DELETE("/v1/projections/:name/rebuild", s.admin(s.cancelRebuild()))
	e.POST("/v1/projections/:name/retry", s.admin(s.retryProjection()))
	e.POST("/v1/projections/:name/skip", s.admin(s.skipEvent()))
	get("/v1/outbox", s.admin(s.showOutbox))
	get("/v1/webhooks", s.admin(s.listWebhooks))
	e.POST("/v1/webhooks", s.admin(s.createWebhook))
	get("/v1/webhooks/:id", s.admin(s.showWebhook))
	e.PATCH("/v1/webhooks/:id", s.admin(s.changeWebhook))
	e.DELETE("/v1/webhooks/:id", s.admin(s.deleteWebhook))
	get("/v1/webhooks/:id/deliveries", s.admin(s.listDeliveries))
	e.POST("/v1/webhooks/:id/deliveries/:delivery/redrive", s.admin(s.redriveOne))
	e.POST("/v1/webhooks/:id/redrive", s.admin(s.redriveAll))
	e.POST("/v1/webhooks/:id/test", s.admin(s.testWebhook))
	e.POST(pathIntrospect, s.onToken(s.introspect))
	e.POST(pathRevoke, s.onToken(s.revoke))
	get(pathKeys, s.jwks)
	get("/.well-known/openid-configuration", s.describeServer)
	get(pathMetadata, s.describeServer)
	get("/", s.showIndex)
	get(pathOpenAPI, s.openAPI)
	get(pathJSON, s.openAPIJSON)
	get("/livez", s.livez)
	get("/readyz", s.readyz)
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.echo.ServeHTTP(w, r) }

// Run answers requests on a listener, which it closes, until ctx ends; then it finishes those that have begun, within
// ShutdownWait, and returns nil. It fails with the listener's error, or if it had to cut requests off. It is called once.
func (s *Server) Run(ctx context.Context, listener net.Listener) error {
	defer context.AfterFunc(ctx, func() { close(s.feed.closing) })()
	return serve(ctx, listener, s, s.ShutdownWait, s.logger)
}

// Limits of a connection. A request's header and body have to come within readTimeout, or a slow sender would hold a
// connection for ever; the answer includes the time in the queue for hashing.
const (
	headerTimeout = 5 * time.Second
	readTimeout   = 15 * time.Second
	writeTimeout  = 60 * time.Second
	idleTimeout   = 2 * time.Minute
	maxHeader     = 32 << 10
)

func serve(ctx context.Context, listener net.Listener, h http.Handler, wait time.Duration, logger *slog.Logger) error {
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug), // what clients do wrong below HTTP
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve HTTP on %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), wait)
	defer cancel()
	err := server.Shutdown(grace)
	if err != nil {
		err = errors.Join(fmt.Errorf("finish the requests that had begun: %w", err), server.Close())
	}
	<-served
	return err
}
