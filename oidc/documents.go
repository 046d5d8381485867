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
	pathAuthorize  = "/oauth2/authorize"
	pathUserinfo   = "/oauth2/userinfo"
	pathLogout     = "/oauth2/logout"
	pathConsent    = "/consent"
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
	Authorization       string   `json:"authorization_endpoint"`
	Userinfo            string   `json:"userinfo_endpoint"`
	Logout              string   `json:"end_session_endpoint"`
	Device              string   `json:"device_authorization_endpoint"`
	ResponseTypes       []string `json:"response_types_supported"`
	ResponseModes       []string `json:"response_modes_supported"`
	Challenges          []string `json:"code_challenge_methods_supported"`
	Prompts             []string `json:"prompt_values_supported"`
	Claims              []string `json:"claims_supported"`
	Classes             []string `json:"acr_values_supported"`
	UILocales           []string `json:"ui_locales_supported"`
	NamesIssuer         bool     `json:"authorization_response_iss_parameter_supported"`
	ClaimsParameter     bool     `json:"claims_parameter_supported"`
	RequestParameter    bool     `json:"request_parameter_supported"`
	RequestURIParameter bool     `json:"request_uri_parameter_supported"`
	GrantTypes          []string `json:"grant_types_supported"`
	Token               string   `json:"token_endpoint"`
	TokenAuth           []string `json:"token_endpoint_auth_methods_supported"`
	TokenSigned         []string `json:"token_endpoint_auth_signing_alg_values_supported"`
	Scopes              []string `json:"scopes_supported"`
	Proofs              []string `json:"dpop_signing_alg_values_supported"`
	SubjectTypes        []string `json:"subject_types_supported"`
	SignatureAlgorithms []string `json:"id_token_signing_alg_values_supported"` // where libraries look up those of access tokens too
}

// describe answers GET /.well-known/openid-configuration and /.well-known/oauth-authorization-server (RFC 8414).
func (p *provider) describe(*server.Call) (server.Answer, error) {
	base := strings.TrimSuffix(p.PublicURL, "/")
	methods := []string{client.AuthenticationBasic, client.AuthenticationPost, client.AuthenticationSigned}
	var languages []string
	for _, tongue := range p.screens.look.Tongues() {
		languages = append(languages, tongue.Tag)
	}
	raw, err := json.Marshal(serverMetadata{
		Issuer: p.Issuer.Name(), Keys: base + pathKeys,
		Introspection: base + pathIntrospect, IntrospectionAuth: methods, IntrospectionSigned: token.PublicAlgorithms,
		Revocation: base + pathRevoke, RevocationAuth: append(slices.Clone(methods), client.AuthenticationNone), RevocationSigned: token.PublicAlgorithms,
		Documentation: base + "/openapi.yaml",
		Token:         base + pathToken, TokenAuth: append(slices.Clone(methods), client.AuthenticationNone), TokenSigned: token.PublicAlgorithms, Scopes: client.GrantScopes, Proofs: strings.Fields(server.ProofAlgorithms),
		Authorization: base + pathAuthorize, Userinfo: base + pathUserinfo, Logout: base + pathLogout, Device: base + pathDevice,
		ResponseTypes: []string{paramCode}, ResponseModes: []string{modeQuery, modeFormPost}, GrantTypes: grants, Challenges: []string{methodS256},
		Prompts: prompts, Claims: claimsThere, Classes: []string{classOne, classTwo}, UILocales: languages, NamesIssuer: true,
		SubjectTypes: []string{"public"}, SignatureAlgorithms: p.signatureAlgorithms(),
	})
	if err != nil {
		return server.Answer{}, err
	}
	return server.Document(echo.MIMEApplicationJSON, raw), nil
}

// signatureAlgorithms are those that ID tokens and access tokens are signed in.
func (p *provider) signatureAlgorithms() (names []string) {
	for _, a := range p.Keys.IDTokenAlgorithms() {
		names = append(names, string(a))
	}
	for _, k := range p.Keys.Keys() {
		if name := string(k.Algorithm()); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
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
