package schema_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"

	"usher.example/schema"
)

// The document in JSON is the document.
func TestOpenAPIJSON(t *testing.T) {
	t.Parallel()
	var inYAML, inJSON any
	if err := yaml.Unmarshal(schema.OpenAPI, &inYAML); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(schema.OpenAPIJSON(), &inJSON); err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(inYAML)
	if err != nil {
		t.Fatal(err)
	}
	var want any
	if err := json.Unmarshal(raw, &want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, inJSON); diff != "" {
		t.Errorf("(-YAML +JSON):\n%s", diff)
	}
	if _, err := openapi3.NewLoader().LoadFromData(schema.OpenAPIJSON()); err != nil {
		t.Error(err)
	}
}

// What generators of clients stumble over is not in the document: values without a type, bodies that could be left out though
// fields of them are needed, alternatives, anchors of YAML, and calls of which it is not said whether they need a token.
func TestOpenAPIForGenerators(t *testing.T) {
	t.Parallel()
	var root yaml.Node
	if err := yaml.Unmarshal(schema.OpenAPI, &root); err != nil {
		t.Fatal(err)
	}
	document := root.Content[0]
	components := field(document, "components")
	walk(t, "", document, func(where string, n *yaml.Node) {
		if n.Anchor != "" || n.Kind == yaml.AliasNode {
			t.Errorf("%s: an anchor or an alias", where)
		}
		if strings.Contains(where, "/example") {
			return
		}
		for _, name := range []string{"enum", "const"} {
			if field(n, name) != nil && field(n, "type") == nil {
				t.Errorf("%s: %s without a type", where, name)
			}
		}
		for _, name := range []string{"anyOf", "oneOf", "allOf", "not", "if"} {
			if field(n, name) != nil {
				t.Errorf("%s: %s", where, name)
			}
		}
		if body := field(n, "requestBody"); body != nil && field(body, "required") == nil {
			for media := range pairs(field(body, "content")) {
				s := field(field(field(body, "content"), media), "schema")
				if ref := field(s, "$ref"); ref != nil {
					s = field(field(components, "schemas"), strings.TrimPrefix(ref.Value, "#/components/schemas/"))
				}
				if field(s, "required") != nil {
					t.Errorf("%s: a body that has needed fields, and is not required", where)
				}
			}
		}
		if field(n, "operationId") != nil && field(n, "security") == nil {
			t.Errorf("%s: no security", where)
		}
	})
}

// walk visits every mapping and list of a document.
func walk(t *testing.T, where string, n *yaml.Node, visit func(where string, n *yaml.Node)) {
	visit(where, n)
	if n.Kind == yaml.MappingNode {
		for name, value := range pairs(n) {
			walk(t, where+"/"+name, value, visit)
		}
		return
	}
	for i, value := range n.Content {
		walk(t, fmt.Sprintf("%s/%d", where, i), value, visit)
	}
}

func pairs(n *yaml.Node) func(func(string, *yaml.Node) bool) {
	return func(yield func(string, *yaml.Node) bool) {
		for i := 0; n != nil && i+1 < len(n.Content); i += 2 {
			if !yield(n.Content[i].Value, n.Content[i+1]) {
				return
			}
		}
	}
}

// field is a member of a mapping, or nil.
func field(n *yaml.Node, name string) *yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for key, value := range pairs(n) {
		if key == name {
			return value
		}
	}
	return nil
}
