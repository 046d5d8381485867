package api

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/labstack/echo/v5"

	"usher.example/schema"
	"usher.example/server"
)

// jwks answers GET /.well-known/jwks.json, the public keys that verify access tokens (RFC 7517).
func (a *api) jwks(*server.Call) (server.Answer, error) {
	return server.Document("application/jwk-set+json", a.Keys.JWKS()), nil
}

// serverMetadata describes the authorization server that usher is, as far as it is one (RFC 8414, section 2).
type serverMetadata struct {
	Issuer              string   `json:"issuer"`
	Keys                string   `json:"jwks_uri"`
	Introspection       string   `json:"introspection_endpoint"`
	IntrospectionAuth   []string `json:"introspection_endpoint_auth_methods_supported"`
	Revocation          string   `json:"revocation_endpoint"`
	RevocationAuth      []string `json:"revocation_endpoint_auth_methods_supported"`
	Documentation       string   `json:"service_documentation"`
	ResponseTypes       []string `json:"response_types_supported"` // none: there is no authorization endpoint
	GrantTypes          []string `json:"grant_types_supported"`    // none: there is no token endpoint; left out it would say otherwise
	SubjectTypes        []string `json:"subject_types_supported"`
	SignatureAlgorithms []string `json:"id_token_signing_alg_values_supported"` // where libraries look up those of every token
}

// describeServer answers GET /.well-known/openid-configuration and /.well-known/oauth-authorization-server (RFC 8414).
func (a *api) describeServer(*server.Call) (server.Answer, error) {
	base := strings.TrimSuffix(a.PublicURL, "/")
	methods := []string{"client_secret_basic", "client_secret_post"}
	var algorithms []string
	for _, k := range a.Keys.Keys() {
		if name := string(k.Algorithm()); !slices.Contains(algorithms, name) {
			algorithms = append(algorithms, name)
		}
	}
	raw, err := json.Marshal(serverMetadata{
		Issuer: a.Issuer.Name(), Keys: base + pathKeys,
		Introspection: base + pathIntrospect, IntrospectionAuth: methods, Revocation: base + pathRevoke, RevocationAuth: methods,
		Documentation: base + pathOpenAPI,
		ResponseTypes: []string{}, GrantTypes: []string{}, SubjectTypes: []string{"public"}, SignatureAlgorithms: algorithms,
	})
	if err != nil {
		return server.Answer{}, err
	}
	return server.Document(echo.MIMEApplicationJSON, raw), nil
}

// The paths that documents name.
const (
	pathKeys       = "/.well-known/jwks.json"
	pathOpenAPI    = "/openapi.yaml"
	pathJSON       = "/openapi.json"
	pathMetadata   = "/.well-known/oauth-authorization-server"
	pathIntrospect = "/oauth2/introspect"
	pathRevoke     = "/oauth2/revoke"
)

// index says what is here, to whoever has nothing but the address.
type index struct {
	Service  string `json:"service"`
	OpenAPI  string `json:"openapi"`
	Metadata string `json:"metadata"`
}

// showIndex answers GET /.
func (a *api) showIndex(*server.Call) (server.Answer, error) {
	base := strings.TrimSuffix(a.PublicURL, "/")
	raw, err := json.Marshal(index{"usher", base + pathOpenAPI, base + pathMetadata})
	if err != nil {
		return server.Answer{}, err
	}
	return server.Document(echo.MIMEApplicationJSON, raw), nil
}

// openAPI answers GET /openapi.yaml, the description of this API.
func (a *api) openAPI(*server.Call) (server.Answer, error) {
	return server.Document("application/yaml", schema.OpenAPI), nil
}

// openAPIJSON answers GET /openapi.json, the same in JSON.
func (a *api) openAPIJSON(*server.Call) (server.Answer, error) {
	return server.Document(echo.MIMEApplicationJSON, schema.OpenAPIJSON()), nil
}
