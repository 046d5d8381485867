package oidc

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"usher.example/client"
	"usher.example/eventstore"
	"usher.example/identity"
	"usher.example/server"
	"usher.example/token"
)

// onToken makes a call on a token, which comes in the form.
func onToken(do func(ctx context.Context, r request, raw string) (server.Answer, error)) func(context.Context, request) (server.Answer, error) {
	return func(ctx context.Context, r request) (server.Answer, error) {
		raw := r.form.Get(formToken)
		if raw == "" {
			return server.Answer{}, server.Refuse(identity.CodeInvalidRequest, "the parameter token is needed")
		}
		return do(ctx, r, raw)
	}
}

const hintRefreshToken = "refresh_token"

// introspection says what a token stands for (RFC 7662, section 2.2). Of one that is not good there is only that.
type introspection struct {
	Active    bool     `json:"active"`
	TokenType string   `json:"token_type,omitempty"` // of access tokens
	Subject   string   `json:"sub,omitempty"`
	Client    string   `json:"client_id,omitempty"`
	Scope     string   `json:"scope,omitempty"` // what the bearer may do by now
	Session   string   `json:"sid,omitempty"`
	Roles     []string `json:"roles,omitzero"` // as they are now; there for every token that is good
	Issuer    string   `json:"iss,omitempty"`
	Audience  []string `json:"aud,omitempty"`
	ID        string   `json:"jti,omitempty"`
	IssuedAt  int64    `json:"iat,omitempty"`
	NotBefore int64    `json:"nbf,omitempty"`
	ExpiresAt int64    `json:"exp,omitempty"` // of a key there may be none

	Confirmation *confirmation `json:"cnf,omitempty"` // of a token that is bound to a key
	Actor        *actor        `json:"act,omitempty"` // of a token that was exchanged
}

// actor is the client that acts for the subject, and whom it got the subject's token from (RFC 8693, section 4.1).
type actor struct {
	Subject string `json:"sub"`
	Before  *actor `json:"act,omitempty"`
}

// confirmation is the key that a token is bound to (RFC 9449, section 6.2).
type confirmation struct {
	Thumbprint string `json:"jkt"`
}

// introspect answers POST /oauth2/introspect. Refresh tokens are told of only if the client asks for one: whoever takes
// any active token for an access token must not be handed one that lives for days.
func (p *provider) introspect(ctx context.Context, r request, raw string) (server.Answer, error) {
	if r.form.Get(formTokenHint) == hintRefreshToken {
		info, err := p.Identity.InspectRefresh(ctx, identity.RefreshToken(raw))
		switch {
		case err == nil:
			answer := introspection{
				Active: true, Subject: info.User.ID.String(), Client: token.LoginClient, Session: info.Session.String(), Roles: info.User.Roles, Issuer: p.Issuer.Name(),
				IssuedAt: info.IssuedAt.Unix(), ExpiresAt: info.ExpiresAt.Unix(),
			}
			if info.Grant != nil {
				answer.Client, answer.Scope = info.Grant.Client, strings.Join(info.Grant.Scopes, " ")
			}
			return server.OK(answer), nil
		case !errors.Is(err, identity.ErrInvalidRefreshToken):
			return server.Answer{}, err
		}
	}
	claims, who, err := p.Verify(ctx, raw)
	switch {
	case server.IsRefused(err):
		return server.OK(introspection{}), nil
	case err != nil:
		return server.Answer{}, err
	}
	answer := introspection{
		Active: true, TokenType: tokenType(claims.Confirmation), Subject: claims.Subject, Client: claims.Client, Session: claims.Session, Roles: []string{}, Issuer: p.Issuer.Name(),
		Scope: strings.Join(who.Scopes, " "), Audience: claims.Audience, ID: claims.ID,
		IssuedAt: unix(claims.IssuedAt), NotBefore: unix(claims.NotBefore), ExpiresAt: unix(claims.ExpiresAt),
	}
	if who.User != nil {
		answer.Roles = who.User.Roles
	}
	for _, subject := range slices.Backward(claims.Actors) {
		answer.Actor = &actor{subject, answer.Actor}
	}
	if claims.Confirmation != "" {
		answer.Confirmation = &confirmation{claims.Confirmation}
	}
	return server.OK(answer), nil
}

// unix is a time in seconds since 1970; 0 where there is none.
func unix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

// revoke answers POST /oauth2/revoke (RFC 7009): it ends the session of an access token or of a refresh token, and retires a key. What
// was issued to a client is for that client alone to revoke. A token that is not good needs no revoking.
func (p *provider) revoke(ctx context.Context, r request, raw string) (server.Answer, error) {
	m := r.Metadata()
	m.Actor = identity.ActorClient(r.client.ID)
	result, err := p.Identity.EndSessionOf(ctx, identity.RefreshToken(raw), identity.EndedRevoked, mayRevoke(r.client), m)
	if errors.Is(err, identity.ErrInvalidRefreshToken) {
		var claims token.Claims
		var who server.Caller
		switch claims, who, err = p.Verify(ctx, raw); {
		case err != nil:
		case who.Client != nil && who.Client.ID != r.client.ID, who.Client == nil && r.client.IsPublic():
			err = anothers
		case len(claims.Actors) > 0: // the session is that of whom the client acts for
			err = refuse(unsupportedTokenType, "a token that was exchanged ends by itself, with the one that it was exchanged for")
		case who.User != nil:
			result, err = p.Identity.EndSession(ctx, who.User.ID, who.Session, identity.EndedRevoked, m)
		default:
			result, err = p.retire(ctx, r, raw, claims, m)
		}
	}
	if err != nil && !server.IsRefused(err) && !errors.Is(err, identity.ErrNotFound) {
		return server.Answer{}, err
	}
	return server.With(http.StatusOK, nil).At(result.Position), nil
}

// anothers is that a token is not for a client to revoke.
var anothers = refuse(unauthorizedClient, "the token was issued to another client")

// mayRevoke says whether a client may end a session: a grant of its own or, if it has proved who it is, a login.
func mayRevoke(c client.Client) func(*identity.Grant) error {
	return func(g *identity.Grant) error {
		if g != nil && g.Client == c.ID.String() || g == nil && !c.IsPublic() {
			return nil
		}
		return anothers
	}
}

// retire retires a key of the client that has sent it. A token that a client got for itself ends by itself.
func (p *provider) retire(ctx context.Context, r request, raw string, claims token.Claims, m eventstore.Metadata) (eventstore.Result, error) {
	if key, _ := client.IsKey(raw); !key {
		return eventstore.Result{}, refuse(unsupportedTokenType, "a token of a client's own can't be revoked before it expires; take the scope from the client, or remove it")
	}
	id, err := uuid.Parse(claims.ID)
	if err != nil {
		return eventstore.Result{}, err
	}
	_, result, err := p.Clients.Retire(ctx, r.client.ID, id, m, nil)
	if errors.Is(err, client.ErrUnknown) { // somebody else did meanwhile
		err = nil
	}
	return result, err
}
