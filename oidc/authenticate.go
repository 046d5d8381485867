package oidc

import (
	"context"
	"encoding/base64"
	"errors"
	"net/url"
	"strings"

	"github.com/labstack/echo/v5"

	"usher.example/client"
	"usher.example/identity"
	"usher.example/server"
)

// Names of parameters of forms.
const (
	formClientID     = "client_id"
	formClientSecret = "client_secret"
	formGrantType    = "grant_type"
	formResource     = "resource"
	formScope        = "scope"
	formToken        = "token"
	formTokenHint    = "token_type_hint"
)

// request is what a client asks for.
type request struct {
	*server.Call
	client client.Client
	form   url.Values
}

// byClient makes a call of a client, which is authenticated, with the parameters of a form.
func (p *provider) byClient(do func(context.Context, request) (server.Answer, error)) server.Handler {
	return func(call *server.Call) (server.Answer, error) {
		form, err := call.Form()
		if err != nil {
			return server.Answer{}, err
		}
		ctx := call.Request().Context()
		who, err := p.client(ctx, call.Request().Header[echo.HeaderAuthorization], form)
		if err != nil {
			return server.Answer{}, err
		}
		return do(ctx, request{call, who, form})
	}
}

// client finds out which client a request is from: by the Authorization header or by the form, not by both (RFC 6749,
// section 2.3).
func (p *provider) client(ctx context.Context, headers []string, form url.Values) (client.Client, error) {
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
	who, err := p.Clients.Authenticate(ctx, id, client.Secret(secret))
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
