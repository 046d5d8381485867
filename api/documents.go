package api

import (
	"encoding/json"
	"strings"

	"github.com/labstack/echo/v5"

	"usher.example/schema"
	"usher.example/server"
)

// The paths that documents name.
const (
	pathOpenAPI  = "/openapi.yaml"
	pathJSON     = "/openapi.json"
	pathMetadata = "/.well-known/oauth-authorization-server"
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
