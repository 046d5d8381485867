package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity"
)

// by is the metadata of an operator's command.
func by() eventstore.Metadata {
	return eventstore.Metadata{Correlation: uuid.New(), Actor: identity.ActorOperator}
}

func add(t *testing.T, r *Registry, s identity.ClientSettings) (Client, Secret) {
	t.Helper()
	c, secret, _, err := r.Add(t.Context(), s, uuid.Nil, by())
	if err != nil {
		t.Fatal(err)
	}
	return c, secret
}

var service = identity.ClientSettings{Name: "warehouse", Scopes: []string{ScopeUsersRead, ScopeEventsRead}}

func wantUnknown(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, ErrUnknown) {
		t.Errorf("%s = %v, want %v", what, err, ErrUnknown)
	}
}

func wantCode(t *testing.T, what string, err error, code identity.Code) {
	t.Helper()
	if !errors.Is(err, &identity.Error{Code: code}) {
		t.Errorf("%s = %v, want the code %s", what, err, code)
	}
}

// types lists the types of a client's events.
func types(t *testing.T, r *Registry, id uuid.UUID) (list []string) {
	t.Helper()
	events, err := r.config.Log.ReadStream(t.Context(), id, 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if e.Stream.Kind != eventstore.KindClient || e.Stream.Subject != uuid.Nil {
			t.Errorf("%s is in a stream of kind %q about %s", e.Type, e.Stream.Kind, e.Stream.Subject)
		}
		list = append(list, e.Type)
	}
	return list
}

func TestClients(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, r *Registry) {
		shop, secret := add(t, r, identity.ClientSettings{Name: "shop"})
		mail, other := add(t, r, identity.ClientSettings{Name: "mail"})
		if len(secret) < len(secretPrefix)+43 || secret == other {
			t.Error("the secrets are not of 256 random bits")
		}
		for _, text := range []string{fmt.Sprintf("%v", secret), fmt.Sprintf("%+v", secret), fmt.Sprintf("%#v", secret), secret.LogValue().String()} {
			if strings.Contains(text, string(secret)) {
				t.Errorf("a secret was printed: %s", text)
			}
		}
		list, err := r.List(t.Context(), uuid.Nil, 10)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]Client{shop, mail}, list, cmp.AllowUnexported(Client{}, Credential{}), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("clients (-want +got):\n%s", diff)
		}
		for _, name := range []string{"", "Shop", "-shop", "a b", "sh\x00p", strings.Repeat("x", 64), "usher"} {
			_, _, _, err := r.Add(t.Context(), identity.ClientSettings{Name: name}, uuid.Nil, by())
			wantCode(t, fmt.Sprintf("Add(%q)", name), err, identity.CodeInvalidClient)
		}
		if _, _, _, err := r.Add(t.Context(), identity.ClientSettings{Name: "shop"}, uuid.Nil, by()); !errors.Is(err, ErrName) {
			t.Errorf("Add of a name that is taken = %v, want %v", err, ErrName)
		}
		if c, err := r.Authenticate(t.Context(), shop.ID.String(), secret); err != nil || c.ID != shop.ID || c.Name != "shop" {
			t.Errorf("Authenticate = %+v, %v", c, err)
		}
		stored := secret.digest()
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
			"the stored hash": {shop.ID.String(), Secret(stored[:])},
		} {
			_, err := r.Authenticate(t.Context(), try.id, try.secret)
			wantUnknown(t, "Authenticate with "+name, err)
		}
		if _, err := r.Remove(t.Context(), shop.ID, by(), nil); err != nil {
			t.Fatal(err)
		}
		_, err = r.Remove(t.Context(), shop.ID, by(), nil)
		wantUnknown(t, "Remove again", err)
		_, err = r.Authenticate(t.Context(), shop.ID.String(), secret)
		wantUnknown(t, "Authenticate of a removed client", err)
		if diff := cmp.Diff([]string{identity.TypeClientRegistered, identity.TypeClientSecretAdded, identity.TypeClientRemoved}, types(t, r, shop.ID)); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		add(t, r, identity.ClientSettings{Name: "shop"}) // the name is free again
	})
}

