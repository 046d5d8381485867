package server

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/go-cmp/cmp"

	"usher.example/identity"
	"usher.example/schema"
)

// Every code that can be answered is in the document, and the other way round.
func TestDocumentHasEveryCode(t *testing.T) {
	t.Parallel()
	var documented, answered []string
	doc, err := openapi3.NewLoader().LoadFromData(schema.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	for _, code := range doc.Components.Schemas["Problem"].Value.Properties["code"].Value.Enum {
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

// The catalogue of problems says of every code what the table of this package does, and when it happens and what to do.
func TestDocumentOfProblems(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile(filepath.Join("..", "schema", "problems.md"))
	if err != nil {
		t.Fatal(err)
	}
	listed := map[identity.Code]bool{}
	for line := range strings.Lines(string(raw)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		code, ok := strings.CutPrefix(cells[0], "`")
		if !strings.HasPrefix(line, "|") || !ok {
			continue
		}
		c := identity.Code(strings.TrimSuffix(code, "`"))
		known, ok := problems[c]
		if !ok || listed[c] || len(cells) != 5 {
			t.Errorf("schema/problems.md: a row for %s that should not be there: %s", c, line)
			continue
		}
		listed[c] = true
		if cells[1] != strconv.Itoa(known.status) || cells[2] != known.title {
			t.Errorf("schema/problems.md says of %s: %s, %s; want %d, %s", c, cells[1], cells[2], known.status, known.title)
		}
		if cells[3] == "" || cells[4] == "" {
			t.Errorf("schema/problems.md does not say when %s happens and what to do", c)
		}
		if known.retry != (known.status == http.StatusServiceUnavailable || known.status == http.StatusTooManyRequests) {
			t.Errorf("%s: %d with Retry-After: %v", c, known.status, known.retry)
		}
	}
	for c, known := range problems {
		if !listed[c] {
			t.Errorf("schema/problems.md has no row for %s: add | `%s` | %d | %s | when it happens | what to do |", c, c, known.status, known.title)
		}
	}
}
