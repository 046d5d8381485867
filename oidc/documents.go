package oidc

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/labstack/echo/v5"

	"usher.example/client"
	"usher.example/server"
	"usher.example/token"
)

// The paths.
const (
	PathMetadata   = "/.well-known/oauth-authorization-server"
	pathKeys       = "/.well-known/jwks.json"
	pathToken      = "/oauth2/token"
	pathIntrospect = "/oauth2/introspect"
	pathRevoke     = "/oauth2/revoke"
)

// jwks answers GET /.well-known/jwks.json, the public keys that verify access tokens (RFC 7517).
func (p *provider) jwks(*server.Call) (server.Answer, error) {
	return server.Document("application/jwk-set+json", p.Keys.JWKS()), nil
}

// serverMetadata describes the authorization server that usher is, as far as it is one (RFC 8414, section 2).
type serverMetadata struct {
	Issuer              string   `json:"issuer"`
	Keys                string   `json:"jwks_uri"`
	Introspection       string   `json:"introspection_endpoint"`
	IntrospectionAuth   []string `json:"introspection_endpoint_auth_methods_supported"`
	IntrospectionSigned []string `json:"introspection_endpoint_auth_signing_alg_values_supported"`
	Revocation          string   `json:"revocation_endpoint"`
	RevocationAuth      []string `json:"revocation_endpoint_auth_methods_supported"`
	RevocationSigned    []string `json:"revocation_endpoint_auth_signing_alg_values_supported"`
	Documentation       string   `json:"service_documentation"`
	ResponseTypes       []string `json:"response_types_supported"` // none: there is no authorization endpoint
	GrantTypes          []string `json:"grant_types_supported"`
	Token               string   `json:"token_endpoint"`
	TokenAuth           []string `json:"token_endpoint_auth_methods_supported"`
	TokenSigned         []string `json:"token_endpoint_auth_signing_alg_values_supported"`
	Scopes              []string `json:"scopes_supported"`
	Proofs              []string `json:"dpop_signing_alg_values_supported"`
	SubjectTypes        []string `json:"subject_types_supported"`
	SignatureAlgorithms []string `json:"id_token_signing_alg_values_supported"` // where libraries look up those of every token
}

// describe answers GET /.well-known/openid-configuration and /.well-known/oauth-authorization-server (RFC 8414).
func (p *provider) describe(*server.Call) (server.Answer, error) {
	base := strings.TrimSuffix(p.PublicURL, "/")
	methods := []string{client.AuthenticationBasic, client.AuthenticationPost, client.AuthenticationSigned}
	var algorithms []string
	for _, k := range p.Keys.Keys() {
		if name := string(k.Algorithm()); !slices.Contains(algorithms, name) {
			algorithms = append(algorithms, name)
		}
	}
	raw, err := json.Marshal(serverMetadata{
		Issuer: p.Issuer.Name(), Keys: base + pathKeys,
		Introspection: base + pathIntrospect, IntrospectionAuth: methods, IntrospectionSigned: token.PublicAlgorithms,
		Revocation: base + pathRevoke, RevocationAuth: methods, RevocationSigned: token.PublicAlgorithms,
		Documentation: base + "/openapi.yaml",
		Token:         base + pathToken, TokenAuth: methods, TokenSigned: token.PublicAlgorithms, Scopes: client.Scopes, Proofs: strings.Fields(server.ProofAlgorithms),
		ResponseTypes: []string{}, GrantTypes: []string{client.GrantClientCredentials}, SubjectTypes: []string{"public"}, SignatureAlgorithms: algorithms,
	})
	if err != nil {
		return server.Answer{}, err
	}
	return server.Document(echo.MIMEApplicationJSON, raw), nil
}

// resourceMetadata describes usher's own API as what tokens are for (RFC 9728, section 2).
type resourceMetadata struct {
	Resource      string   `json:"resource"`
	Servers       []string `json:"authorization_servers"`
	Keys          string   `json:"jwks_uri"`
	Scopes        []string `json:"scopes_supported"`
	Methods       []string `json:"bearer_methods_supported"`
	Proofs        []string `json:"dpop_signing_alg_values_supported"`
	Name          string   `json:"resource_name"`
	Documentation string   `json:"resource_documentation"`
}

// describeResource answers GET /.well-known/oauth-protected-resource.
func (p *provider) describeResource(*server.Call) (server.Answer, error) {
	base := strings.TrimSuffix(p.PublicURL, "/")
	raw, err := json.Marshal(resourceMetadata{
		Resource: base, Servers: []string{p.Issuer.Name()}, Keys: base + pathKeys, Scopes: client.Scopes, Methods: []string{"header"},
		Proofs: strings.Fields(server.ProofAlgorithms), Name: "usher", Documentation: base + "/openapi.yaml",
	})
	if err != nil {
		return server.Answer{}, err
	}
	return server.Document(echo.MIMEApplicationJSON, raw), nil
}
