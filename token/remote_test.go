package token_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"usher.example/token"
)

// publisher serves the JWKS document of a ring. Without a network in between, so that time can be a test's own.
type publisher struct {
	keys *token.KeyRing

	mu     sync.Mutex
	fails  func(http.ResponseWriter) // instead, if set
	asked  []time.Time
	status []int
}

// fail has the document answered otherwise from now on; nil as it should be.
func (p *publisher) fail(fails func(http.ResponseWriter)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fails = fails
}

func (p *publisher) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	fails := p.fails
	p.mu.Unlock()
	if fails != nil {
		fails(w)
		return
	}
	tag := `"` + p.keys.Keys()[0].ID() + `"`
	w.Header().Set("Cache-Control", "public, max-age=300")
	w.Header().Set("ETag", tag)
	if r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	_, _ = w.Write(p.keys.JWKS())
}

// RoundTrip implements http.RoundTripper.
func (p *publisher) RoundTrip(r *http.Request) (*http.Response, error) {
	answer := httptest.NewRecorder()
	p.ServeHTTP(answer, r)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked, p.status = append(p.asked, time.Now()), append(p.status, answer.Code)
	return answer.Result(), nil
}

func (p *publisher) remote() *token.RemoteKeys {
	return &token.RemoteKeys{URL: "https://id.example/keys", Keys: new(token.KeyRing), Client: &http.Client{Transport: p},
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}
}

func ring(t testing.TB, keys ...token.Key) *token.KeyRing {
	t.Helper()
	r, err := token.NewKeyRing(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func ids(r *token.KeyRing) (ids []string) {
	for _, k := range r.Keys() {
		ids = append(ids, k.ID())
	}
	return ids
}

// The document is fetched when it may no longer be kept, and after failures less and less often; the keys stay meanwhile.
func TestRemoteKeysRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		first, second := generate(t, token.ES256), generate(t, token.EdDSA)
		p := &publisher{keys: ring(t, first)}
		r := p.remote()
		begin := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		synctest.Wait()
		if !slices.Equal(ids(r.Keys), []string{first.ID()}) {
			t.Errorf("keys = %v, want the issuer's", r.Keys.Keys())
		}
		if err := p.keys.Set(second, first); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5*time.Minute + time.Second)
		synctest.Wait()
		if !slices.Equal(ids(r.Keys), []string{second.ID(), first.ID()}) {
			t.Errorf("keys = %v, want both", r.Keys.Keys())
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		p.fail(func(w http.ResponseWriter) { w.WriteHeader(http.StatusBadGateway) })
		time.Sleep(8 * time.Minute)
		synctest.Wait()
		if len(r.Keys.Keys()) != 2 || r.Age() < 7*time.Minute {
			t.Errorf("keys = %v after failures, of %v ago", r.Keys.Keys(), r.Age())
		}
		p.fail(nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		if r.Age() > time.Minute {
			t.Errorf("the keys are of %v ago", r.Age())
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run = %v", err)
		}
		var seconds []int
		for _, at := range p.asked {
			seconds = append(seconds, int(at.Sub(begin)/time.Second))
		}
		want := []int{0, 300, 600, 900, 901, 903, 907, 915, 931, 963, 1023, 1083}
		if !slices.Equal(seconds, want) {
			t.Errorf("fetched at seconds %v, want %v", seconds, want)
		}
		if !slices.Equal(p.status[:3], []int{200, 200, 304}) {
			t.Errorf("answers %v, want the third to be that nothing changed", p.status)
		}
	})
}

