package oidc

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/uuid"
	"github.com/labstack/echo/v5"

	"usher.example/client"
	"usher.example/identity"
	"usher.example/server"
)

// Names of parameters of forms.
const (
	formAssertion     = "client_assertion"
	formAssertionType = "client_assertion_type"
	formClientID      = "client_id"
	formClientSecret  = "client_secret"
	formGrantType     = "grant_type"
	formResource      = "resource"
	formScope         = "scope"
	formToken         = "token"
	formTokenHint     = "token_type_hint"
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
		who, err := p.client(ctx, call.Request(), form)
		if err != nil {
			return server.Answer{}, err
		}
		return do(ctx, request{call, who, form})
	}
}

// client finds out which client a request is from: by the Authorization header, by a secret in the form, or by what it has signed,
// in one of these ways alone (RFC 6749, section 2.3).
func (p *provider) client(ctx context.Context, r *http.Request, form url.Values) (client.Client, error) {
	headers, id, secret := r.Header[echo.HeaderAuthorization], form.Get(formClientID), form.Get(formClientSecret)
	if form.Has(formAssertion) || form.Has(formAssertionType) {
		if len(headers) > 0 || secret != "" {
			return client.Client{}, server.Refuse(identity.CodeInvalidRequest, "the client says in two ways who it is")
		}
		return p.signedClient(ctx, r.URL.Path, form)
	}
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
	if id != "" && secret == "" && len(headers) == 0 {
		return p.publicClient(ctx, id)
	}
	if id == "" || secret == "" {
		return client.Client{}, server.Refuse(identity.CodeUnauthenticated, "a client has to say who it is: by HTTP Basic, or by client_id and client_secret in the form")
	}
	who, err := p.Clients.Authenticate(ctx, id, client.Secret(secret))
	if errors.Is(err, client.ErrUnknown) {
		err = server.Refuse(identity.CodeUnauthenticated, "there is no such client, or the secret is wrong")
	}
	return who, err
}

// publicClient is the client that says who it is and can't prove it. What it is given has to be tied to it by something else.
func (p *provider) publicClient(ctx context.Context, id string) (client.Client, error) {
	parsed, err := uuid.Parse(id)
	if err != nil || len(id) != 36 {
		return client.Client{}, server.Refuse(identity.CodeUnauthenticated, "a client has to say who it is")
	}
	who, err := p.Clients.Get(ctx, parsed)
	if errors.Is(err, client.ErrUnknown) || err == nil && !who.IsPublic() {
		err = server.Refuse(identity.CodeUnauthenticated, "there is no such client, or it has to prove who it is")
	}
	return who, err
}

// byConfidential is byClient for what a client has to prove for who it is.
func (p *provider) byConfidential(do func(context.Context, request) (server.Answer, error)) server.Handler {
	return p.byClient(func(ctx context.Context, r request) (server.Answer, error) {
		if r.client.IsPublic() {
			return server.Answer{}, server.Refuse(identity.CodeUnauthenticated, "a client has to prove who it is here")
		}
		return do(ctx, r)
	})
}

// signedClient is the client that has signed an assertion (RFC 7521, section 4.2), for the issuer, the token endpoint or the one that
// is asked.
func (p *provider) signedClient(ctx context.Context, path string, form url.Values) (client.Client, error) {
	if form.Get(formAssertionType) != client.AssertionType {
		return client.Client{}, server.Refuse(identity.CodeInvalidRequest, "the client_assertion_type is "+client.AssertionType)
	}
	base := strings.TrimSuffix(p.PublicURL, "/")
	who, err := p.Clients.AuthenticateSigned(ctx, form.Get(formAssertion), []string{p.Issuer.Name(), base + pathToken, base + path})
	if id := form.Get(formClientID); err == nil && id != "" && id != who.ID.String() {
		err = server.Refuse(identity.CodeUnauthenticated, "the client_id is another one than that of the client_assertion")
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
