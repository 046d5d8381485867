package oidc

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/labstack/echo/v5"

	"usher.example/identity"
	"usher.example/server"
)

// problem is an error that OAuth has a name for, beside those that a status tells (RFC 6749, section 5.2; RFC 7009, section 2.2.1; RFC 8707, section 2; RFC 9449, section 5).
type problem struct{ code, detail string }

// The names.
const (
	invalidRequest       = "invalid_request"
	invalidGrant         = "invalid_grant"
	accessDenied         = "access_denied"
	unauthorizedClient   = "unauthorized_client"
	unsupportedGrantType = "unsupported_grant_type"
	unsupportedTokenType = "unsupported_token_type"
	invalidScope         = "invalid_scope"
	invalidTarget        = "invalid_target"
	invalidProof         = "invalid_dpop_proof"
	useNonce             = "use_dpop_nonce"
)

func refuse(code, format string, args ...any) error {
	return &problem{code, fmt.Sprintf(format, args...)}
}

func (p *problem) Error() string { return p.code + ": " + p.detail }

// As makes it the *identity.Error that the server knows.
func (p *problem) As(target any) bool {
	to, ok := target.(**identity.Error)
	if ok {
		*to = &identity.Error{Code: identity.CodeInvalidRequest, Detail: p.detail}
	}
	return ok
}

// answer is the form of errors that OAuth has.
type answer struct {
	Error       string `json:"error"`
	Description string `json:"error_description,omitempty"`
}

// codeOf is the name that OAuth has for a failure.
func codeOf(f server.Failure) string {
	var named *problem
	switch {
	case errors.As(f.Err, &named):
		return named.code
	case f.Status == http.StatusUnauthorized:
		return "invalid_client"
	case f.Status == http.StatusServiceUnavailable, f.Status == http.StatusTooManyRequests:
		return "temporarily_unavailable"
	case f.Status >= http.StatusInternalServerError:
		return "server_error"
	}
	return "invalid_request"
}

// tell answers with an error in the form of OAuth, and asks a client to say who it is where that is needed.
func tell(c *echo.Context, f server.Failure) error {
	if f.Status == http.StatusUnauthorized {
		c.Response().Header().Set(echo.HeaderWWWAuthenticate, basicChallenge)
	}
	return server.Blob(c, f.Status, echo.MIMEApplicationJSON, answer{codeOf(f), f.Detail})
}

// basicChallenge asks a client to say who it is (RFC 7617).
const basicChallenge = `Basic realm="usher", charset="UTF-8"`
