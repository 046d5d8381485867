package api

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/go-cmp/cmp"

	"usher.example/oidc"
	"usher.example/pages/look"
	"usher.example/schema"
	"usher.example/server"
)

// endpoints are the routes of a server that has all that the document describes.
func endpoints(tb testing.TB) []server.Endpoint {
	tb.Helper()
	s := server.New(server.Config{})
	Register(s, Config{})
	if err := oidc.Register(s, oidc.Config{PublicURL: "https://usher.test", CodeKey: make([]byte, 32), Look: pageLook(tb)}); err != nil {
		tb.Fatal(err)
	}
	return s.Endpoints()
}

// Every route is in the document, and everything in the document is a route.
func TestDocumentHasEveryRoute(t *testing.T) {
	t.Parallel()
	var documented, registered []string
	for path, item := range loadDocument(t).doc.Paths.Map() {
		for method := range item.Operations() {
			documented = append(documented, method+" "+path)
		}
	}
	parameter := regexp.MustCompile(`:(\w+)`)
	for _, r := range endpoints(t) {
		if r.Method == http.MethodHead || strings.HasPrefix(r.Path, look.AssetsPath) { // which goes with GET, and is not listed
			continue
		}
		registered = append(registered, r.Method+" "+parameter.ReplaceAllString(r.Path, "{$1}"))
	}
	slices.Sort(documented)
	slices.Sort(registered)
	if diff := cmp.Diff(registered, documented); diff != "" {
		t.Errorf("routes and document differ (-routes +document):\n%s", diff)
	}
}

// mainCalls are those that the document shows examples of.
var mainCalls = []string{"register", "login", "refresh", "showMe", "listUsers", "showUser", "listUserEvents", "introspect"}

// Every call is described, and everything that is defined is used.
func TestDocumentIsComplete(t *testing.T) {
	t.Parallel()
	doc := loadDocument(t).doc
	operations := map[string]bool{}
	for path, item := range doc.Paths.Map() {
		for method, o := range item.Operations() {
			name := method + " " + path
			if o.OperationID == "" || operations[o.OperationID] {
				t.Errorf("%s: the operation id %q is empty or another's", name, o.OperationID)
			}
			operations[o.OperationID] = true
			if o.Summary == "" || o.Description == "" {
				t.Errorf("%s has no summary or no description", name)
			}
			if len(o.Tags) != 1 || doc.Tags.Get(o.Tags[0]) == nil {
				t.Errorf("%s has the tags %q, want one that is described", name, o.Tags)
			}
			if o.Responses.Status(http.StatusInternalServerError) == nil {
				t.Errorf("%s does not say what a failure looks like", name)
			}
			if slices.Contains(mainCalls, o.OperationID) {
				wantExamples(t, name, o)
			}
		}
	}
	for _, id := range mainCalls {
		if !operations[id] {
			t.Errorf("there is no operation %s", id)
		}
	}
	defined := regexp.MustCompile(`(?m)^  (parameters|headers|responses|schemas|examples):$|^    ([A-Z]\w*):$`)
	kind := ""
	components := string(schema.OpenAPI[strings.Index(string(schema.OpenAPI), "\ncomponents:"):])
	for _, m := range defined.FindAllStringSubmatch(components, -1) {
		if m[1] != "" {
			kind = m[1]
		} else if !strings.Contains(string(schema.OpenAPI), "'#/components/"+kind+"/"+m[2]+"'") {
			t.Errorf("components/%s/%s is used nowhere", kind, m[2])
		}
	}
	if kind == "" {
		t.Error("no components were found")
	}
}

// wantExamples fails unless the bodies of a call have examples. That they are valid is part of the document's validation.
func wantExamples(t *testing.T, name string, o *openapi3.Operation) {
	t.Helper()
	has := func(content openapi3.Content) bool {
		for _, media := range content {
			if media.Example != nil || len(media.Examples) > 0 {
				return true
			}
		}
		return false
	}
	if o.RequestBody != nil && !has(o.RequestBody.Value.Content) {
		t.Errorf("%s has no example of a request", name)
	}
	for status, r := range o.Responses.Map() {
		if strings.HasPrefix(status, "2") && !has(r.Value.Content) {
			t.Errorf("%s has no example of the answer %s", name, status)
		}
	}
}
