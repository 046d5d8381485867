package projections

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"usher.example/eventstore"
	"usher.example/identity"
)

// The one struct for all events reads what identity reads with one for each, of everything that may be stored: the
// golden files of users. Of the events that have no facts it reads none.
func TestFactsAgreeWithIdentity(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join("..", "identity", "testdata", "user.*.v1.json"))
	if err != nil || len(files) < 13 {
		t.Fatalf("golden files: %q, %v", files, err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var golden struct{ Data, Personal json.RawMessage }
		if err := json.Unmarshal(raw, &golden); err != nil {
			t.Fatal(err)
		}
		logged := eventstore.Event{Type: strings.TrimSuffix(filepath.Base(file), ".v1.json"), SchemaVersion: 1, Data: golden.Data, Personal: golden.Personal}
		published, forgotten := logged, logged
		published.Data, published.Personal = logged.Payload(), nil
		forgotten.Personal, forgotten.Forgotten = nil, true
		for form, e := range map[string]eventstore.Event{"logged": logged, "published": published, "forgotten": forgotten} {
			payload, err := identity.DecodeAny(e)
			if err != nil {
				t.Fatal(err)
			}
			got, err := readFacts(e)
			if err != nil {
				t.Errorf("%s, %s: %v", e.Type, form, err)
			}
			if diff := cmp.Diff(factsOf(payload), got); diff != "" {
				t.Errorf("%s, %s (-identity +projection):\n%s", e.Type, form, diff)
			}
		}
	}
}

func factsOf(payload identity.Payload) (f userFacts) {
	name := func(text string) *string {
		if text == "" { // a first event has a name only if the user has one
			return nil
		}
		return &text
	}
	switch p := payload.(type) {
	case identity.Registered:
		f = userFacts{Email: p.Personal.Email, Name: name(p.Personal.Name)}
	case identity.Imported:
		f = userFacts{Email: p.Personal.Email, Name: name(p.Personal.Name), EmailVerified: p.EmailVerified, Roles: p.Roles,
			Attributes: p.Personal.Attributes, CreatedAt: p.CreatedAt}
	case identity.EmailVerified:
		f.Email = p.Personal.Email
	case identity.EmailChangeRequested:
		f.Email = p.Personal.Email
	case identity.EmailChanged:
		f.Email = p.Personal.Email
	case identity.ProfileUpdated:
		f.Name, f.Attributes = p.Personal.Name, p.Personal.Attributes
	case identity.RoleGranted:
		f.Role = p.Role
	case identity.RoleRevoked:
		f.Role = p.Role
	}
	return f
}