// A token of a key that is not known has the document fetched, but a flood of such tokens does not.
func TestRemoteKeysMissing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		old, now := setup(t, token.ES256), setup(t, token.ES256)
		p := &publisher{keys: ring(t, old.key)}
		r := p.remote()
		if _, err := r.Fetch(t.Context()); err != nil {
			t.Fatal(err)
		}
		v, err := token.NewVerifier(token.VerifierConfig{Keys: r.Keys, Issuer: issuerName, Audience: audience, Now: old.clock.read, Missing: r.Missing})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.keys.Set(now.key, old.key); err != nil {
			t.Fatal(err)
		}
		for _, raw := range []string{issue(t, now), issue(t, old)} {
			if _, err := v.Verify(raw); err != nil {
				t.Errorf("Verify = %v", err)
			}
		}
		foreign := issue(t, setup(t, token.ES256))
		for range 100 {
			if _, err := v.Verify(foreign); !errors.Is(err, token.ErrUnknownKey) {
				t.Errorf("Verify(foreign) = %v, want %v", err, token.ErrUnknownKey)
			}
		}
		if len(p.asked) != 2 {
			t.Errorf("fetched %d times, want twice", len(p.asked))
		}
		time.Sleep(10 * time.Second)
		_, _ = v.Verify(foreign)
		if len(p.asked) != 3 {
			t.Errorf("fetched %d times after a while, want three times", len(p.asked))
		}
	})
}

// What is no good document changes nothing, and neither does an issuer that sends its clients elsewhere.
func TestRemoteKeysRefuses(t *testing.T) {
	t.Parallel()
	key := generate(t, token.ES256)
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(ring(t, generate(t, token.ES256)).JWKS())
	}))
	t.Cleanup(elsewhere.Close)
	p := &publisher{keys: ring(t, key)}
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	r := &token.RemoteKeys{URL: server.URL, Keys: new(token.KeyRing)}
	if _, err := r.Fetch(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, fails := range map[string]func(http.ResponseWriter){
		"no JSON":    func(w http.ResponseWriter) { _, _ = w.Write([]byte("<html>")) },
		"too large":  func(w http.ResponseWriter) { _, _ = w.Write([]byte(`{"keys":[]}` + strings.Repeat(" ", 1<<20))) },
		"no content": func(w http.ResponseWriter) { w.WriteHeader(http.StatusNoContent) },
		"an error":   func(w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError) },
		"key twice": func(w http.ResponseWriter) {
			one := strings.TrimSuffix(strings.TrimPrefix(string(p.keys.JWKS()), `{"keys":[`), "]}")
			_, _ = w.Write([]byte(`{"keys":[` + one + "," + one + "]}"))
		},
		"redirect": func(w http.ResponseWriter) {
			w.Header().Set("Location", elsewhere.URL)
			w.WriteHeader(http.StatusFound)
		},
	} {
		p.fail(fails)
		if _, err := r.Fetch(t.Context()); err == nil {
			t.Errorf("%s: Fetch succeeds", name)
		}
		if !slices.Equal(ids(r.Keys), []string{key.ID()}) {
			t.Fatalf("%s: keys = %v, want those before", name, r.Keys.Keys())
		}
	}
}

// How long a document is kept is the issuer's to say, within bounds.
func TestRemoteKeysKeep(t *testing.T) {
	t.Parallel()
	p := &publisher{keys: ring(t, generate(t, token.ES256))}
	r := p.remote()
	for header, want := range map[string]time.Duration{
		"":                            5 * time.Minute,
		"no-store":                    5 * time.Minute,
		"public, max-age=600":         10 * time.Minute,
		"MAX-AGE=60,public":           time.Minute,
		"max-age=0":                   30 * time.Second,
		"max-age=99999999":            time.Hour,
		"max-age=-1":                  5 * time.Minute,
		"max-age=9999999999999999999": 5 * time.Minute,
	} {
		p.fail(func(w http.ResponseWriter) {
			w.Header().Set("Cache-Control", header)
			_, _ = w.Write(p.keys.JWKS())
		})
		if keep, err := r.Fetch(t.Context()); err != nil || keep != want {
			t.Errorf("%q: kept for %v, %v, want %v", header, keep, err, want)
		}
	}
}
