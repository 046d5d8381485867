package api

import (
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"
	"github.com/google/go-cmp/cmp"

	"usher/identity"
	"usher/schema"
)

func init() {
	openapi3filter.RegisterBodyDecoder("application/jwk-set+json", openapi3filter.JSONBodyDecoder)
}

// document holds requests and answers against schema/openapi.yaml.
type document struct {
	doc    *openapi3.T
	router routers.Router
}

func loadDocument(tb testing.TB) *document {
	tb.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(schema.OpenAPI)
	if err != nil {
		tb.Fatal(err)
	}
	if err := doc.Validate(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	router, err := legacy.NewRouter(doc)
	if err != nil {
		tb.Fatal(err)
	}
	return &document{doc, router}
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
	r.Body = io.NopCloser(strings.NewReader(body))
	request := &openapi3filter.RequestValidationInput{
		Request: r, PathParams: params, Route: route,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true},
	}
	if a.status < 300 {
		if err := openapi3filter.ValidateRequest(tb.Context(), request); err != nil {
			tb.Errorf("%s %s was accepted, and is not as documented: %v", r.Method, r.URL, err)
		}
	}
	answered := &openapi3filter.ResponseValidationInput{RequestValidationInput: request, Status: a.status, Header: a.header, Options: request.Options}
	answered.SetBodyBytes([]byte(a.body))
	if err := openapi3filter.ValidateResponse(tb.Context(), answered); err != nil {
		tb.Errorf("%s %s: the answer %d is not as documented: %v", r.Method, r.URL, a.status, err)
	}
	if a.status >= 400 && !strings.HasPrefix(route.Path, "/oauth2/") {
		d.checkProblem(tb, r, a)
	}
}

func (d *document) checkProblem(tb testing.TB, r *http.Request, a answer) {
	tb.Helper()
	var body any
	if err := json.Unmarshal([]byte(a.body), &body); err != nil {
		tb.Errorf("%s %s: %d with %q: %v", r.Method, r.URL, a.status, a.body, err)
		return
	}
	problemSchema := d.doc.Components.Schemas["Problem"].Value
	if err := problemSchema.VisitJSON(body, openapi3.EnableJSONSchema2020()); err != nil {
		tb.Errorf("%s %s: %d with %s: %v", r.Method, r.URL, a.status, a.body, err)
	}
	if got := a.header.Get("Content-Type"); got != "application/problem+json" {
		tb.Errorf("%s %s: Content-Type %q", r.Method, r.URL, got)
	}
	var p problem
	if err := json.Unmarshal([]byte(a.body), &p); err != nil {
		tb.Error(err)
	}
	if p.Status != a.status || p.Type != problemType+string(p.Code) || p.RequestID == "" || p.RequestID != a.header.Get("X-Request-Id") {
		tb.Errorf("%s %s: %d, request %s: the problem says otherwise: %s", r.Method, r.URL, a.status, a.header.Get("X-Request-Id"), a.body)
	}
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
	for _, r := range New(Config{}).echo.Router().Routes() {
		registered = append(registered, r.Method+" "+parameter.ReplaceAllString(r.Path, "{$1}"))
	}
	slices.Sort(documented)
	slices.Sort(registered)
	if diff := cmp.Diff(registered, documented); diff != "" {
		t.Errorf("routes and document differ (-routes +document):\n%s", diff)
	}
}

// Every code that can be answered is in the document, and the other way round.
func TestDocumentHasEveryCode(t *testing.T) {
	t.Parallel()
	var documented, answered []string
	for _, code := range loadDocument(t).doc.Components.Schemas["Problem"].Value.Properties["code"].Value.Enum {
		documented = append(documented, code.(string))
	}
	for code := range problems {
		answered = append(answered, string(code))
	}
	slices.Sort(documented)
	slices.Sort(answered)
	if diff := cmp.Diff(answered, documented); diff != "" {
		t.Errorf("problems and document differ (-problems +document):\n%s", diff)
	}
	for _, e := range []*identity.Error{
		identity.ErrEmailTaken, identity.ErrKeyReused, identity.ErrInvalidEmail, identity.ErrInvalidName, identity.ErrInvalidAttributes, identity.ErrPasswordRefused,
		identity.ErrInvalidCredentials, identity.ErrUserLocked, identity.ErrUserDisabled, identity.ErrNotFound,
		identity.ErrInvalidCode, identity.ErrThrottled, identity.ErrTOTPRequired,
	} {
		if _, ok := problems[e.Code]; !ok {
			t.Errorf("%s is not among the problems", e.Code)
		}
	}
}
