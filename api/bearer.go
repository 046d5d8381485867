package api

import (
	"context"
	"errors"
	"strings"

	"github.com/google/uuid"
	"github.com/labstack/echo/v5"

	"usher.example/identity"
	"usher.example/token"
)

// caller is who the request's access token was issued to.
type caller struct {
	*identity.User
	session uuid.UUID
}

// callerKey is where admin keeps who it let pass.
const callerKey = "caller"

// caller reads and checks the request's access token. The user's own state decides with it: who was locked or disabled
// since it was issued, or whose session has ended, is refused.
func (s *Server) caller(c *echo.Context) (caller, error) {
	if who, known := c.Get(callerKey).(caller); known {
		return who, nil
	}
	raw, err := bearer(c.Request().Header[echo.HeaderAuthorization])
	if err != nil {
		return caller{}, err
	}
	_, who, err := s.verify(c.Request().Context(), raw)
	return who, err
}

// verify checks an access token: its claims, and whether its session goes on.
func (s *Server) verify(ctx context.Context, raw string) (token.Claims, caller, error) {
	claims, err := s.Verifier.Verify(raw)
	if err != nil {
		return token.Claims{}, caller{}, err
	}
	user, err := uuid.Parse(claims.Subject)
	if err != nil {
		return token.Claims{}, caller{}, token.ErrMalformed
	}
	session, err := uuid.Parse(claims.Session)
	if err != nil {
		return token.Claims{}, caller{}, token.ErrMalformed
	}
	u, err := s.Identity.SessionUser(ctx, user, session)
	if errors.Is(err, identity.ErrSessionEnded) {
		return token.Claims{}, caller{}, token.ErrRevoked
	}
	return claims, caller{u, session}, err
}

// isRefused says whether an error of verify is about the token, and not about us.
func isRefused(err error) bool { return errors.Is(err, token.ErrInvalid) }

// bearerType is the type of access tokens (RFC 6750).
const bearerType = "Bearer"

// bearer reads the Authorization header (RFC 6750, section 2.1).
func bearer(headers []string) (string, error) {
	if len(headers) == 0 {
		return "", refuse(identity.CodeUnauthenticated, "the request has no access token")
	}
	scheme, raw, _ := strings.Cut(headers[0], " ")
	if len(headers) > 1 || raw == "" || !strings.EqualFold(scheme, bearerType) {
		return "", token.ErrMalformed
	}
	return raw, nil
}

// challenge is the WWW-Authenticate header for an error (RFC 6750, section 3).
func challenge(err error) string {
	if errors.As(err, new(oauthFailure)) {
		return basicChallenge
	}
	if isRefused(err) {
		return `Bearer realm="usher", error="invalid_token"`
	}
	return `Bearer realm="usher"`
}

// admin lets administrators pass. The role is that of the user's own state, so that it counts from the moment it is
// granted or revoked and not from the next token.
func (s *Server) admin(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c *echo.Context) error {
		who, err := s.caller(c)
		if err != nil {
			return err
		}
		if !who.HasRole(identity.RoleAdmin) {
			return refuse(identity.CodeForbidden, "the role %s is needed", identity.RoleAdmin)
		}
		c.Set(callerKey, who)
		return next(c)
	}
}
