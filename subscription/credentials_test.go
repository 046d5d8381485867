package subscription_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"usher.example/internal/devstack"
	"usher.example/subscription"
)

// issuer gives tokens to a client, and has an empty log for whoever has the last of them.
type issuer struct {
	mu       sync.Mutex
	issued   int
	read     int
	lifetime int
	good     func(bearer string, last int) bool
}

func (i *issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	switch id, secret, _ := r.BasicAuth(); {
	case r.URL.Path == "/v1/events" && i.good(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), i.issued):
		i.read++
		fmt.Fprint(w, `{"items": []}`)
	case r.URL.Path == "/v1/events":
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"code": "unauthenticated", "detail": "the token is good no more"}`)
	case r.URL.Path == "/oauth2/token" && id == "an-id" && secret == "a-secret" && r.FormValue("grant_type") == "client_credentials":
		i.issued++
		fmt.Fprintf(w, `{"access_token": "token-%d/%s", "token_type": "Bearer", "expires_in": %d}`, i.issued, r.FormValue("scope"), i.lifetime)
	default:
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"error": "invalid_client", "error_description": "there is no such client"}`)
	}
}

func (i *issuer) want(t *testing.T, what string, issued, read int) {
	t.Helper()
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.issued != issued || i.read != read {
		t.Errorf("%s: %d tokens were issued, %d pages read, want %d and %d", what, i.issued, i.read, issued, read)
	}
}

func newIssuer(t *testing.T, lifetime int, good func(bearer string, last int) bool) (*issuer, *subscription.Feed) {
	t.Helper()
	i := &issuer{lifetime: lifetime, good: good}
	server := httptest.NewServer(i)
	t.Cleanup(server.Close)
	return i, &subscription.Feed{URL: server.URL, Client: &subscription.ClientCredentials{ID: "an-id", Secret: "a-secret"}}
}

func isLast(bearer string, last int) bool { return bearer == fmt.Sprintf("token-%d/", last) }

func TestFeedKeepsItsToken(t *testing.T) {
	t.Parallel()
	i, f := newIssuer(t, 1800, isLast)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, err := f.ReadAll(t.Context(), 0, 10); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	i.want(t, "8 readers", 1, 8)
	// As when the signing keys were replaced after a leak: what was issued is refused, and the next token is good.
	f.Client.Refused("another token")
	i.mu.Lock()
	i.issued++
	i.mu.Unlock()
	if _, err := f.ReadAll(t.Context(), 0, 10); err != nil {
		t.Error(err)
	}
	i.want(t, "a token that is refused", 3, 9)
}

func TestFeedRenewsItsToken(t *testing.T) {
	t.Parallel()
	i, f := newIssuer(t, 1, isLast)
	devstack.Eventually(t, "another token is fetched before the first one expires", func() bool {
		if _, err := f.ReadAll(t.Context(), 0, 10); err != nil {
			t.Fatal(err)
		}
		i.mu.Lock()
		defer i.mu.Unlock()
		return i.issued > 1
	})
}

func TestFeedIsRefused(t *testing.T) {
	t.Parallel()
	i, f := newIssuer(t, 1800, func(string, int) bool { return false })
	if _, err := f.ReadAll(t.Context(), 0, 10); err == nil || !strings.Contains(err.Error(), "answer 401 unauthenticated") {
		t.Errorf("ReadAll() = %v, want it refused", err)
	}
	i.want(t, "refused for ever", 2, 0)

	f.Client = &subscription.ClientCredentials{ID: "an-id", Secret: "wrong"}
	_, err := f.ReadAll(t.Context(), 0, 10)
	if refused := (*oauth2.RetrieveError)(nil); !errors.As(err, &refused) || refused.ErrorCode != "invalid_client" || strings.Contains(err.Error(), "wrong") {
		t.Errorf("ReadAll() = %v, want invalid_client", err)
	}
	i.want(t, "a wrong secret", 2, 0)
	if _, err := (&subscription.Feed{URL: f.URL}).ReadAll(t.Context(), 0, 1); err == nil || !strings.Contains(err.Error(), "no Client, no Key and no Token") {
		t.Errorf("ReadAll() = %v", err)
	}
}

func TestFeedWithAKey(t *testing.T) {
	t.Parallel()
	i, f := newIssuer(t, 1800, func(bearer string, _ int) bool { return bearer == "usher_sk_a" })
	f.Client, f.Key = nil, "usher_sk_a"
	if _, err := f.ReadAll(t.Context(), 0, 10); err != nil {
		t.Error(err)
	}
	f.Key = "usher_sk_b"
	if _, err := f.ReadAll(t.Context(), 0, 10); err == nil {
		t.Error("another key is good")
	}
	i.want(t, "keys", 0, 1)
}

func TestClientCredentialsForOthers(t *testing.T) {
	t.Parallel()
	_, f := newIssuer(t, 1800, isLast)
	c := &subscription.ClientCredentials{ID: "an-id", Secret: "a-secret", TokenURL: f.URL + "/oauth2/token", Scopes: []string{"users:read", "events:read"}, HTTP: &http.Client{Timeout: time.Minute}}
	if got, err := c.Token(t.Context()); err != nil || got != "token-1/users:read events:read" {
		t.Errorf("Token() = %q, %v", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c.Refused("token-1/users:read events:read")
	if _, err := c.Token(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Token() = %v, want %v", err, context.Canceled)
	}
	var logged strings.Builder
	slog.New(slog.NewTextHandler(&logged, nil)).Info("client", "secret", c.Secret, "feed", fmt.Sprintf("%v %+v %#v %s", c.Secret, f, f, subscription.Secret("a-secret")))
	if strings.Contains(logged.String(), "a-secret") {
		t.Errorf("the secret is shown: %s", logged.String())
	}
}