// Two secrets are good at once, and a third drives the oldest out.
func TestRotation(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, r *Registry) {
		c, first := add(t, r, service)
		secrets := []Secret{first}
		for range 2 {
			_, secret, _, err := r.Rotate(t.Context(), c.ID, by(), nil)
			if err != nil {
				t.Fatal(err)
			}
			secrets = append(secrets, secret)
		}
		_, err := r.Authenticate(t.Context(), c.ID.String(), secrets[0])
		wantUnknown(t, "the first of three", err)
		for _, secret := range secrets[1:] {
			if _, err := r.Authenticate(t.Context(), c.ID.String(), secret); err != nil {
				t.Errorf("the last two = %v", err)
			}
		}
		now, err := r.Read(t.Context(), c.ID)
		if err != nil || len(now.Credentials) != 2 || now.Credentials[1].UsedAt == nil {
			t.Fatalf("credentials = %+v, %v", now.Credentials, err)
		}
		if _, _, err := r.Retire(t.Context(), c.ID, now.Credentials[0].ID, by(), nil); err != nil {
			t.Fatal(err)
		}
		_, err = r.Authenticate(t.Context(), c.ID.String(), secrets[1])
		wantUnknown(t, "one that was retired", err)
		_, _, err = r.Retire(t.Context(), c.ID, now.Credentials[0].ID, by(), nil)
		wantUnknown(t, "Retire again", err)
		// Whoever signs needs none.
		_, _, err = r.Change(t.Context(), c.ID, by(), nil, func(s *identity.ClientSettings) {
			s.Authentication, s.JWKSURI = AuthenticationSigned, "https://warehouse.example/jwks.json"
		})
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.Authenticate(t.Context(), c.ID.String(), secrets[2])
		wantUnknown(t, "the secret of a client that signs", err)
	})
}

func TestKeys(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, r *Registry) {
		now := time.Now()
		r.config.Now = func() time.Time { return now }
		c, secret := add(t, r, service)
		_, key, made, _, err := r.AddKey(t.Context(), c.ID, []string{ScopeEventsRead}, now.Add(time.Hour), by(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if is, typed := IsKey(string(key)); !is || !typed || !strings.HasPrefix(string(key), made.Prefix) || strings.Contains(made.Prefix, string(key)) {
			t.Errorf("a key is none, or its prefix %q is not its own", made.Prefix)
		}
		of, found, err := r.ByKey(t.Context(), key)
		if err != nil || of.ID != c.ID || !slices.Equal(found.Scopes, []string{ScopeEventsRead}) {
			t.Errorf("ByKey = %s, %v, %v", of.Name, found.Scopes, err)
		}
		_, err = r.Authenticate(t.Context(), c.ID.String(), key)
		wantUnknown(t, "a key as a secret", err)
		_, _, err = r.ByKey(t.Context(), secret)
		wantUnknown(t, "a secret as a key", err)
		for _, scopes := range [][]string{nil, {ScopeUsersWrite}, {"nonsense"}, {ScopeAccountRead}} {
			_, _, _, _, err := r.AddKey(t.Context(), c.ID, scopes, time.Time{}, by(), nil)
			wantCode(t, fmt.Sprint("a key with ", scopes), err, identity.CodeInvalidClient)
		}
		for _, until := range []time.Time{now, now.AddDate(6, 0, 0)} {
			_, _, _, _, err := r.AddKey(t.Context(), c.ID, []string{ScopeEventsRead}, until, by(), nil)
			wantCode(t, fmt.Sprint("a key until ", until), err, identity.CodeInvalidClient)
		}
		// A key may no more than its client may by now.
		if _, _, err := r.Change(t.Context(), c.ID, by(), nil, func(s *identity.ClientSettings) { s.Scopes = []string{ScopeUsersRead} }); err != nil {
			t.Fatal(err)
		}
		if _, found, err := r.ByKey(t.Context(), key); err != nil || len(found.Scopes) != 0 {
			t.Errorf("ByKey of a key whose scope the client lost = %v, %v", found.Scopes, err)
		}
		now = now.Add(time.Hour)
		_, _, err = r.ByKey(t.Context(), key)
		wantUnknown(t, "a key that has expired", err)
	})
}

