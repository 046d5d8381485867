package identity

import (
	"encoding/json"
	"time"

	"github.com/google/uuid"
)

// The types of the events of a client's stream.
const (
	TypeClientRegistered    = "client.registered"
	TypeClientChanged       = "client.changed"
	TypeClientSecretAdded   = "client.secret_added"
	TypeClientSecretRetired = "client.secret_retired"
	TypeClientRemoved       = "client.removed"
)

// ClientSettings is what is set of a client of OAuth: what it may, and how it proves who it is. Nothing in it is secret or
// personal.
type ClientSettings struct {
	Name                   string          `json:"name"`
	RedirectURIs           []string        `json:"redirect_uris"`
	PostLogoutRedirectURIs []string        `json:"post_logout_redirect_uris"`
	AllowedOrigins         []string        `json:"allowed_origins"`
	Grants                 []string        `json:"grants"`
	Scopes                 []string        `json:"scopes"`
	FirstParty             bool            `json:"first_party"`
	Authentication         string          `json:"authentication"`
	JWKS                   json.RawMessage `json:"jwks,omitempty"`
	JWKSURI                string          `json:"jwks_uri,omitempty"`
	AccessTokenSeconds     int             `json:"access_token_seconds,omitempty"`
	RefreshTokenSeconds    int             `json:"refresh_token_seconds,omitempty"`
	NoPKCE                 bool            `json:"no_pkce,omitempty"` // it can't, and sends a nonce instead
	IDTokenAlgorithm       string          `json:"id_token_signed_response_alg,omitempty"`
}

// ClientRegistered begins a client's stream.
type ClientRegistered struct{ ClientSettings }

// ClientChanged sets what is set of a client anew: all of it, as it is from now on.
type ClientChanged struct{ ClientSettings }

// The kinds of what a client proves with who it is.
const (
	SecretShared = "secret" // goes with the client's id
	SecretKey    = "key"    // goes alone, as a bearer token
)

// ClientSecretAdded says that a client has one secret or key more.
type ClientSecretAdded struct {
	Secret    uuid.UUID `json:"secret"` // by which it is retired
	Kind      string    `json:"kind"`   // SecretShared or SecretKey
	Prefix    string    `json:"prefix"` // what it begins with
	Scopes    []string  `json:"scopes"` // of a key
	ExpiresAt time.Time `json:"expires_at,omitzero"`
}

// ClientSecretRetired says that a secret or key of a client is of no use from now on.
type ClientSecretRetired struct {
	Secret uuid.UUID `json:"secret"`
}

// ClientRemoved ends a client's stream: there is no such client any more.
type ClientRemoved struct{}

// EventType implements Payload.
func (ClientRegistered) EventType() string    { return TypeClientRegistered }
func (ClientChanged) EventType() string       { return TypeClientChanged }
func (ClientSecretAdded) EventType() string   { return TypeClientSecretAdded }
func (ClientSecretRetired) EventType() string { return TypeClientSecretRetired }
func (ClientRemoved) EventType() string       { return TypeClientRemoved }
