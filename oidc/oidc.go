// Package oidc is what usher is as an authorization server: the endpoints of OAuth, by which services get tokens of their own, ask
// about tokens and revoke them, and the documents by which they find those.
//
// It is one of the surfaces that stand on package server. Errors are in the form of OAuth (RFC 6749, section 5.2).
package oidc

import (
	"usher.example/server"
	"usher.example/token"
)

// Config is what the surface stands on, beside its server. All fields are needed.
type Config struct {
	Issuer    *token.Issuer
	Keys      *token.KeyRing
	PublicURL string // where clients reach the server
}

// provider answers the requests of the surface.
type provider struct {
	*server.Server
	Config
}

// Register adds the surface to a server.
func Register(s *server.Server, c Config) {
	p := &provider{s, c}
	documents := s.Routes(server.Surface{})
	documents.GET(pathKeys, server.Open, p.jwks)
	documents.GET("/.well-known/openid-configuration", server.Open, p.describe)
	documents.GET(PathMetadata, server.Open, p.describe)
	documents.GET(server.PathResource, server.Open, p.describeResource)
	oauth := s.Routes(server.Surface{Tell: tell})
	oauth.POST(pathToken, server.Anyone(&server.QuotaRefresh), p.byClient(p.grant))
	oauth.POST(pathIntrospect, server.Open, p.byClient(onToken(p.introspect)))
	oauth.POST(pathRevoke, server.Open, p.byClient(onToken(p.revoke)))
}