func TestTypingErrorsOfKeys(t *testing.T) {
	t.Parallel()
	for range 100 {
		key := string(newKey())
		if is, typed := IsKey(key); !is || !typed {
			t.Errorf("%s is no key", key)
		}
		for i := len(KeyPrefix); i < len(key); i++ {
			wrong := []byte(key)
			if wrong[i]++; wrong[i] == key[i] {
				continue
			}
			if is, typed := IsKey(string(wrong)); !is || typed {
				t.Errorf("a key with another character at %d counts as typed right", i)
			}
		}
		if _, typed := IsKey(key[:len(key)-1]); typed {
			t.Error("a key that lacks a character counts as typed right")
		}
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	app := identity.ClientSettings{Name: "app", RedirectURIs: []string{"https://app.example/cb"}, Scopes: []string{"openid"}}
	for name, change := range map[string]func(*identity.ClientSettings){
		"a fragment":         func(s *identity.ClientSettings) { s.RedirectURIs = []string{"https://app.example/cb#x"} },
		"an empty fragment":  func(s *identity.ClientSettings) { s.RedirectURIs = []string{"https://app.example/cb#"} },
		"plain http":         func(s *identity.ClientSettings) { s.RedirectURIs = []string{"http://app.example/cb"} },
		"a wildcard":         func(s *identity.ClientSettings) { s.RedirectURIs = []string{"https://*.app.example/cb"} },
		"a user":             func(s *identity.ClientSettings) { s.RedirectURIs = []string{"https://me@app.example/cb"} },
		"a path":             func(s *identity.ClientSettings) { s.RedirectURIs = []string{"/cb"} },
		"no host":            func(s *identity.ClientSettings) { s.RedirectURIs = []string{"https:///cb"} },
		"a backslash":        func(s *identity.ClientSettings) { s.RedirectURIs = []string{"https://app.example\\@evil.example/"} },
		"a script":           func(s *identity.ClientSettings) { s.RedirectURIs = []string{"javascript:alert(1)"} },
		"data":               func(s *identity.ClientSettings) { s.RedirectURIs = []string{"data:text/html,x"} },
		"one twice":          func(s *identity.ClientSettings) { s.RedirectURIs = append(s.RedirectURIs, s.RedirectURIs[0]) },
		"an unknown grant":   func(s *identity.ClientSettings) { s.Grants = []string{"password"} },
		"no redirect URI":    func(s *identity.ClientSettings) { s.RedirectURIs, s.Grants = nil, []string{GrantCode} },
		"an unknown scope":   func(s *identity.ClientSettings) { s.Scopes = []string{"user:read"} },
		"the account, third": func(s *identity.ClientSettings) { s.Scopes = []string{ScopeAccountRead} },
		"a public service": func(s *identity.ClientSettings) {
			s.Authentication, s.Grants = AuthenticationNone, []string{GrantCode, GrantClientCredentials}
		},
		"a path in an origin":   func(s *identity.ClientSettings) { s.AllowedOrigins = []string{"https://app.example/"} },
		"an origin in capitals": func(s *identity.ClientSettings) { s.AllowedOrigins = []string{"https://App.example"} },
		"a port that is usual":  func(s *identity.ClientSettings) { s.AllowedOrigins = []string{"https://app.example:443"} },
		"signing without keys":  func(s *identity.ClientSettings) { s.Authentication = AuthenticationSigned },
		"keys without signing": func(s *identity.ClientSettings) {
			s.Authentication, s.JWKSURI = AuthenticationBasic, "https://app.example/keys"
		},
		"a private key": func(s *identity.ClientSettings) {
			s.JWKS = []byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AA","d":"AA"}]}`)
		},
		"a shared key":            func(s *identity.ClientSettings) { s.JWKS = []byte(`{"keys":[{"kty":"oct","k":"AA"}]}`) },
		"no keys":                 func(s *identity.ClientSettings) { s.JWKS = []byte(`{"keys":[]}`) },
		"keys over plain http":    func(s *identity.ClientSettings) { s.JWKSURI = "http://app.example/keys" },
		"a negative lifetime":     func(s *identity.ClientSettings) { s.AccessTokenSeconds = -1 },
		"a refresh without a use": func(s *identity.ClientSettings) { s.RedirectURIs, s.Grants = nil, []string{GrantRefresh} },
	} {
		s := app
		change(&s)
		wantCode(t, "check of "+name, check(complete(s)), identity.CodeInvalidClient)
	}
	for name, s := range map[string]identity.ClientSettings{
		"a web app":    app,
		"a native app": {Name: "app", Authentication: AuthenticationNone, RedirectURIs: []string{"http://127.0.0.1/cb", "http://[::1]/cb", "com.example.app:/cb"}},
		"a service":    service,
		"a signer":     {Name: "signer", Scopes: []string{ScopeEventsRead}, JWKS: []byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`)},
		"one of ours":  {Name: "ours", FirstParty: true, RedirectURIs: []string{"https://ours.example/"}, Scopes: []string{"openid", ScopeAccountWrite}},
	} {
		if err := check(complete(s)); err != nil {
			t.Errorf("check of %s = %v", name, err)
		}
	}
}

// Only the port of a loopback address is free.
func TestRedirectsTo(t *testing.T) {
	t.Parallel()
	c := Client{ClientSettings: identity.ClientSettings{RedirectURIs: []string{"https://app.example/cb?a=b", "http://127.0.0.1/cb", "http://[::1]:80/cb", "http://localhost:8000/cb"}}}
	for uri, want := range map[string]bool{
		"https://app.example/cb?a=b": true, "https://app.example/cb": false, "https://app.example/cb?a=b&c=d": false, "https://app.example:8443/cb?a=b": false,
		"HTTPS://app.example/cb?a=b": false, "http://127.0.0.1:49152/cb": true, "http://127.0.0.1/cb": true, "http://[::1]:9/cb": true,
		"http://127.0.0.1:49152/other": false, "http://127.0.0.1:49152/cb?x": false, "http://127.0.0.2:49152/cb": false, "http://127.0.0.1.evil.example/cb": false,
		"http://localhost:8000/cb": true, "http://localhost:8001/cb": false, "https://127.0.0.1/cb": false, "http://127.0.0.1:49152/cb#x": false, "": false,
	} {
		if got := c.RedirectsTo(uri); got != want {
			t.Errorf("RedirectsTo(%q) = %v, want %v", uri, got, want)
		}
	}
}

// Whoever may not give a client what it has may not get at it either, before or after a change.
func TestPermit(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, r *Registry) {
		c, _ := add(t, r, service)
		no := errors.New("no")
		permit := func(c Client) error {
			if slices.Contains(c.Scopes, ScopeUsersRead) {
				return no
			}
			return nil
		}
		less := func(s *identity.ClientSettings) { s.Scopes = []string{ScopeEventsRead} }
		if _, _, err := r.Change(t.Context(), c.ID, by(), permit, less); !errors.Is(err, no) {
			t.Errorf("Change of one who has more = %v, want %v", err, no)
		}
		if _, _, _, err := r.Rotate(t.Context(), c.ID, by(), permit); !errors.Is(err, no) {
			t.Errorf("Rotate of one who has more = %v, want %v", err, no)
		}
		if _, _, err := r.Change(t.Context(), c.ID, by(), nil, less); err != nil {
			t.Fatal(err)
		}
		more := func(s *identity.ClientSettings) { s.Scopes = []string{ScopeUsersRead} }
		if _, _, err := r.Change(t.Context(), c.ID, by(), permit, more); !errors.Is(err, no) {
			t.Errorf("Change to more = %v, want %v", err, no)
		}
	})
}

// Changes by several at once are each decided on what is there.
func TestChangesAtOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, r *Registry) {
		c, _ := add(t, r, identity.ClientSettings{Name: "app", RedirectURIs: []string{"https://app.example/0"}})
		const callers = 6
		var all sync.WaitGroup
		for i := range callers {
			all.Go(func() {
				_, _, err := r.Change(t.Context(), c.ID, by(), nil, func(s *identity.ClientSettings) {
					s.RedirectURIs = append(slices.Clone(s.RedirectURIs), fmt.Sprintf("https://app.example/%d", i+1))
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if now, err := r.Read(t.Context(), c.ID); err != nil || len(now.RedirectURIs) != callers+1 {
			t.Errorf("%d redirect URIs, %v, want %d", len(now.RedirectURIs), err, callers+1)
		}
	})
}

// A client from before clients were streams gets one, whoever is first, and keeps its secret.
func TestAdopt(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, r *Registry) {
		secret, id := newSecret(), uuid.Must(uuid.NewV7())
		hash, at := secret.digest(), time.Now().UTC().Truncate(time.Microsecond)
		err := r.config.DB.Transact(t.Context(), func(tx eventstore.DB) error {
			_, err := tx.Exec(t.Context(), `INSERT INTO clients (client_id, name, created_at, version, settings, changed_at) VALUES ($1, 'old', $2, 0, '{}', $2)`, id, at)
			if err != nil {
				return err
			}
			_, err = tx.Exec(t.Context(), `INSERT INTO client_secrets (secret_id, client_id, kind, hash, prefix, scopes, created_at) VALUES ($1, $1, 'secret', $2, 'usher_secret_', '[]', $3)`, id, hash[:], at)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Authenticate(t.Context(), id.String(), secret); err != nil {
			t.Errorf("Authenticate before it = %v", err)
		}
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				if err := r.Adopt(context.WithoutCancel(t.Context())); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if diff := cmp.Diff([]string{identity.TypeClientRegistered, identity.TypeClientSecretAdded}, types(t, r, id)); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		if c, err := r.Authenticate(t.Context(), id.String(), secret); err != nil || c.Name != "old" || c.version != 2 {
			t.Errorf("Authenticate = %+v, %v", c, err)
		}
		if _, _, _, err := r.Add(t.Context(), identity.ClientSettings{Name: "old"}, uuid.Nil, by()); !errors.Is(err, ErrName) {
			t.Errorf("Add of its name = %v, want %v", err, ErrName)
		}
	})
}

// What is in memory is dropped when a client changes, also what is being read at that moment.
func TestKnown(t *testing.T) {
	t.Parallel()
	k, id := newKnown(), uuid.New()
	read := func(name string, meanwhile func()) string {
		c, err := k.get(id, func() (Client, error) {
			meanwhile()
			return Client{ID: id, ClientSettings: identity.ClientSettings{Name: name}}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return c.Name
	}
	nothing := func() {}
	read("stale", func() { k.drop(id) })
	if got := read("first", nothing); got != "first" {
		t.Errorf("%s was kept though the client changed while it was read", got)
	}
	if got := read("second", nothing); got != "first" {
		t.Errorf("got %s, want what is kept", got)
	}
	k.drop(uuid.Nil)
	if got := read("third", nothing); got != "third" {
		t.Errorf("got %s after all were dropped", got)
	}
}
