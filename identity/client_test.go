package identity

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
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, nil)
		shop, secret, err := s.AddClient(t.Context(), "shop")
		if err != nil {
			t.Fatal(err)
		}
		mail, other, err := s.AddClient(t.Context(), "mail")
		if err != nil {
			t.Fatal(err)
		}
		if len(secret) < len(clientSecretPrefix)+43 || secret == other {
			t.Error("the secrets are not of 256 random bits")
		}
		for _, text := range []string{fmt.Sprintf("%v", secret), fmt.Sprintf("%+v", secret), fmt.Sprintf("%#v", secret), secret.LogValue().String()} {
			if strings.Contains(text, string(secret)) {
				t.Errorf("a secret was printed: %s", text)
			}
		}
		list, err := s.Clients(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]Client{mail, shop}, list); diff != "" {
			t.Errorf("clients (-want +got):\n%s", diff)
		}
		for _, name := range []string{"", "Shop", "-shop", "a b", "sh\x00p", strings.Repeat("x", 64), "shop", "usher"} {
			if _, _, err := s.AddClient(t.Context(), name); !errors.Is(err, ErrClientName) {
				t.Errorf("AddClient(%q) = %v, want %v", name, err, ErrClientName)
			}
		}
		if c, err := s.AuthenticateClient(t.Context(), shop.ID.String(), secret); err != nil || c.ID != shop.ID || c.Name != "shop" {
			t.Errorf("AuthenticateClient = %+v, %v", c, err)
		}
		for name, try := range map[string]struct {
			id     string
			secret ClientSecret
		}{
			"another secret":  {shop.ID.String(), other},
			"no secret":       {shop.ID.String(), ""},
			"an unknown id":   {uuid.Must(uuid.NewV7()).String(), secret},
			"the nil id":      {uuid.Nil.String(), secret},
			"no id":           {"", secret},
			"the name":        {"shop", secret},
			"another form":    {"{" + shop.ID.String() + "}", secret},
			"the stored hash": {shop.ID.String(), ClientSecret(secret.hash())},
		} {
			if c, err := s.AuthenticateClient(t.Context(), try.id, try.secret); !errors.Is(err, ErrNoClient) {
				t.Errorf("%s: AuthenticateClient = %+v, %v, want %v", name, c, err, ErrNoClient)
			}
		}
		if err := s.RemoveClient(t.Context(), "shop"); err != nil {
			t.Fatal(err)
		}
		if err := s.RemoveClient(t.Context(), "shop"); !errors.Is(err, ErrNoClient) {
			t.Errorf("RemoveClient again = %v, want %v", err, ErrNoClient)
		}
		if _, err := s.AuthenticateClient(t.Context(), shop.ID.String(), secret); !errors.Is(err, ErrNoClient) {
			t.Errorf("AuthenticateClient of a removed client = %v", err)
		}
		if events := d.events(t, s); len(events) != 0 {
			t.Errorf("events %v, want none", types(events))
		}
	})
}
