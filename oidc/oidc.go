// Package oidc is what usher is as an OpenID provider and authorization server: the endpoints by which users log in to applications,
// and applications and services get tokens, ask about them and revoke them, and the documents by which they find those.
//
// It is one of the surfaces that stand on package server. Errors are in the form of OAuth (RFC 6749, section 5.2).
//
// Guarantees: nobody is led to where a client has not said beforehand; a code is used up by the append that starts its grant, in
// whichever process, and shown a second time it ends what the first time began; no code is kept anywhere. There is no other flow than
// that of codes, with PKCE.
package oidc

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"usher.example/pages/look"
	"usher.example/server"
	"usher.example/token"
)

// Config is what the surface stands on, beside its server. All fields are needed.
type Config struct {
	Issuer    *token.Issuer
	Keys      *token.KeyRing
	PublicURL string // where clients reach the server
	Look      *look.Look
	CodeKey   []byte // that codes are sealed with, 32 bytes. It is the same in all processes, and in no database
}

// provider answers the requests of the surface.
type provider struct {
	*server.Server
	Config
	codes     sealer
	screens   screens
	crossSite *http.CrossOriginProtection
}

// Register adds the surface to a server. It fails where a template can't be used.
func Register(s *server.Server, c Config) error {
	p := &provider{Server: s, Config: c, crossSite: http.NewCrossOriginProtection()}
	var errs [3]error
	p.codes, errs[0] = newSealer(c.CodeKey)
	p.screens, errs[1] = newScreens(c.Look)
	public, err := url.Parse(c.PublicURL)
	if errs[2] = err; err == nil {
		errs[2] = p.crossSite.AddTrustedOrigin(public.Scheme + "://" + public.Host)
	}
	if err := errors.Join(errs[:]...); err != nil {
		return fmt.Errorf("set up the provider: %w", err)
	}
	p.routes()
	return nil
}

func (p *provider) routes() {
	s := p.Server
	documents := s.Routes(server.Surface{})
	documents.GET(pathKeys, server.Open, p.jwks)
	documents.GET("/.well-known/openid-configuration", server.Open, p.describe)
	documents.GET(PathMetadata, server.Open, p.describe)
	documents.GET(server.PathResource, server.Open, p.describeResource)
	oauth := s.Routes(server.Surface{Tell: tell})
	oauth.POST(pathToken, server.Anyone(&server.QuotaRefresh), p.byClient(p.grant))
	oauth.POST(pathDevice, server.Anyone(&server.QuotaDevice), p.byClient(p.askByDevice))
	oauth.POST(pathIntrospect, server.Open, p.byConfidential(onToken(p.introspect)))
	oauth.POST(pathRevoke, server.Open, p.byClient(onToken(p.revoke)))
	about := s.Routes(server.Surface{})
	about.GET(pathUserinfo, server.Open, p.userinfo)
	about.POST(pathUserinfo, server.Open, p.userinfo)
	browser := s.Routes(server.Surface{Tell: p.tellBrowser})
	browser.GET(pathAuthorize, server.Open, p.authorize)
	browser.POST(pathAuthorize, server.Open, p.authorizeSent)
	browser.GET(pathLogout, server.Open, p.logout)
	browser.POST(pathLogout, server.Open, p.logout)
	browser.GET(pathConsent, server.Open, p.showConsent)
	browser.POST(pathConsent, server.Anyone(&server.QuotaCode), p.decideConsent)
	browser.GET(p.screens.script.Path, server.Open, p.showScript)
}
