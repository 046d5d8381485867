package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"usher.example/schema"
	"usher.example/server"
)

// document holds requests and answers against schema/openapi.yaml. There is one for all tests, and a schema in it is compiled
// once: kin-openapi does so for every value, which took more time than all that is tested.
type document struct {
	doc    *openapi3.T
	router routers.Router

	mu       sync.Mutex
	compiler *jsonschema.Compiler
	compiled map[string]*jsonschema.Schema // by its place in the document
}

var readDocument = sync.OnceValues(func() (*document, error) {
	doc, err := openapi3.NewLoader().LoadFromData(schema.OpenAPI)
	if err != nil {
		return nil, err
	}
	if err := doc.Validate(openapi3.NewLoader().Context); err != nil {
		return nil, err
	}
	router, err := legacy.NewRouter(doc)
	if err != nil {
		return nil, err
	}
	raw, err := jsonschema.UnmarshalJSON(bytes.NewReader(schema.OpenAPIJSON()))
	if err != nil {
		return nil, err
	}
	d := &document{doc: doc, router: router, compiler: jsonschema.NewCompiler(), compiled: map[string]*jsonschema.Schema{}}
	d.compiler.AssertFormat()
	return d, d.compiler.AddResource("openapi.json", raw)
})

func loadDocument(tb testing.TB) *document {
	tb.Helper()
	d, err := readDocument()
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

// check holds an answer against the document, and the request too if it was accepted.
func (d *document) check(tb testing.TB, r *http.Request, body string, a answer) {
	tb.Helper()
	r = r.Clone(tb.Context())
	r.URL.Scheme, r.URL.Host = "", ""
	route, params, err := d.router.FindRoute(r)
	if err != nil { // no such path or method: only what is true of every problem can be checked
		d.checkProblem(tb, r, a)
		return
	}
	operation := "/paths/" + escape(route.Path) + "/" + strings.ToLower(r.Method)
	if a.status < 300 {
		if err := d.holdRequest(route, params, operation, r, body); err != nil {
			tb.Errorf("%s %s was accepted, and is not as documented: %v", r.Method, r.URL, err)
		}
	}
	if err := d.holdAnswer(route, operation, a); err != nil {
		tb.Errorf("%s %s: the answer %d is not as documented: %v", r.Method, r.URL, a.status, err)
	}
	if a.status >= 400 && !strings.HasPrefix(route.Path, "/oauth2/") {
		d.checkProblem(tb, r, a)
	}
}

func (d *document) holdRequest(route *routers.Route, params map[string]string, operation string, r *http.Request, body string) error {
	o := route.Operation
	inJSON := o.RequestBody != nil && o.RequestBody.Value.Content[jsonType] != nil
	r.Body = io.NopCloser(strings.NewReader(body))
	err := openapi3filter.ValidateRequest(r.Context(), &openapi3filter.RequestValidationInput{
		Request: r, PathParams: params, Route: route,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, ExcludeRequestBody: inJSON},
	})
	if body = strings.TrimPrefix(body, "\ufeff"); err != nil || !inJSON || body == "" { // which stands for {}
		return err
	}
	return d.hold(operation+"/requestBody/content/"+escape(jsonType)+"/schema", body)
}

func (d *document) holdAnswer(route *routers.Route, operation string, a answer) error {
	answer := route.Operation.Responses.Status(a.status)
	if answer == nil {
		return fmt.Errorf("there is no such answer")
	}
	at := operation + "/responses/" + strconv.Itoa(a.status)
	if answer.Ref != "" {
		at = strings.TrimPrefix(answer.Ref, "#")
	}
	for name, header := range answer.Value.Headers {
		where := at + "/headers/" + escape(name)
		if header.Ref != "" {
			where = strings.TrimPrefix(header.Ref, "#")
		}
		value := a.header.Get(name)
		switch {
		case value == "" && header.Value.Required:
			return fmt.Errorf("the header %s is missing", name)
		case value == "":
			continue
		case !header.Value.Schema.Value.Type.Is("integer"):
			quoted, err := json.Marshal(value)
			if err != nil {
				return err
			}
			value = string(quoted)
		}
		if err := d.hold(where+"/schema", value); err != nil {
			return fmt.Errorf("the header %s: %w", name, err)
		}
	}
	if len(answer.Value.Content) == 0 {
		return nil
	}
	media := a.header.Get("Content-Type")
	if answer.Value.Content[media] == nil {
		return fmt.Errorf("the Content-Type %q is not among those documented", media)
	}
	if !strings.HasSuffix(media, "json") {
		return nil
	}
	return d.hold(at+"/content/"+escape(media)+"/schema", a.body)
}

