package api

import (
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/labstack/echo/v5"

	"usher.example/identity"
	"usher.example/token"
)

// oauthFailure is an error that is answered in the form of OAuth (RFC 6749, section 5.2) and not as a problem.
type oauthFailure struct{ error }

func (e oauthFailure) Unwrap() error { return e.error }

// oauthError is that form.
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

// onToken makes a call of a client (see identity.Client) on a token, which both come in a form.
func (s *Server) onToken(do func(c *echo.Context, who identity.Client, token string, form url.Values) error) echo.HandlerFunc {
	return func(c *echo.Context) error {
		form, err := decodeForm(c)
		if err != nil {
			return oauthFailure{err}
		}
		who, err := s.client(c, form)
		if err != nil {
			return oauthFailure{err}
		}
		token := form.Get(formToken)
		if token == "" {
			return oauthFailure{refuse(identity.CodeInvalidRequest, "the parameter token is needed")}
		}
		if err := do(c, who, token, form); err != nil {
			return oauthFailure{err}
		}
		return nil
	}
}

// client finds out which client a request is from: by the Authorization header or by the form, not by both (RFC 6749,
// section 2.3).
func (s *Server) client(c *echo.Context, form url.Values) (identity.Client, error) {
	id, secret := form.Get(formClientID), form.Get(formClientSecret)
	if headers := c.Request().Header[echo.HeaderAuthorization]; len(headers) > 0 {
		named, proof, ok := basicCredentials(headers)
		switch {
		case !ok:
			return identity.Client{}, refuse(identity.CodeUnauthenticated, "the Authorization header has no Basic credentials")
		case secret != "" || id != "" && id != named:
			return identity.Client{}, refuse(identity.CodeInvalidRequest, "the client says in two ways who it is")
		}
		id, secret = named, proof
	}
	if id == "" || secret == "" {
		return identity.Client{}, refuse(identity.CodeUnauthenticated, "a client has to say who it is")
	}
	who, err := s.Identity.AuthenticateClient(c.Request().Context(), id, identity.ClientSecret(secret))
	if errors.Is(err, identity.ErrNoClient) {
		err = refuse(identity.CodeUnauthenticated, "there is no such client, or the secret is wrong")
	}
	return who, err
}

// basicCredentials reads an Authorization header of the scheme Basic (RFC 7617). Both parts were encoded as those of a form
// are (RFC 6749, section 2.3.1).
func basicCredentials(headers []string) (id, secret string, ok bool) {
	encoded, ok := credentialsOf(headers, "Basic")
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
	if errs != [2]error{} || !isText(id) || !isText(secret) {
		return "", "", false
	}
	return id, secret, true
}

// decodeForm reads a body of form parameters, each at most once, in valid Unicode without NUL. One without a value is as
// if it were not there, and one that is unknown is left alone: RFC 6749, section 3.2, asks for that.
func decodeForm(c *echo.Context) (url.Values, error) {
	body, err := readBody(c)
	if err != nil || len(body) == 0 {
		return url.Values{}, err
	}
	if !isMedia(c.Request().Header.Values(echo.HeaderContentType), echo.MIMEApplicationForm) {
		return nil, refuse(codeUnsupportedType, "the Content-Type has to be application/x-www-form-urlencoded")
	}
	return parseForm(string(body))
}

func parseForm(body string) (url.Values, error) {
	form, err := url.ParseQuery(body)
	if err != nil {
		return nil, refuse(identity.CodeInvalidRequest, "the body is not a form")
	}
	for name, values := range form {
		switch {
		case len(values) > 1:
			return nil, refuse(identity.CodeInvalidRequest, "a parameter is there twice")
		case !isText(name) || !isText(values[0]):
			return nil, refuse(identity.CodeInvalidRequest, "the body is not valid UTF-8, or has a NUL character")
		}
	}
	return form, nil
}

func isText(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

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
func (s *Server) introspect(c *echo.Context, _ identity.Client, raw string, form url.Values) error {
	ctx := c.Request().Context()
	if form.Get(formTokenHint) == hintRefreshToken {
		info, err := s.Identity.InspectRefresh(ctx, identity.RefreshToken(raw))
		switch {
		case err == nil:
			return c.JSON(http.StatusOK, introspection{
				Active: true, Subject: info.User.ID.String(), Client: token.LoginClient, Session: info.Session.String(), Roles: info.User.Roles, Issuer: s.Issuer.Name(),
				IssuedAt: info.IssuedAt.Unix(), ExpiresAt: info.ExpiresAt.Unix(),
			})
		case !errors.Is(err, identity.ErrInvalidRefreshToken):
			return err
		}
	}
	claims, who, err := s.verify(ctx, raw)
	switch {
	case isRefused(err):
		return c.JSON(http.StatusOK, introspection{})
	case err != nil:
		return err
	}
	return c.JSON(http.StatusOK, introspection{
		Active: true, TokenType: bearerType, Subject: claims.Subject, Client: claims.Client, Session: claims.Session, Roles: who.Roles, Issuer: claims.Issuer,
		Audience: claims.Audience, ID: claims.ID,
		IssuedAt: claims.IssuedAt.Unix(), NotBefore: claims.NotBefore.Unix(), ExpiresAt: claims.ExpiresAt.Unix(),
	})
}

// revoke answers POST /oauth2/revoke (RFC 7009): it ends the session of an access token or of a refresh token. A token that
// is not good needs no revoking.
func (s *Server) revoke(c *echo.Context, who identity.Client, raw string, _ url.Values) error {
	ctx := c.Request().Context()
	m, err := metadata(c, identity.ActorClient(who.ID))
	if err != nil {
		return err
	}
	result, err := s.Identity.EndSessionOf(ctx, identity.RefreshToken(raw), identity.EndedRevoked, m)
	if errors.Is(err, identity.ErrInvalidRefreshToken) {
		var user caller
		if _, user, err = s.verify(ctx, raw); err == nil {
			result, err = s.Identity.EndSession(ctx, user.ID, user.session, identity.EndedRevoked, m)
		}
	}
	if err != nil && !isRefused(err) && !errors.Is(err, identity.ErrNotFound) {
		return err
	}
	if result.Position > 0 {
		setPosition(c, result.Position)
	}
	return c.NoContent(http.StatusOK)
}
