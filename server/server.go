// Package server is what every HTTP surface of usher has in common, and nothing else: the listener and its limits, who asks and
// through which proxy, how often, the id and the trace of a request, problems as RFC 9457 says, access tokens as bearers, calls
// from browsers, bodies that are read strictly, metrics, health.
//
// A surface is a package that answers requests: it stands on this one, beside the others and knowing none of them, and adds its
// routes to a Server (see Server.Routes). A process has one Server, whatever surfaces it has.
//
// Guarantees: a body is read strictly or refused; nothing that a caller sends leads to a 5xx; whatever goes wrong on our
// side is answered with a problem that gives nothing away and with Retry-After where trying again may help; no secret is
// logged, and of a request only method, route, status and id are.
//
// It does not terminate TLS.
package server

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

	"usher.example/client"
	"usher.example/eventstore"
	"usher.example/identity"
	"usher.example/token"
)

// Config is what a Server stands on. All fields are needed but those with a default.
type Config struct {
	Identity *identity.Service
	Log      *eventstore.Log
	Verifier *token.Verifier
	Clients  *client.Registry
	// PublicURL is where clients reach the server, which proofs of DPoP have to name.
	PublicURL string
	// NonceKey makes the nonces of those proofs, and is the same in all processes.
	NonceKey []byte
	// Checks are what /readyz stands on.
	Checks []Check
	// RateLimits bounds how often a network or a user may do what has a quota.
	RateLimits bool
	// TrustedProxies are believed when they say for whom they ask, and as which part of which trace: see ParseProxies.
	TrustedProxies []netip.Prefix
	// AllowedOrigins are those whose pages may call from a browser, beside those of clients: see ParseOrigins.
	AllowedOrigins []string
	// PlainHTTP says that browsers reach the server by http, where a cookie can't be kept to https, nor a browser to that.
	PlainHTTP bool

	Registry *prometheus.Registry // a new one when nil
	Tracer   trace.Tracer         // records requests; none when nil
	Logger   *slog.Logger         // nothing is logged when nil
	// ShutdownWait bounds how long Run waits for requests that are being answered. 10 s when 0.
	ShutdownWait time.Duration
	Now          func() time.Time // time.Now when nil
}

// Server answers the requests of all surfaces.
type Server struct {
	Config
	echo    *echo.Echo
	metrics metrics
	limits  *limits
	proxies proxies
	proofs  *token.ProofVerifier
	ready   readiness
	head    head
	closing chan struct{}
	// surfaces are those that routes are of; what is on none of them is told of as elsewhere says.
	surfaces  map[Endpoint]Surface
	elsewhere Surface
	pages     map[string]page // by path: see Routes.Page
}

// New makes a server, which answers no more than /livez and /readyz until surfaces add their routes.
func New(c Config) *Server {
	if c.Registry == nil {
		c.Registry = prometheus.NewRegistry()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if c.ShutdownWait == 0 {
		c.ShutdownWait = 10 * time.Second
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	s := &Server{
		Config: c, metrics: newMetrics(c.Registry), limits: newLimits(c.Now), closing: make(chan struct{}), surfaces: map[Endpoint]Surface{}, pages: map[string]page{},
		ready:   readiness{checks: c.Checks, now: c.Now, logger: c.Logger},
		proxies: proxies{trusted: c.TrustedProxies, logger: c.Logger},
		proofs:  token.NewProofVerifier(token.ProofConfig{NonceKey: c.NonceKey, Now: c.Now}),
	}
	// A client's id can be an address, which is one part of a path with its slashes encoded.
	router := echo.NewRouter(echo.RouterConfig{UnescapePathParamValues: true})
	s.echo = echo.NewWithConfig(echo.Config{Router: router, Logger: c.Logger, HTTPErrorHandler: func(c *echo.Context, err error) { s.fail(c, err) }, IPExtractor: s.proxies.client})
	s.echo.Use(s.attend)
	health := s.Routes(Surface{})
	s.elsewhere = health.surface
	health.GET("/livez", Open, s.livez)
	health.GET("/readyz", Open, s.readyz)
	return s
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.echo.ServeHTTP(w, r) }

// Run answers requests on a listener, which it closes, until ctx ends; then it finishes those that have begun, within
// ShutdownWait, and returns nil. It fails with the listener's error, or if it had to cut requests off. It is called once.
func (s *Server) Run(ctx context.Context, listener net.Listener) error {
	defer context.AfterFunc(ctx, func() { close(s.closing) })()
	return serve(ctx, listener, s, s.ShutdownWait, s.Logger)
}

// Closing is closed when the server stops: what waits for something to happen is to be answered without it.
func (s *Server) Closing() <-chan struct{} { return s.closing }

// Limits of a connection. A request's header and body have to come within readTimeout, or a slow sender would hold a
// connection for ever; the answer includes the time in the queue for hashing.
const (
	headerTimeout = 5 * time.Second
	readTimeout   = 15 * time.Second
	WriteTimeout  = 60 * time.Second // for an answer, unless it asks for longer
	idleTimeout   = 2 * time.Minute
	maxHeader     = 32 << 10
)

func serve(ctx context.Context, listener net.Listener, h http.Handler, wait time.Duration, logger *slog.Logger) error {
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      WriteTimeout,
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
