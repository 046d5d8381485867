package server

import (
	"context"
	"errors"
	"strings"

	"github.com/google/uuid"
	"github.com/labstack/echo/v5"

	"usher.example/identity"
	"usher.example/token"
)

// Caller is who the request's access token was issued to.
type Caller struct {
	*identity.User
	Session uuid.UUID
}

// callerKey is where Admin keeps who it let pass.
const callerKey = "caller"

// Caller reads and checks the request's access token. The user's own state decides with it: who was locked or disabled
// since it was issued, or whose session has ended, is refused.
func (s *Server) Caller(c *echo.Context) (Caller, error) {
	if who, known := c.Get(callerKey).(Caller); known {
		return who, nil
	}
	raw, err := bearer(c.Request().Header[echo.HeaderAuthorization])
	if err != nil {
		return Caller{}, err
	}
	_, who, err := s.Verify(c.Request().Context(), raw)
	return who, err
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

// Admin lets administrators pass. The role is that of the user's own state, so that it counts from the moment it is
// granted or revoked and not from the next token.
func (s *Server) Admin(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c *echo.Context) error {
		who, err := s.Caller(c)
		if err == nil {
			err = needAdmin(who)
		}
		if err != nil {
			return err
		}
		c.Set(callerKey, who)
		return next(c)
	}
}

func needAdmin(who Caller) error {
	if !who.HasRole(identity.RoleAdmin) {
		return Refuse(identity.CodeForbidden, "the role %s is needed", identity.RoleAdmin)
	}
	return nil
}

// Again looks once more, after a request has waited, whether whoever sent it may have the answer: a lock, a logout or the end
// of the access token counts for requests that are open too. sessionUser is SessionUser, or ReadSessionUser where what
// the answer tells of may have come after the lock.
func (s *Server) Again(c *echo.Context, sessionUser func(ctx context.Context, user, session uuid.UUID) (*identity.User, error)) error {
	raw, err := bearer(c.Request().Header[echo.HeaderAuthorization])
	if err != nil {
		return err
	}
	_, who, err := s.verifyBy(c.Request().Context(), raw, sessionUser)
	if _, byAdmin := c.Get(callerKey).(Caller); err == nil && byAdmin {
		err = needAdmin(who)
	}
	return err
}
