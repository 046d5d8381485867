package schema_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"usher.example/schema"
)

// Every event schema is a schema of an object, under the name of what it describes, and has all versions before it.
func TestEventSchemas(t *testing.T) {
	t.Parallel()
	name := regexp.MustCompile(`^([a-z]+\.[a-z_]+)\.v([1-9][0-9]*)$`)
	names := schema.Events()
	if len(names) == 0 || !slices.IsSorted(names) {
		t.Errorf("Events = %q", names)
	}
	for _, n := range names {
		parts := name.FindStringSubmatch(n)
		if parts == nil {
			t.Errorf("%s is no event type and version", n)
			continue
		}
		version, err := strconv.Atoi(parts[2])
		if err != nil {
			t.Fatal(err)
		}
		for v := 1; v < version; v++ {
			if _, err := schema.Event(parts[1], v); err != nil {
				t.Errorf("%s without version %d: %v", n, v, err)
			}
		}
		raw, err := schema.Event(parts[1], version)
		if err != nil {
			t.Fatal(err)
		}
		document, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
		if err != nil {
			t.Errorf("%s: %v", n, err)
			continue
		}
		compiler := jsonschema.NewCompiler()
		if err := compiler.AddResource(n+".json", document); err != nil {
			t.Fatal(err)
		}
		compiled, err := compiler.Compile(n + ".json")
		if err != nil {
			t.Errorf("%s: %v", n, err)
			continue
		}
		if err := compiled.Validate("not an object"); err == nil {
			t.Errorf("%s takes what is not an object", n)
		}
	}
	if _, err := schema.Event("no.such_event", 1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Event: %v, want fs.ErrNotExist", err)
	}
}

// What could tell who somebody is is marked, so that it is sealed. Only events about users have anybody to tell of: a
// projection has a name too, and a client.
func TestPersonalFieldsAreMarked(t *testing.T) {
	t.Parallel()
	for _, n := range schema.Events() {
		eventType, version, _ := strings.Cut(n, ".v")
		if strings.HasPrefix(eventType, "projection.") || strings.HasPrefix(eventType, "client.") {
			continue
		}
		v, err := strconv.Atoi(version)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := schema.Event(eventType, v)
		if err != nil {
			t.Fatal(err)
		}
		var s struct {
			Properties map[string]struct {
				Personal bool `json:"x-personal"`
			}
		}
		if err := json.Unmarshal(raw, &s); err != nil {
			t.Errorf("%s: %v", n, err)
		}
		for _, field := range []string{"email", "name", "previous_email", "address", "user_agent"} {
			if p, there := s.Properties[field]; there && !p.Personal {
				t.Errorf("%s: %s is not marked x-personal", n, field)
			}
		}
	}
}
