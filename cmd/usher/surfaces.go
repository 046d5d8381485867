package main

import (
	"context"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"usher.example/api"
	"usher.example/client"
	"usher.example/identity"
	"usher.example/identity/dossier"
	"usher.example/identity/password"
	"usher.example/oidc"
	"usher.example/projections"
	"usher.example/publisher"
	"usher.example/server"
	"usher.example/token"
)

// foundation is what the surfaces stand on, beside the deployment.
type foundation struct {
	users       *identity.Service
	passwords   *password.Pool
	keys        *keyring
	clients     *client.Registry
	revocations *token.Revocations
	checkpoints *projections.Checkpoints
}

// front makes the server of a process, with every surface on it.
func (d *deployment) front(p process, registry *prometheus.Registry, on foundation) (*server.Server, error) {
	c := d.config
	issuer, err := token.NewIssuer(token.IssuerConfig{Keys: on.keys.ring, Issuer: c.JWTIssuer, Audience: c.JWTAudience, Lifetime: c.accessLifetime()})
	if err != nil {
		return nil, err
	}
	verifier, err := token.NewVerifier(token.VerifierConfig{Keys: on.keys.ring, Issuer: c.JWTIssuer, Audience: c.JWTAudience[0],
		Missing: on.keys.missing, Bound: true, Revoked: on.revocations.Revoked})
	if err != nil {
		return nil, err
	}
	proxies, err := server.ParseProxies(c.TrustedProxies)
	if err != nil {
		return nil, err
	}
	origins, err := server.ParseOrigins(c.AllowedOrigins)
	if err != nil {
		return nil, err
	}
	s := server.New(server.Config{
		Identity: on.users, Log: d.log, Verifier: verifier, Clients: on.clients, PublicURL: c.PublicURL, NonceKey: d.nonceKey,
		RateLimits: c.RateLimits == "on", TrustedProxies: proxies, AllowedOrigins: origins, PlainHTTP: !strings.HasPrefix(c.PublicURL, "https:"),
		Checks: d.readiness(p), Registry: registry, Tracer: d.tracer, Logger: d.logger,
	})
	exports := &server.Exports{Archive: d.dossiers(on.users)}
	api.Register(s, api.Config{
		Passwords: on.passwords, Issuer: issuer, PublicURL: c.PublicURL,
		Users: d.users(), Sessions: projections.Sessions{DB: d.store, CursorKey: d.cursorKey}, Activity: projections.Activity{DB: d.store},
		Stats: projections.Stats{DB: d.store}, Checkpoints: on.checkpoints, Webhooks: d.webhooks, CursorKey: d.cursorKey,
		Projections: &projections.Operator{Projections: allProjections(), DB: d.store, Log: d.log, Logger: d.logger},
		Exports:     exports,
		Outbox:      d.outbox,
	})
	l, err := c.look()
	if err != nil {
		return nil, err
	}
	if err := oidc.Register(s, oidc.Config{Issuer: issuer, Keys: on.keys.ring, PublicURL: c.PublicURL, Look: l, CodeKey: d.grantKey}); err != nil {
		return nil, err
	}
	return s, d.registerPages(s, l, exports)
}

// dossiers is where everything about a user is read from.
func (d *deployment) dossiers(users *identity.Service) dossier.Archive {
	return dossier.Archive{Log: d.log, DB: d.store, Users: users}
}

func (d *deployment) outbox(ctx context.Context) (api.Outbox, error) {
	s, err := publisher.ReadStatus(ctx, d.log, d.store, publisher.DefaultStream, time.Now())
	return api.Outbox{Head: s.Head, Published: s.Published, Lag: s.Lag, State: string(s.State), Error: s.Error}, err
}
