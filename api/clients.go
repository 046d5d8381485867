package api

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"github.com/google/uuid"

	"usher.example/client"
	"usher.example/identity"
	"usher.example/server"
)

// ofClient is a path that names a client.
type ofClient struct {
	ID uuid.UUID `path:"id" missing:"there is no such client"`
}

// clientView is a client as an answer shows it: with a secret or a key only where that is new.
type clientView struct {
	client.Client
	Secret string `json:"client_secret,omitempty"`
	Key    string `json:"key,omitempty"`
}

// clientBody is what is set of a client. What is left out stays as it is.
type clientBody struct {
	Name                   *string          `json:"name"`
	RedirectURIs           *[]string        `json:"redirect_uris"`
	PostLogoutRedirectURIs *[]string        `json:"post_logout_redirect_uris"`
	AllowedOrigins         *[]string        `json:"allowed_origins"`
	Grants                 *[]string        `json:"grants"`
	Scopes                 *[]string        `json:"scopes"`
	FirstParty             *bool            `json:"first_party"`
	Authentication         *string          `json:"authentication"`
	JWKS                   *json.RawMessage `json:"jwks"`
	JWKSURI                *string          `json:"jwks_uri"`
	AccessTokenSeconds     *int             `json:"access_token_seconds"`
	RefreshTokenSeconds    *int             `json:"refresh_token_seconds"`
	NoPKCE                 *bool            `json:"no_pkce"`
	IDTokenAlgorithm       *string          `json:"id_token_signed_response_alg"`
}

func (b clientBody) change(s *identity.ClientSettings) {
	set(&s.Name, b.Name)
	set(&s.RedirectURIs, b.RedirectURIs)
	set(&s.PostLogoutRedirectURIs, b.PostLogoutRedirectURIs)
	set(&s.AllowedOrigins, b.AllowedOrigins)
	set(&s.Grants, b.Grants)
	set(&s.Scopes, b.Scopes)
	set(&s.FirstParty, b.FirstParty)
	set(&s.Authentication, b.Authentication)
	set(&s.JWKS, b.JWKS)
	set(&s.JWKSURI, b.JWKSURI)
	set(&s.AccessTokenSeconds, b.AccessTokenSeconds)
	set(&s.RefreshTokenSeconds, b.RefreshTokenSeconds)
	set(&s.NoPKCE, b.NoPKCE)
	set(&s.IDTokenAlgorithm, b.IDTokenAlgorithm)
}

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

// mayGive lets nobody make more of a client than they are: whoever gives a client a scope, a secret or a key has its scopes, and only
// who may do everything to users makes a client a first-party one.
func mayGive(who server.Caller) client.Permit {
	return func(c client.Client) error {
		needed := slices.DeleteFunc(slices.Clone(c.Scopes), func(s string) bool { return !slices.Contains(client.ServiceScopes, s) })
		if len(c.RedirectURIs) > 0 || c.May(client.GrantDevice) { // it is told who its users are
			needed = append(needed, client.ScopeUsersRead)
		}
		if c.FirstParty {
			needed = append(needed, client.ScopeUsersWrite)
		}
		for _, scope := range needed {
			if !who.May(scope) {
				return server.Refuse(identity.CodeForbidden, "the client has more rights than you: the scope %s is needed", scope)
			}
		}
		return nil
	}
}

// listClients answers GET /v1/clients, in the order in which they were registered.
func (a *api) listClients(ctx context.Context, _ *server.Call, in paging) (server.Answer, error) {
	const list = "clients"
	after, err := parseIDCursor(a.CursorKey, list, in.Cursor)
	if err != nil {
		return server.Answer{}, err
	}
	size := in.Limit.size()
	clients, err := a.Clients.List(ctx, after, size+1)
	if err != nil {
		return server.Answer{}, err
	}
	return server.OK(pageOf(clients, size, func(last client.Client) string { return idCursor(a.CursorKey, list, last.ID) })), nil
}

// createClient answers POST /v1/clients.
func (a *api) createClient(ctx context.Context, call *server.Call, in clientBody) (server.Answer, error) {
	var s identity.ClientSettings
	in.change(&s)
	if err := mayGive(call.Caller)(client.Client{ClientSettings: s}); err != nil {
		return server.Answer{}, err
	}
	c, secret, result, err := a.Clients.Add(ctx, s, call.CommandID("create client"), call.Metadata())
	return server.Created("/v1/clients/"+c.ID.String(), clientView{Client: c, Secret: string(secret)}).At(result.Position), err
}

// showClient answers GET /v1/clients/{id}.
func (a *api) showClient(ctx context.Context, _ *server.Call, in ofClient) (server.Answer, error) {
	c, err := a.Clients.Read(ctx, in.ID)
	return server.OK(c), err
}

// changeClient answers PATCH /v1/clients/{id}.
func (a *api) changeClient(ctx context.Context, call *server.Call, in struct {
	ofClient
	clientBody
}) (server.Answer, error) {
	c, result, err := a.Clients.Change(ctx, in.ID, call.Metadata(), mayGive(call.Caller), in.change)
	return server.OK(c).At(result.Position), err
}

// deleteClient answers DELETE /v1/clients/{id}.
func (a *api) deleteClient(ctx context.Context, call *server.Call, in ofClient) (server.Answer, error) {
	result, err := a.Clients.Remove(ctx, in.ID, call.Metadata(), mayGive(call.Caller))
	return server.Done(result.Position), err
}

// rotateClientSecret answers POST /v1/clients/{id}/secrets.
func (a *api) rotateClientSecret(ctx context.Context, call *server.Call, in ofClient) (server.Answer, error) {
	c, secret, result, err := a.Clients.Rotate(ctx, in.ID, call.Metadata(), mayGive(call.Caller))
	return server.With(http.StatusCreated, clientView{Client: c, Secret: string(secret)}).At(result.Position), err
}

// addClientKey answers POST /v1/clients/{id}/keys.
func (a *api) addClientKey(ctx context.Context, call *server.Call, in struct {
	ofClient
	Scopes    []string   `json:"scopes" required:"true"`
	ExpiresAt *time.Time `json:"expires_at"`
}) (server.Answer, error) {
	var until time.Time
	set(&until, in.ExpiresAt)
	c, key, _, result, err := a.Clients.AddKey(ctx, in.ID, in.Scopes, until, call.Metadata(), mayGive(call.Caller))
	return server.With(http.StatusCreated, clientView{Client: c, Key: string(key)}).At(result.Position), err
}

// retireClientCredential answers DELETE /v1/clients/{id}/credentials/{credential}.
func (a *api) retireClientCredential(ctx context.Context, call *server.Call, in struct {
	ofClient
	Credential uuid.UUID `path:"credential" missing:"the client has no such secret or key"`
}) (server.Answer, error) {
	_, result, err := a.Clients.Retire(ctx, in.ID, in.Credential, call.Metadata(), mayGive(call.Caller))
	return server.Done(result.Position), err
}
