package server

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/google/uuid"

	"usher.example/client"
	"usher.example/identity"
	"usher.example/token"
)

// Caller is who asks: a user, by whatever client, or a client for itself.
type Caller struct {
	User    *identity.User // nil while nobody is known, and for a client
	Session uuid.UUID      // of a user's token
	Client  *client.Client // that the token was issued to; nil where that was usher's own login
	Scopes  []string       // what the bearer may do at most
}

// known says whether anybody is.
func (who Caller) known() bool { return who.User != nil || who.Client != nil }

// Actor is the caller as events name who caused them.
func (who Caller) Actor() string {
	switch {
	case !who.known():
		return identity.ActorAnonymous
	case who.User == nil:
		return identity.ActorClient(who.Client.ID)
	case who.Client == nil:
		return identity.ActorUser(who.User.ID)
	}
	return identity.ActorDelegated(who.User.ID, who.Client.ID)
}

// name is what a caller's idempotency keys and changes go by; "" while nobody is known.
func (who Caller) name() string {
	switch {
	case who.User != nil:
		return who.User.ID.String()
	case who.Client != nil:
		return identity.ActorClient(who.Client.ID)
	}
	return ""
}

// quota is how much a caller may change.
func (who Caller) quota() *Quota {
	if who.User == nil || who.User.HasRole(identity.RoleAdmin) {
		return &QuotaAdmin
	}
	return &QuotaChange
}

// May says whether the caller may do what a scope stands for: only what the token and the roles of its user both allow. What a client
// does for itself its scopes allow alone.
func (who Caller) May(scope string) bool {
	return slices.Contains(who.Scopes, scope) && (who.User == nil || client.Allow(who.User.Roles, scope))
}

// Need fails unless the caller may do what each of some scopes stands for: for want of the scope, or of a role.
func (who Caller) Need(scopes ...string) error {
	for _, scope := range scopes {
		switch {
		case !slices.Contains(who.Scopes, scope):
			return &scopeError{scope}
		case !who.May(scope):
			return Refuse(identity.CodeForbidden, "the role %s is needed", strings.Join(client.RolesFor(scope), " or "))
		}
	}
	return nil
}

// Verify checks a bearer token, an access token or a key of a client: its claims, whether its session and its client go on, and
// whether the user lets the client do anything. Of a key there are no more claims than the subject, the client and the scopes.
func (s *Server) Verify(ctx context.Context, raw string) (token.Claims, Caller, error) {
	return s.verifyBy(ctx, raw, s.Identity.SessionUser)
}

func (s *Server) verifyBy(ctx context.Context, raw string, sessionUser sessionUser) (token.Claims, Caller, error) {
	if key, typed := client.IsKey(raw); key {
		return s.verifyKey(ctx, raw, typed)
	}
	claims, err := s.Verifier.Verify(raw)
	if err != nil {
		return token.Claims{}, Caller{}, err
	}
	who := Caller{Scopes: client.Scopes} // of a login, whatever the scopes were when it was
	if claims.Client != "" && claims.Client != token.LoginClient {
		if who.Client, err = s.clientOf(ctx, claims); err != nil {
			return token.Claims{}, Caller{}, err
		}
		who.Scopes = who.Client.Allowed(claims.Scopes)
		if claims.Subject == claims.Client && claims.Session == "" {
			return claims, who, nil
		}
	}
	user, err := uuid.Parse(claims.Subject)
	if err != nil {
		return token.Claims{}, Caller{}, token.ErrMalformed
	}
	if who.Session, err = uuid.Parse(claims.Session); err != nil {
		return token.Claims{}, Caller{}, token.ErrMalformed
	}
	who.User, err = sessionUser(ctx, user, who.Session)
	if errors.Is(err, identity.ErrSessionEnded) || err == nil && !who.consented(claims.Client) {
		return token.Claims{}, Caller{}, token.ErrRevoked
	}
	if id, malformed := uuid.Parse(claims.ID); err == nil && malformed == nil {
		s.Identity.Used(who.Session, id)
	}
	return claims, who, err
}

// consented says whether the user lets the client do anything: those of others need to be let, until that is withdrawn.
func (who Caller) consented(client string) bool {
	return who.Client == nil || who.Client.FirstParty || who.User.Allows(client, who.Session)
}

// sessionUser finds the user whose session goes on: identity.Service.SessionUser, or ReadSessionUser.
type sessionUser = func(ctx context.Context, user, session uuid.UUID) (*identity.User, error)

// clientOf is the client that a token was issued to, which ends with it.
func (s *Server) clientOf(ctx context.Context, claims token.Claims) (*client.Client, error) {
	id, err := uuid.Parse(claims.Client)
	if err != nil {
		return nil, token.ErrMalformed
	}
	c, err := s.Clients.Get(ctx, id)
	if errors.Is(err, client.ErrUnknown) {
		return nil, token.ErrRevoked
	}
	return &c, err
}

func (s *Server) verifyKey(ctx context.Context, raw string, typed bool) (token.Claims, Caller, error) {
	if !typed {
		return token.Claims{}, Caller{}, &identity.Error{
			Code: identity.CodeUnauthenticated, Err: token.ErrMalformed, Detail: "the key was not copied whole, or with other characters: its checksum is wrong",
		}
	}
	c, key, err := s.Clients.ByKey(ctx, client.Secret(raw))
	if errors.Is(err, client.ErrUnknown) {
		return token.Claims{}, Caller{}, token.ErrRevoked
	}
	if err != nil {
		return token.Claims{}, Caller{}, err
	}
	claims := token.Claims{Subject: c.ID.String(), Client: c.ID.String(), ID: key.ID.String(), Scopes: key.Scopes, IssuedAt: key.CreatedAt}
	if key.ExpiresAt != nil {
		claims.ExpiresAt = *key.ExpiresAt
	}
	return claims, Caller{Client: &c, Scopes: key.Scopes}, nil
}

// IsRefused says whether an error of Verify is about the token, and not about us.
func IsRefused(err error) bool { return errors.Is(err, token.ErrInvalid) }

// BearerType is the type of access tokens (RFC 6750).
const BearerType = "Bearer"

// accessToken reads the Authorization header (RFC 6750, section 2.1, and RFC 9449, section 7.1).
func accessToken(headers []string) (scheme, raw string, err error) {
	if len(headers) == 0 {
		return "", "", Refuse(identity.CodeUnauthenticated, "the request has no access token")
	}
	for _, scheme := range []string{BearerType, DPoPType} {
		if raw, ok := Credentials(headers, scheme); ok && raw != "" {
			return scheme, raw, nil
		}
	}
	return "", "", token.ErrMalformed
}

// Credentials is what an Authorization header has behind a scheme and one or more spaces (RFC 9110, section 11.4).
func Credentials(headers []string, wanted string) (credentials string, ok bool) {
	scheme, rest, _ := strings.Cut(headers[0], " ")
	return strings.TrimLeft(rest, " "), len(headers) == 1 && strings.EqualFold(scheme, wanted)
}
