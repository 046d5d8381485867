package oidc

import (
	"context"
	"net/url"
	"slices"
	"strings"
	"time"

	"usher.example/client"
	"usher.example/server"
	"usher.example/token"
)

// grant answers POST /oauth2/token.
func (p *provider) grant(ctx context.Context, r request) (server.Answer, error) {
	grant := r.form.Get(formGrantType)
	by := map[string]func(context.Context, request) (server.Answer, error){
		client.GrantCode: p.redeem, client.GrantRefresh: p.refresh, client.GrantClientCredentials: p.grantItself,
		client.GrantDevice: p.grantDevice, client.GrantExchange: p.exchange,
	}[grant]
	switch {
	case grant == "":
		return server.Answer{}, refuse(invalidRequest, "the parameter grant_type is needed")
	case by == nil:
		return server.Answer{}, refuse(unsupportedGrantType, "there are %s", strings.Join(grants, ", "))
	case !r.client.May(grant):
		return server.Answer{}, refuse(unauthorizedClient, "the client may not use the grant %s", grant)
	}
	return by(ctx, r)
}

// grants are those that there are.
var grants = []string{client.GrantCode, client.GrantRefresh, client.GrantClientCredentials, client.GrantDevice, client.GrantExchange}

// granted is the answer of RFC 6749, section 5.1.
type granted struct {
	AccessToken string `json:"access_token"`
	TokenType   string `json:"token_type"`
	ExpiresIn   int64  `json:"expires_in"` // seconds
	Scope       string `json:"scope"`

	RefreshToken string `json:"refresh_token,omitempty"`
	IDToken      string `json:"id_token,omitempty"`
	IssuedType   string `json:"issued_token_type,omitempty"` // of an exchange
}

// grantItself gives a client a token for itself (RFC 6749, section 4.4). It takes no statement once the client is in memory.
func (p *provider) grantItself(_ context.Context, r request) (server.Answer, error) {
	scopes, err := scopesFor(r, client.ServiceScopes)
	if err != nil {
		return server.Answer{}, err
	}
	if err := p.checkResource(r.form); err != nil {
		return server.Answer{}, err
	}
	key, err := boundTo(r)
	if err != nil {
		return server.Answer{}, err
	}
	id := r.client.ID.String()
	raw, claims, err := p.Issuer.Issue(token.Grant{Subject: id, Client: id, Scopes: scopes, Confirmation: key, Lifetime: time.Duration(r.client.AccessTokenSeconds) * time.Second})
	if err != nil {
		return server.Answer{}, err
	}
	return server.OK(grantedToken(raw, claims)), nil
}

// grantedToken is the answer with an access token alone.
func grantedToken(raw string, claims token.Claims) granted {
	return granted{
		AccessToken: raw, TokenType: tokenType(claims.Confirmation), ExpiresIn: int64(claims.ExpiresAt.Sub(claims.IssuedAt) / time.Second),
		Scope: strings.Join(claims.Scopes, " "),
	}
}

// scopesFor are those that a client asks for, or all that it may have where it asks for none; of those that there are for a grant.
func scopesFor(r request, there []string) ([]string, error) {
	may := r.client.Allowed(there)
	asked := client.ParseScopes(r.form.Get(formScope))
	if len(asked) == 0 {
		asked = may
	}
	for _, scope := range asked {
		if !slices.Contains(may, scope) {
			return nil, refuse(invalidScope, "a scope that is asked for is none that the client may have; there are: %s", strings.Join(may, " "))
		}
	}
	if len(asked) == 0 {
		return nil, refuse(invalidScope, "the client has no scopes for this grant")
	}
	return asked, nil
}

// checkResource says whether a token is asked for usher's own API (RFC 8707), which is the one that there is.
func (p *provider) checkResource(form url.Values) error {
	resource := form.Get(formResource)
	if resource != "" && strings.TrimSuffix(resource, "/") != strings.TrimSuffix(p.PublicURL, "/") {
		return refuse(invalidTarget, "the resource is %s, or left out", p.PublicURL)
	}
	return nil
}
