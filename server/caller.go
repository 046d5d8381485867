package server

import (
	"context"
	"errors"
	"strings"

	"github.com/google/uuid"

	"usher.example/identity"
	"usher.example/token"
)

// Caller is who asks: the user whom an access token was issued to.
type Caller struct {
	User    *identity.User // nil while nobody is known
	Session uuid.UUID      // of the token
}

// Actor is the caller as events name who caused them.
func (who Caller) Actor() string {
	if who.User == nil {
		return identity.ActorAnonymous
	}
	return identity.ActorUser(who.User.ID)
}

// name is what a caller's idempotency keys and changes go by; "" while nobody is known.
func (who Caller) name() string {
	if who.User == nil {
		return ""
	}
	return who.User.ID.String()
}

// quota is how much a caller may change.
func (who Caller) quota() *Quota {
	if who.User.HasRole(identity.RoleAdmin) {
		return &QuotaAdmin
	}
	return &QuotaChange
}

// Verify checks an access token: its claims, and whether its session goes on.
func (s *Server) Verify(ctx context.Context, raw string) (token.Claims, Caller, error) {
	return s.verifyBy(ctx, raw, s.Identity.SessionUser)
}

func (s *Server) verifyBy(ctx context.Context, raw string, sessionUser func(ctx context.Context, user, session uuid.UUID) (*identity.User, error)) (token.Claims, Caller, error) {
	claims, err := s.Verifier.Verify(raw)
	if err != nil {
		return token.Claims{}, Caller{}, err
	}
	user, err := uuid.Parse(claims.Subject)
	if err != nil {
		return token.Claims{}, Caller{}, token.ErrMalformed
	}
	session, err := uuid.Parse(claims.Session)
	if err != nil {
		return token.Claims{}, Caller{}, token.ErrMalformed
	}
	u, err := sessionUser(ctx, user, session)
	if errors.Is(err, identity.ErrSessionEnded) {
		return token.Claims{}, Caller{}, token.ErrRevoked
	}
	if id, malformed := uuid.Parse(claims.ID); err == nil && malformed == nil {
		s.Identity.Used(session, id)
	}
	return claims, Caller{u, session}, err
}

// IsRefused says whether an error of Verify is about the token, and not about us.
func IsRefused(err error) bool { return errors.Is(err, token.ErrInvalid) }

// BearerType is the type of access tokens (RFC 6750).
const BearerType = "Bearer"

// bearer reads the Authorization header (RFC 6750, section 2.1).
func bearer(headers []string) (string, error) {
	if len(headers) == 0 {
		return "", Refuse(identity.CodeUnauthenticated, "the request has no access token")
	}
	raw, ok := Credentials(headers, BearerType)
	if !ok || raw == "" {
		return "", token.ErrMalformed
	}
	return raw, nil
}

// Credentials is what an Authorization header has behind a scheme and one or more spaces (RFC 9110, section 11.4).
func Credentials(headers []string, wanted string) (credentials string, ok bool) {
	scheme, rest, _ := strings.Cut(headers[0], " ")
	return strings.TrimLeft(rest, " "), len(headers) == 1 && strings.EqualFold(scheme, wanted)
}
