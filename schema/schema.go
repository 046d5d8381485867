// Package schema holds every contract between processes: the SQL migrations of both databases, the JSON Schema of every
// version of every event, the OpenAPI document of the HTTP API and the AsyncAPI document of the published events.
//
// A released migration or event schema never changes; the next number is added.
package schema

import (
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"go.yaml.in/yaml/v4"
)

//go:embed postgres/*.sql sqlite/*.sql
var migrations embed.FS

//go:embed events/*.json
var events embed.FS

// OpenAPI is the OpenAPI 3.1 document of the HTTP API, in YAML.
//
//go:embed openapi.yaml
var OpenAPI []byte

// OpenAPIJSON is OpenAPI in JSON, for tools that read no YAML.
var OpenAPIJSON = sync.OnceValue(func() []byte {
	var document any
	if err := yaml.Unmarshal(OpenAPI, &document); err != nil { // a test reads it
		panic(err)
	}
	raw, err := json.Marshal(document)
	if err != nil { // for keys that are no strings, which a test would meet
		panic(err)
	}
	return raw
})

// AsyncAPI is the AsyncAPI 3.0 document of the published events, in YAML.
//
//go:embed asyncapi.yaml
var AsyncAPI []byte

// Event is the JSON Schema of one version of an event type. It fails with fs.ErrNotExist for one that does not exist.
func Event(eventType string, version int) ([]byte, error) {
	return events.ReadFile(fmt.Sprintf("events/%s.v%d.json", eventType, version))
}

// Events lists every event schema as "<type>.v<version>", sorted.
func Events() []string {
	files, err := fs.Glob(events, "events/*.json")
	if err != nil { // only for a malformed pattern
		panic(err)
	}
	for i, f := range files {
		files[i] = strings.TrimSuffix(strings.TrimPrefix(f, "events/"), ".json")
	}
	slices.Sort(files)
	return files
}
