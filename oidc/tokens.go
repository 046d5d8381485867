package oidc

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"

	"usher.example/client"
	"usher.example/identity"
	"usher.example/server"
	"usher.example/token"
)

const formVerifier = "code_verifier"

// redeem gives a client the tokens that a code is for (RFC 6749, section 4.1.3). The append that starts the grant uses the code up.
func (p *provider) redeem(ctx context.Context, r request) (server.Answer, error) {
	c, ok := p.codes.open(r.form.Get(paramCode))
	switch {
	case !ok || c.Client != r.client.ID:
		return server.Answer{}, refuse(invalidGrant, "the code is none of this client's")
	case r.form.Get(paramRedirectURI) != c.Redirect:
		return server.Answer{}, refuse(invalidGrant, "the redirect_uri is another one than that of the request")
	case !c.proves(r.form.Get(formVerifier)):
		return server.Answer{}, refuse(invalidGrant, "the code_verifier is not that of the code_challenge")
	}
	key, err := boundTo(r)
	if err != nil {
		return server.Answer{}, err
	}
	if err := p.checkResource(r.form); err != nil {
		return server.Answer{}, err
	}
	m := r.Metadata()
	m.Actor = identity.ActorDelegated(c.User, r.client.ID)
	if p.Now().Unix() >= c.Until {
		return server.Answer{}, errors.Join(refuse(invalidGrant, "the code has expired"), p.Identity.EndGrant(ctx, c.Grant, c.User, identity.EndedReuse, m))
	}
	g := identity.Grant{Client: r.client.ID.String(), Scopes: c.Scopes, Parent: c.Session, AuthTime: beganAt(c.Session), Methods: c.Methods}
	if r.client.IsPublic() {
		g.Confirmation = key
	}
	result, err := p.Identity.StartGrant(ctx, c.Grant, c.User, g, m)
	switch {
	case errors.Is(err, identity.ErrGrantStarted):
		// Whoever shows it again has it from somebody, or somebody has it from them.
		if err := p.Identity.EndGrant(ctx, c.Grant, c.User, identity.EndedReuse, m); err != nil {
			return server.Answer{}, err
		}
		return server.Answer{}, refuse(invalidGrant, "the code was used before, and what it was used for has ended")
	case errors.Is(err, identity.ErrSessionEnded), err == nil && !p.stillMay(r.client, result):
		return server.Answer{}, refuse(invalidGrant, "the user has logged out, or does not let the client in any more")
	case err != nil:
		return server.Answer{}, err
	}
	return p.tokens(r, result, c.Scopes, c.Nonce, key)
}

// beganAt is when a session began, which its id tells.
func beganAt(session uuid.UUID) time.Time { return identity.BrowserSession{ID: session}.BeganAt() }

// stillMay says whether the user of a grant lets the client do anything: an application of others needs a consent, which may have been
// withdrawn.
func (p *provider) stillMay(c client.Client, r identity.LoginResult) bool {
	return c.FirstParty || r.User.Allows(c.ID.String(), r.Session)
}

// refresh gives a client the next tokens of a grant (RFC 6749, section 6).
func (p *provider) refresh(ctx context.Context, r request) (server.Answer, error) {
	raw := r.form.Get(client.GrantRefresh)
	if raw == "" {
		return server.Answer{}, refuse(invalidRequest, "the parameter refresh_token is needed")
	}
	key, err := boundTo(r)
	if err != nil {
		return server.Answer{}, err
	}
	if err := p.checkResource(r.form); err != nil {
		return server.Answer{}, err
	}
	by := identity.Grantee{Client: r.client.ID.String(), Idle: time.Duration(r.client.RefreshTokenSeconds) * time.Second, Confirmation: key}
	result, err := p.Identity.RefreshGrant(ctx, identity.RefreshToken(raw), by, r.Metadata())
	switch {
	case errors.Is(err, identity.ErrInvalidRefreshToken), err == nil && !p.stillMay(r.client, result):
		return server.Answer{}, refuse(invalidGrant, "the refresh token is not good, or not this client's")
	case errors.Is(err, identity.ErrUserLocked), errors.Is(err, identity.ErrUserDisabled):
		return server.Answer{}, refuse(invalidGrant, "the account is locked or disabled")
	case err != nil:
		return server.Answer{}, err
	}
	scopes := result.Grant.Scopes
	if asked := client.ParseScopes(r.form.Get(formScope)); len(asked) > 0 {
		for _, scope := range asked {
			if !slices.Contains(scopes, scope) {
				return server.Answer{}, refuse(invalidScope, "the scope is more than what was granted")
			}
		}
		scopes = asked
	}
	return p.tokens(r, result, scopes, "", key)
}

// tokens answers with the tokens of a grant, of as many of the scopes as the client may have by now.
func (p *provider) tokens(r request, result identity.LoginResult, scopes []string, nonce, key string) (server.Answer, error) {
	scopes = r.client.Allowed(scopes)
	g, id := result.Grant, r.client.ID.String()
	grant := token.Grant{
		Subject: result.User.ID.String(), Client: id, Session: result.Session.String(), Scopes: scopes, Audience: g.Audience, Confirmation: key,
		Lifetime: time.Duration(r.client.AccessTokenSeconds) * time.Second, Until: result.ExpiresAt,
	}
	if r.client.FirstParty { // they say what the user may do elsewhere, which is nothing to others
		grant.Roles = result.User.Roles
	}
	raw, claims, err := p.Issuer.Issue(grant)
	if err != nil {
		return server.Answer{}, err
	}
	answer := grantedToken(raw, claims)
	if r.client.May(client.GrantRefresh) {
		answer.RefreshToken = string(result.Refresh)
	}
	if slices.Contains(scopes, client.ScopeOpenID) {
		answer.IDToken, err = p.Issuer.IssueID(token.IDToken{
			Subject: grant.Subject, Client: id, AuthTime: g.AuthTime, Methods: server.AuthenticationMethods(g.Methods), Class: class(g.Methods),
			Nonce: nonce, Session: grant.Session, AccessToken: raw, Profile: profile(result.User, scopes),
		}, token.Algorithm(r.client.IDTokenAlgorithm))
		if err != nil {
			return server.Answer{}, err
		}
	}
	return server.OK(answer).At(result.Position), nil
}
