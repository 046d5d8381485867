package test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/eventstore"
	"usher.example/identity"
	"usher.example/subscription"
	"usher.example/token"
)

// downstream is a service that takes usher's access tokens: it knows the address of the keys and of the broker, and calls
// usher for no request of its own.
type downstream struct {
	url  string
	feed *subscription.RevocationFeed
}

func (d *deployment) downstream(c *client) *downstream {
	d.t.Helper()
	conn, err := nats.Connect(d.natsURL)
	if err != nil {
		d.t.Fatal(err)
	}
	js, err := jetstream.New(conn)
	if err != nil {
		d.t.Fatal(err)
	}
	keys := &token.RemoteKeys{URL: c.base + "/.well-known/jwks.json", Keys: new(token.KeyRing)}
	const lifetime = 30 * time.Minute
	revocations := token.NewRevocations(token.RevocationsConfig{Lifetime: lifetime})
	feed := &subscription.RevocationFeed{JetStream: js, Lifetime: lifetime, EndSession: revocations.EndSession, EndUser: revocations.EndUser, EndConsent: revocations.EndConsent,
		Logger: slog.New(slog.DiscardHandler)}
	verifier, err := token.NewVerifier(token.VerifierConfig{Keys: keys.Keys, Issuer: "http://localhost:8080", Audience: "usher",
		Missing: keys.Missing, Revoked: revocations.Revoked})
	if err != nil {
		d.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- feed.Run(ctx) }()
	go func() { _ = keys.Run(ctx); done <- nil }() // which ends with ctx only
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, err := verifier.Verify(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		fmt.Fprint(w, claims.Subject)
	}))
	d.t.Cleanup(func() {
		server.Close()
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				d.t.Error(err)
			}
		}
		conn.Close()
	})
	select {
	case <-feed.Ready():
	case <-time.After(patience):
		d.t.Fatal("the feed is not ready")
	}
	return &downstream{server.URL, feed}
}

// takes says whether the service takes a token.
func (s *downstream) takes(t *testing.T, access string) bool {
	t.Helper()
	r, err := http.NewRequest("GET", s.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+access)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := response.Body.Close(); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode == http.StatusOK
}

// identity is the service on the database of a deployment, for what only a mail would tell.
func (d *deployment) identity() *identity.Service {
	d.t.Helper()
	store, master, err := d.openStore(context.Background())
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(store.Close)
	return identity.New(identity.Config{Log: eventstore.New(store, master, eventstore.Options{}), Store: store, DB: store, CodeKey: master.Derive("codes")})
}

// A service that follows the feed refuses an access token within a second of what ends its session.
func TestRevocationDownstream(t *testing.T) {
	t.Parallel()
	d, _ := newRunningServer(t)
	_, c := d.startServe("--with", "publisher")
	service := d.downstream(c)
	mailed := d.identity()
	admin := c.login(t, d.admin)
	as := func(token, method, path string, body any) {
		t.Helper()
		name, value := bearer(token)
		c.want(t, http.StatusNoContent, method, path, body, name, value)
	}
	number := 0
	for name, end := range map[string]func(u registration, access string){
		"logout":            func(_ registration, access string) { as(access, "POST", "/v1/auth/logout", nil) },
		"logout everywhere": func(_ registration, access string) { as(access, "POST", "/v1/auth/logout-all", nil) },
		"lock":              func(u registration, _ string) { as(admin, "POST", "/v1/users/"+u.ID+"/lock", nil) },
		"disable":           func(u registration, _ string) { as(admin, "POST", "/v1/users/"+u.ID+"/disable", nil) },
		"erase":             func(u registration, _ string) { as(admin, "DELETE", "/v1/users/"+u.ID, nil) },
		"password reset": func(u registration, _ string) {
			code, _, err := mailed.NewCode(t.Context(), uuid.MustParse(u.ID), identity.PurposeReset)
			if err != nil {
				t.Fatal(err)
			}
			c.want(t, http.StatusNoContent, "POST", "/v1/auth/password/reset", map[string]string{"code": string(code), "new_password": userPassword + " 2"})
		},
	} {
		// The machine may be busy with something else for a moment, but not three times.
		const tries = 3
		for try := 1; ; try++ {
			number++
			u := c.mustRegister(t, fmt.Sprintf("user%d@example.org", number))
			access := c.login(t, credentials{u.Email, userPassword})
			if !service.takes(t, access) {
				t.Fatalf("%s: the token is refused from the start", name)
			}
			begin := time.Now()
			end(u, access)
			eventually(t, name+": the token is refused", func() error {
				if service.takes(t, access) {
					return fmt.Errorf("it is taken, and the feed is of %v ago", service.feed.Age())
				}
				return nil
			})
			took := time.Since(begin)
			if t.Logf("%s: refused after %v", name, took.Round(time.Millisecond)); took < time.Second {
				break
			}
			if try == tries {
				t.Errorf("%s: refused after %v, %d times in a row", name, took, tries)
				break
			}
		}
	}
}