// hold holds a value, in JSON, against the schema at a place of the document.
func (d *document) hold(place, value string) error {
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(value))
	if err != nil {
		return err
	}
	d.mu.Lock()
	s := d.compiled[place]
	if s == nil {
		if s, err = d.compiler.Compile("openapi.json#" + place); err == nil {
			d.compiled[place] = s
		}
	}
	d.mu.Unlock()
	if err != nil {
		return err
	}
	return s.Validate(v)
}

// escape makes a name a part of a JSON pointer (RFC 6901) in a URL.
func escape(name string) string {
	return url.PathEscape(strings.NewReplacer("~", "~0", "/", "~1").Replace(name))
}

func (d *document) checkProblem(tb testing.TB, r *http.Request, a answer) {
	tb.Helper()
	if err := d.hold("/components/schemas/Problem", a.body); err != nil {
		tb.Errorf("%s %s: %d with %q: %v", r.Method, r.URL, a.status, a.body, err)
		return
	}
	if got := a.header.Get("Content-Type"); got != "application/problem+json" {
		tb.Errorf("%s %s: Content-Type %q", r.Method, r.URL, got)
	}
	var p server.Problem
	if err := json.Unmarshal([]byte(a.body), &p); err != nil {
		tb.Error(err)
	}
	if p.Status != a.status || p.Type != server.ProblemType+string(p.Code) || p.RequestID == "" || p.RequestID != a.header.Get("X-Request-Id") {
		tb.Errorf("%s %s: %d, request %s: the problem says otherwise: %s", r.Method, r.URL, a.status, a.header.Get("X-Request-Id"), a.body)
	}
}

// What is not as documented is seen.
func TestDocumentIsHeld(t *testing.T) {
	t.Parallel()
	d := loadDocument(t)
	const session = `{"items":[{"id":"0198c0de-0000-7000-8000-000000000000","created_at":"2026-01-02T15:04:05Z","last_used_at":"2026-01-02T15:04:05Z","user_agent":"","address":"","current":true}]}`
	good := func() answer {
		return answer{http.StatusOK, http.Header{"Content-Type": {jsonType}, "Cache-Control": {"no-store"}, "X-Request-Id": {"0198c0de-0000-7000-8000-000000000000"}}, session}
	}
	for name, spoil := range map[string]func(*answer){
		"":                         func(*answer) {},
		"there is no such answer":  func(a *answer) { a.status = http.StatusTeapot },
		"X-Request-Id is missing":  func(a *answer) { a.header.Del("X-Request-Id") },
		"X-Request-Id: ":           func(a *answer) { a.header.Set("X-Request-Id", "x") },
		"Cache-Control: ":          func(a *answer) { a.header.Set("Cache-Control", "public") },
		"Content-Type":             func(a *answer) { a.header.Set("Content-Type", "text/plain") },
		"missing property 'items'": func(a *answer) { a.body = "{}" },
		"additional properties":    func(a *answer) { a.body = strings.Replace(a.body, "{", `{"hash":"x",`, 1) },
		"date-time":                func(a *answer) { a.body = strings.Replace(a.body, "2026-01-02T", "2026-01-02 ", 1) },
		"boolean":                  func(a *answer) { a.body = strings.Replace(a.body, "true", `"true"`, 1) },
	} {
		route, _, err := d.router.FindRoute(&http.Request{Method: "GET", URL: &url.URL{Path: "/v1/me/sessions"}})
		if err != nil {
			t.Fatal(err)
		}
		a := good()
		spoil(&a)
		err = d.holdAnswer(route, "/paths/"+escape(route.Path)+"/get", a)
		if (err == nil) != (name == "") || err != nil && !strings.Contains(err.Error(), name) {
			t.Errorf("%q: %v", name, err)
		}
	}
	route, params, err := d.router.FindRoute(&http.Request{Method: "POST", URL: &url.URL{Path: "/v1/auth/login"}})
	if err != nil {
		t.Fatal(err)
	}
	for body, good := range map[string]bool{credentials("ada@example.org", secret): true, `{"email":"ada@example.org"}`: false, `{"email":7,"password":"x"}`: false} {
		r, err := http.NewRequestWithContext(t.Context(), "POST", "/v1/auth/login", nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.holdRequest(route, params, "/paths/"+escape(route.Path)+"/post", r, body); (err == nil) != good {
			t.Errorf("%s: %v", body, err)
		}
	}
}
