package api

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v5"

	"usher.example/schema"
)

// KeysMaxAge is how long the JWKS document may be kept. A key has to be announced for longer before it signs.
const KeysMaxAge = 5 * time.Minute

// publicFor is how long documents that seldom change may be kept.
var publicFor = []string{fmt.Sprintf("public, max-age=%d", KeysMaxAge/time.Second)}

// jwks answers GET /.well-known/jwks.json, the public keys that verify access tokens (RFC 7517).
func (s *Server) jwks(c *echo.Context) error {
	return publicDocument(c, "application/jwk-set+json", s.Keys.JWKS())
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
func (s *Server) describeServer(c *echo.Context) error {
	base := strings.TrimSuffix(s.PublicURL, "/")
	methods := []string{"client_secret_basic", "client_secret_post"}
	var algorithms []string
	for _, k := range s.Keys.Keys() {
		if name := string(k.Algorithm()); !slices.Contains(algorithms, name) {
			algorithms = append(algorithms, name)
		}
	}
	raw, err := json.Marshal(serverMetadata{
		Issuer: s.Issuer.Name(), Keys: base + pathKeys,
		Introspection: base + pathIntrospect, IntrospectionAuth: methods, Revocation: base + pathRevoke, RevocationAuth: methods,
		Documentation: base + pathOpenAPI,
		ResponseTypes: []string{}, GrantTypes: []string{}, SubjectTypes: []string{"public"}, SignatureAlgorithms: algorithms,
	})
	if err != nil {
		return err
	}
	return publicDocument(c, echo.MIMEApplicationJSON, raw)
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
func (s *Server) showIndex(c *echo.Context) error {
	base := strings.TrimSuffix(s.PublicURL, "/")
	raw, err := json.Marshal(index{"usher", base + pathOpenAPI, base + pathMetadata})
	if err != nil {
		return err
	}
	return publicDocument(c, echo.MIMEApplicationJSON, raw)
}

// openAPI answers GET /openapi.yaml, the description of this API.
func (s *Server) openAPI(c *echo.Context) error {
	return publicDocument(c, "application/yaml", schema.OpenAPI)
}

// openAPIJSON answers GET /openapi.json, the same in JSON.
func (s *Server) openAPIJSON(c *echo.Context) error {
	return publicDocument(c, echo.MIMEApplicationJSON, schema.OpenAPIJSON())
}

// publicDocument answers with something that everybody may see and keep for a while, and after that ask whether it is still the
// same (RFC 9110, section 13.1.2).
func publicDocument(c *echo.Context, contentType string, content []byte) error {
	sum := sha256.Sum256(content)
	tag := `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`
	h := c.Response().Header()
	h[echo.HeaderCacheControl] = publicFor
	h["Etag"] = []string{tag}
	if matches(c.Request().Header["If-None-Match"], tag) {
		return c.NoContent(http.StatusNotModified)
	}
	return c.Blob(http.StatusOK, contentType, content)
}

// matches says whether a tag is among those of an If-None-Match header.
func matches(headers []string, tag string) bool {
	for _, header := range headers {
		for _, t := range strings.Split(header, ",") {
			if t = strings.TrimSpace(t); t == "*" || strings.TrimPrefix(t, "W/") == tag {
				return true
			}
		}
	}
	return false
}
