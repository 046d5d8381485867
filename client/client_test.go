package client

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

func TestClients(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, r Registry) {
		shop, secret, err := r.Add(t.Context(), "shop")
		if err != nil {
			t.Fatal(err)
		}
		mail, other, err := r.Add(t.Context(), "mail")
		if err != nil {
			t.Fatal(err)
		}
		if len(secret) < len(secretPrefix)+43 || secret == other {
			t.Error("the secrets are not of 256 random bits")
		}
		for _, text := range []string{fmt.Sprintf("%v", secret), fmt.Sprintf("%+v", secret), fmt.Sprintf("%#v", secret), secret.LogValue().String()} {
			if strings.Contains(text, string(secret)) {
				t.Errorf("a secret was printed: %s", text)
			}
		}
		list, err := r.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]Client{mail, shop}, list); diff != "" {
			t.Errorf("clients (-want +got):\n%s", diff)
		}
		for _, name := range []string{"", "Shop", "-shop", "a b", "sh\x00p", strings.Repeat("x", 64), "shop", "usher"} {
			if _, _, err := r.Add(t.Context(), name); !errors.Is(err, ErrName) {
				t.Errorf("Add(%q) = %v, want %v", name, err, ErrName)
			}
		}
		if c, err := r.Authenticate(t.Context(), shop.ID.String(), secret); err != nil || c.ID != shop.ID || c.Name != "shop" {
			t.Errorf("Authenticate = %+v, %v", c, err)
		}
		for name, try := range map[string]struct {
			id     string
			secret Secret
		}{
			"another secret":  {shop.ID.String(), other},
			"no secret":       {shop.ID.String(), ""},
			"an unknown id":   {uuid.Must(uuid.NewV7()).String(), secret},
			"the nil id":      {uuid.Nil.String(), secret},
			"no id":           {"", secret},
			"the name":        {"shop", secret},
			"another form":    {"{" + shop.ID.String() + "}", secret},
			"the stored hash": {shop.ID.String(), Secret(secret.hash())},
		} {
			if c, err := r.Authenticate(t.Context(), try.id, try.secret); !errors.Is(err, ErrUnknown) {
				t.Errorf("%s: Authenticate = %+v, %v, want %v", name, c, err, ErrUnknown)
			}
		}
		if err := r.Remove(t.Context(), "shop"); err != nil {
			t.Fatal(err)
		}
		if err := r.Remove(t.Context(), "shop"); !errors.Is(err, ErrUnknown) {
			t.Errorf("Remove again = %v, want %v", err, ErrUnknown)
		}
		if _, err := r.Authenticate(t.Context(), shop.ID.String(), secret); !errors.Is(err, ErrUnknown) {
			t.Errorf("Authenticate of a removed client = %v", err)
		}
	})
}
