package api

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/labstack/echo/v5"

	"usher.example/client"
	"usher.example/identity"
	"usher.example/server"
	"usher.example/token"
)

// oauthError is the form of errors that OAuth has (RFC 6749, section 5.2).
type oauthError struct {
	Error       string `json:"error"`
	Description string `json:"error_description,omitempty"`
}

// oauthCode is the name that OAuth has for what an HTTP status says.
func oauthCode(status int) string {
	switch {
	case status == http.StatusUnauthorized:
		return "invalid_client"
	case status == http.StatusServiceUnavailable:
		return "temporarily_unavailable"
	case status >= http.StatusInternalServerError:
		return "server_error"
	}
	return "invalid_request"
}

// tellOAuth answers with an error in the form of OAuth, and asks a client to say who it is where that is needed.
func tellOAuth(c *echo.Context, f server.Failure) error {
	if f.Status == http.StatusUnauthorized {
		c.Response().Header().Set(echo.HeaderWWWAuthenticate, basicChallenge)
	}
	return server.Blob(c, f.Status, echo.MIMEApplicationJSON, oauthError{oauthCode(f.Status), f.Detail})
}

// basicChallenge asks a client to say who it is (RFC 7617).
const basicChallenge = `Basic realm="usher", charset="UTF-8"`

// Names of parameters of forms.
const (
	formClientID     = "client_id"
	formClientSecret = "client_secret"
	formToken        = "token"
	formTokenHint    = "token_type_hint"

	hintRefreshToken = "refresh_token"
)

// onToken makes a call of a client (see client.Client) on a token, which both come in a form.
func (a *api) onToken(do func(ctx context.Context, call *server.Call, who client.Client, token string, form url.Values) (server.Answer, error)) server.Handler {
	return func(call *server.Call) (server.Answer, error) {
		form, err := call.Form()
		if err != nil {
			return server.Answer{}, err
		}
		ctx := call.Request().Context()
		who, err := a.client(ctx, call.Request().Header[echo.HeaderAuthorization], form)
		if err != nil {
			return server.Answer{}, err
		}
		token := form.Get(formToken)
		if token == "" {
			return server.Answer{}, server.Refuse(identity.CodeInvalidRequest, "the parameter token is needed")
		}
		return do(ctx, call, who, token, form)
	}
}

// client finds out which client a request is from: by the Authorization header or by the form, not by both (RFC 6749,
// section 2.3).
func (a *api) client(ctx context.Context, headers []string, form url.Values) (client.Client, error) {
	id, secret := form.Get(formClientID), form.Get(formClientSecret)
	if len(headers) > 0 {
		named, proof, ok := basicCredentials(headers)
		switch {
		case !ok:
			return client.Client{}, server.Refuse(identity.CodeUnauthenticated, "the Authorization header has no Basic credentials")
		case secret != "" || id != "" && id != named:
			return client.Client{}, server.Refuse(identity.CodeInvalidRequest, "the client says in two ways who it is")
		}
		id, secret = named, proof
	}
	if id == "" || secret == "" {
		return client.Client{}, server.Refuse(identity.CodeUnauthenticated, "a client has to say who it is")
	}
	who, err := a.Clients.Authenticate(ctx, id, client.Secret(secret))
	if errors.Is(err, client.ErrUnknown) {
		err = server.Refuse(identity.CodeUnauthenticated, "there is no such client, or the secret is wrong")
	}
	return who, err
}

// basicCredentials reads an Authorization header of the scheme Basic (RFC 7617). Both parts were encoded as those of a form
// are (RFC 6749, section 2.3.1).
func basicCredentials(headers []string) (id, secret string, ok bool) {
	encoded, ok := server.Credentials(headers, "Basic")
	if !ok {
		return "", "", false
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return "", "", false
	}
	id, secret, ok = strings.Cut(string(raw), ":")
	if !ok {
		return "", "", false
	}
	var errs [2]error
	id, errs[0] = url.QueryUnescape(id)
	secret, errs[1] = url.QueryUnescape(secret)
	if errs != [2]error{} || !server.IsText(id) || !server.IsText(secret) {
		return "", "", false
	}
	return id, secret, true
}

// introspection says what a token stands for (RFC 7662, section 2.2). Of one that is not good there is only that.
type introspection struct {
	Active    bool     `json:"active"`
	TokenType string   `json:"token_type,omitempty"` // of access tokens
	Subject   string   `json:"sub,omitempty"`
	Client    string   `json:"client_id,omitempty"`
	Session   string   `json:"sid,omitempty"`
	Roles     []string `json:"roles,omitzero"` // as they are now; there for every token that is good
	Issuer    string   `json:"iss,omitempty"`
	Audience  []string `json:"aud,omitempty"`
	ID        string   `json:"jti,omitempty"`
	IssuedAt  int64    `json:"iat,omitempty"`
	NotBefore int64    `json:"nbf,omitempty"`
	ExpiresAt int64    `json:"exp,omitempty"`
}

// introspect answers POST /oauth2/introspect. Refresh tokens are told of only if the client asks for one: whoever takes
// any active token for an access token must not be handed one that lives for days.
func (a *api) introspect(ctx context.Context, _ *server.Call, _ client.Client, raw string, form url.Values) (server.Answer, error) {
	if form.Get(formTokenHint) == hintRefreshToken {
		info, err := a.Identity.InspectRefresh(ctx, identity.RefreshToken(raw))
		switch {
		case err == nil:
			return server.OK(introspection{
				Active: true, Subject: info.User.ID.String(), Client: token.LoginClient, Session: info.Session.String(), Roles: info.User.Roles, Issuer: a.Issuer.Name(),
				IssuedAt: info.IssuedAt.Unix(), ExpiresAt: info.ExpiresAt.Unix(),
			}), nil
		case !errors.Is(err, identity.ErrInvalidRefreshToken):
			return server.Answer{}, err
		}
	}
	claims, who, err := a.Verify(ctx, raw)
	switch {
	case server.IsRefused(err):
		return server.OK(introspection{}), nil
	case err != nil:
		return server.Answer{}, err
	}
	return server.OK(introspection{
		Active: true, TokenType: server.BearerType, Subject: claims.Subject, Client: claims.Client, Session: claims.Session, Roles: who.User.Roles, Issuer: claims.Issuer,
		Audience: claims.Audience, ID: claims.ID,
		IssuedAt: claims.IssuedAt.Unix(), NotBefore: claims.NotBefore.Unix(), ExpiresAt: claims.ExpiresAt.Unix(),
	}), nil
}

// revoke answers POST /oauth2/revoke (RFC 7009): it ends the session of an access token or of a refresh token. A token that
// is not good needs no revoking.
func (a *api) revoke(ctx context.Context, call *server.Call, who client.Client, raw string, _ url.Values) (server.Answer, error) {
	m := call.Metadata()
	m.Actor = identity.ActorClient(who.ID)
	result, err := a.Identity.EndSessionOf(ctx, identity.RefreshToken(raw), identity.EndedRevoked, m)
	if errors.Is(err, identity.ErrInvalidRefreshToken) {
		var user server.Caller
		if _, user, err = a.Verify(ctx, raw); err == nil {
			result, err = a.Identity.EndSession(ctx, user.User.ID, user.Session, identity.EndedRevoked, m)
		}
	}
	if err != nil && !server.IsRefused(err) && !errors.Is(err, identity.ErrNotFound) {
		return server.Answer{}, err
	}
	return server.With(http.StatusOK, nil).At(result.Position), nil
}
