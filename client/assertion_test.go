package client

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity"
	"usher.example/internal/devstack"
)

const audience = "https://usher.test"

// signer is a key of a client.
type signer struct {
	kid     string
	method  jwt.SigningMethod
	private any
	jwk     map[string]string
}

var encode64 = base64.RawURLEncoding.EncodeToString

func newSigner(t *testing.T, kid string, method jwt.SigningMethod) signer {
	t.Helper()
	s := signer{kid: kid, method: method}
	switch method.(type) {
	case *jwt.SigningMethodECDSA:
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		point, err := key.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		s.private, s.jwk = key, map[string]string{"kty": "EC", "crv": "P-256", "x": encode64(point[1:33]), "y": encode64(point[33:])}
	case *jwt.SigningMethodEd25519:
		public, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		s.private, s.jwk = key, map[string]string{"kty": "OKP", "crv": "Ed25519", "x": encode64(public)}
	default:
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		s.private, s.jwk = key, map[string]string{"kty": "RSA", "n": encode64(key.N.Bytes()), "e": encode64(big.NewInt(int64(key.E)).Bytes())}
	}
	if kid != "" {
		s.jwk["kid"] = kid
	}
	return s
}

func keySetOf(signers ...signer) json.RawMessage {
	var keys []map[string]string
	for _, s := range signers {
		keys = append(keys, s.jwk)
	}
	return encode(map[string]any{"keys": keys})
}

// claims of an assertion that is good.
func claimsOf(id uuid.UUID, now time.Time) jwt.MapClaims {
	return jwt.MapClaims{"iss": id.String(), "sub": id.String(), "aud": audience, "exp": now.Add(time.Minute).Unix(), "iat": now.Unix(), "jti": uuid.NewString()}
}

func (s signer) sign(t *testing.T, claims jwt.MapClaims) string {
	t.Helper()
	token := jwt.NewWithClaims(s.method, claims)
	if s.kid != "" {
		token.Header["kid"] = s.kid
	}
	raw, err := token.SignedString(s.private)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func (r *Registry) addSigning(t *testing.T, s identity.ClientSettings) Client {
	t.Helper()
	c, secret, _, err := r.Add(t.Context(), s, uuid.Nil, eventstore.Metadata{Correlation: uuid.New(), Actor: identity.ActorOperator})
	if err != nil || secret != "" {
		t.Fatalf("add: secret %q, %v", string(secret), err)
	}
	return c
}

// wantRefused fails unless an assertion is refused for what is wrong with it.
func (r *Registry) wantRefused(t *testing.T, what, assertion, detail string) {
	t.Helper()
	_, err := r.AuthenticateSigned(t.Context(), assertion, []string{audience})
	var refusal *identity.Error
	if !errors.As(err, &refusal) || !errors.Is(err, ErrUnknown) || refusal.Code != identity.CodeUnauthenticated || !strings.Contains(refusal.Detail, detail) {
		t.Errorf("%s: %v, want refused: %s", what, err, detail)
	}
}

func TestAssertions(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, r *Registry) {
		another := New(r.config) // of another process
		ec, bare := newSigner(t, "ec", jwt.SigningMethodES256), newSigner(t, "", jwt.SigningMethodEdDSA)
		rs, ps := newSigner(t, "rs", jwt.SigningMethodRS256), newSigner(t, "ps", jwt.SigningMethodPS256)
		only := newSigner(t, "only", jwt.SigningMethodRS256)
		only.jwk["alg"] = "PS256"
		c := r.addSigning(t, identity.ClientSettings{Name: "signing", JWKS: keySetOf(ec, bare, rs, ps, only)})
		other := newSigner(t, "other", jwt.SigningMethodES256)
		r.addSigning(t, identity.ClientSettings{Name: "other", JWKS: keySetOf(other)})
		now := time.Now()

		newer := bare
		newer.method = newerEdDSA{jwt.SigningMethodEdDSA}
		for _, s := range []signer{ec, bare, newer, rs, ps} {
			assertion := s.sign(t, claimsOf(c.ID, now))
			if got, err := r.AuthenticateSigned(t.Context(), assertion, []string{audience}); err != nil || got.ID != c.ID {
				t.Errorf("%s: %v, %v", s.method.Alg(), got.Name, err)
			}
			r.wantRefused(t, "again", assertion, "used before")
			another.wantRefused(t, "again in another process", assertion, "used before")
		}
		for _, audiences := range []any{"https://usher.test/oauth2/token", []string{audience, "https://usher.test/oauth2/token"}} {
			claims := claimsOf(c.ID, now)
			claims["aud"] = audiences
			if _, err := r.AuthenticateSigned(t.Context(), ec.sign(t, claims), []string{audience, "https://usher.test/oauth2/token"}); err != nil {
				t.Errorf("for %v: %v", audiences, err)
			}
		}

		for what, one := range map[string]struct {
			name   string
			value  any
			detail string
		}{
			"expired":              {"exp", now.Add(-time.Minute).Unix(), "expired"},
			"too far ahead":        {"exp", now.Add(time.Hour).Unix(), "ahead"},
			"of a far time":        {"exp", 1e300, ""},
			"for ever":             {"exp", nil, "no exp"},
			"not yet":              {"nbf", now.Add(time.Hour).Unix(), "later than now"},
			"from the future":      {"iat", now.Add(time.Hour).Unix(), "later than now"},
			"for others":           {"aud", "https://other.example", "aud"},
			"for others too":       {"aud", []string{audience, "https://other.example"}, "aud"},
			"for nobody":           {"aud", nil, "aud"},
			"without jti":          {"jti", nil, "jti"},
			"by another iss":       {"iss", "https://other.example", "iss or sub"},
			"without iss":          {"iss", nil, "iss or sub"},
			"of another sub":       {"sub", uuid.NewString(), "iss or sub"},
			"of the id in capital": {"sub", strings.ToUpper(c.ID.String()), "iss or sub"},
		} {
			claims := claimsOf(c.ID, now)
			if claims[one.name] = one.value; one.value == nil {
				delete(claims, one.name)
			}
			r.wantRefused(t, what, ec.sign(t, claims), one.detail)
		}
		r.wantRefused(t, "of nobody", ec.sign(t, claimsOf(uuid.New(), now)), "no client that signs")
		r.wantRefused(t, "by a key of another client", other.sign(t, claimsOf(c.ID, now)), "kid")
		forged := other
		forged.kid = "ec"
		r.wantRefused(t, "by another key under the kid", forged.sign(t, claimsOf(c.ID, now)), "another key")
		r.wantRefused(t, "by another algorithm than that of the key", only.sign(t, claimsOf(c.ID, now)), "RS256")
		mixed := rs
		mixed.kid = "ec"
		r.wantRefused(t, "by an algorithm of another kind of key", mixed.sign(t, claimsOf(c.ID, now)), "RS256")
		none := signer{kid: "ec", method: jwt.SigningMethodNone, private: jwt.UnsafeAllowNoneSignatureType}
		r.wantRefused(t, "alg none", none.sign(t, claimsOf(c.ID, now)), "by none of")
		for _, secret := range [][]byte{encode(ec.jwk), []byte(ec.jwk["x"]), c.JWKS} {
			symmetric := signer{kid: "ec", method: jwt.SigningMethodHS256, private: secret}
			r.wantRefused(t, "HS256 with what is public", symmetric.sign(t, claimsOf(c.ID, now)), "by none of")
		}
		critical := jwt.NewWithClaims(ec.method, claimsOf(c.ID, now))
		critical.Header["kid"], critical.Header["crit"] = "ec", []string{"exp"}
		raw, err := critical.SignedString(ec.private)
		if err != nil {
			t.Fatal(err)
		}
		r.wantRefused(t, "with crit", raw, "crit")
		for _, rubbish := range []string{"", "x", "a.b.c", strings.Repeat("x", 9000)} {
			r.wantRefused(t, "rubbish", rubbish, "client_assertion")
		}

		secretive, _, _, err := r.Add(t.Context(), identity.ClientSettings{Name: "secretive"}, uuid.Nil, eventstore.Metadata{Correlation: uuid.New(), Actor: identity.ActorOperator})
		if err != nil {
			t.Fatal(err)
		}
		r.wantRefused(t, "of a client with a secret", ec.sign(t, claimsOf(secretive.ID, now)), "no client that signs")
		if _, err := r.Authenticate(t.Context(), c.ID.String(), ""); !errors.Is(err, ErrUnknown) {
			t.Errorf("a client that signs, by an empty secret: %v", err)
		}

		// What is expired is forgotten, and only that.
		count := func(at *Registry) (n int) {
			t.Helper()
			if err := at.forgetAssertions(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := at.config.DB.QueryRow(t.Context(), `SELECT count(*) FROM client_assertions`).Scan(&n); err != nil {
				t.Fatal(err)
			}
			return n
		}
		if n := count(r); n != 7 {
			t.Errorf("%d assertions are remembered, want 7", n)
		}
		later := r.config
		later.Now = func() time.Time { return now.Add(time.Minute + leeway + clocksApart + time.Second) }
		if n := count(New(later)); n != 0 {
			t.Errorf("%d assertions are remembered after they expired", n)
		}
	})
}

// Of many who send one assertion at once, one is let in.
func TestAssertionOnceAtOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, r *Registry) {
		ec := newSigner(t, "ec", jwt.SigningMethodES256)
		c := r.addSigning(t, identity.ClientSettings{Name: "signing", JWKS: keySetOf(ec)})
		assertion := ec.sign(t, claimsOf(c.ID, time.Now()))
		var in atomic.Int32
		var all sync.WaitGroup
		for range 8 {
			process := New(r.config)
			all.Go(func() {
				switch _, err := process.AuthenticateSigned(t.Context(), assertion, []string{audience}); {
				case err == nil:
					in.Add(1)
				case !errors.Is(err, ErrUnknown):
					t.Error(err)
				}
			})
		}
		all.Wait()
		if in.Load() != 1 {
			t.Errorf("%d were let in, want 1", in.Load())
		}
	})
}

// publisher publishes the keys of a client.
type publisher struct {
	mu       sync.Mutex
	document string
	status   int
	fetches  int
	hold     chan struct{} // a fetch waits until it is closed
}

func (p *publisher) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	p.fetches++
	document, status, hold := p.document, p.status, p.hold
	p.mu.Unlock()
	if hold != nil {
		<-hold
	}
	w.Header().Set("Cache-Control", "public, max-age=600")
	w.Header().Set("Location", "/elsewhere")
	w.WriteHeader(status)
	fmt.Fprint(w, document)
}

func (p *publisher) set(status int, document string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status, p.document = status, document
}

func (p *publisher) wantFetches(t *testing.T, what string, want int) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fetches != want {
		t.Errorf("%s: fetched %d times, want %d", what, p.fetches, want)
	}
}

func TestPublishedKeys(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, r *Registry) {
		first, second := newSigner(t, "1", jwt.SigningMethodES256), newSigner(t, "2", jwt.SigningMethodES256)
		at := &publisher{status: http.StatusOK, document: string(keySetOf(first))}
		server := httptest.NewServer(at)
		t.Cleanup(server.Close)
		now, logged := time.Now(), &devstack.Output{}
		config := r.config
		config.HTTP, config.Now, config.Logger = http.DefaultTransport, func() time.Time { return now }, logTo(logged)
		r = New(config)
		c := r.addSigning(t, identity.ClientSettings{Name: "signing", JWKSURI: server.URL + "/jwks.json"})
		in := func(what string, s signer) {
			t.Helper()
			if _, err := r.AuthenticateSigned(t.Context(), s.sign(t, claimsOf(c.ID, now)), []string{audience}); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		refused := func(what string, s signer, detail string) {
			t.Helper()
			r.wantRefused(t, what, s.sign(t, claimsOf(c.ID, now)), detail)
		}

		in("the first", first)
		in("the first again", first)
		at.wantFetches(t, "a key that is kept", 1)
		at.set(http.StatusOK, string(keySetOf(first, second)))
		refused("the second, within a minute", second, "kid")
		at.wantFetches(t, "an unknown key within a minute", 1)
		now = now.Add(fetchPause)
		in("the second, after a minute", second)
		refused("one that is not there", newSigner(t, "3", jwt.SigningMethodES256), "kid")
		at.wantFetches(t, "an unknown key after a minute", 2)

		// What is too old is fetched anew; while that fails, what there was is good on, but not for ever.
		at.set(http.StatusOK, string(keySetOf(second)))
		now = now.Add(11 * time.Minute)
		refused("a key that was withdrawn", first, "kid")
		for _, wrong := range []struct {
			status   int
			document string
			says     string
		}{
			{http.StatusNotFound, string(keySetOf(first)), "answered 404"},
			{http.StatusFound, string(keySetOf(first)), "answered 302"},
			{http.StatusOK, "<html>", "not a JWK Set"},
			{http.StatusOK, string(keySetOf(first)) + strings.Repeat(" ", maxFetched), "longer than"},
			{http.StatusOK, `{"keys":[` + strings.TrimSuffix(strings.Repeat(string(encode(first.jwk))+",", maxKeys+1), ",") + `]}`, "more than 16 keys"},
		} {
			at.set(wrong.status, wrong.document)
			now = now.Add(11 * time.Minute)
			in("while "+wrong.says, second)
			if !strings.Contains(logged.String(), wrong.says) {
				t.Errorf("%s: logged\n%s", wrong.says, logged)
			}
		}
		now = now.Add(11 * time.Minute)
		refused("after more than an hour", second, "can't be fetched")
		at.set(http.StatusOK, `{"keys":[]}`)
		now = now.Add(fetchPause)
		refused("with all keys withdrawn", second, "kid")
		if !strings.Contains(logged.String(), "no key that is of use") {
			t.Errorf("logged\n%s", logged)
		}
	})
}

// One fetch is made for all who wait for it, and goes on when the first of them goes away.
func TestPublishedKeysAreFetchedOnce(t *testing.T) {
	t.Parallel()
	k := newSigner(t, "1", jwt.SigningMethodEdDSA)
	at := &publisher{status: http.StatusOK, document: string(keySetOf(k)), hold: make(chan struct{})}
	server := httptest.NewServer(at)
	t.Cleanup(server.Close)
	sets := newKeySets(Config{HTTP: http.DefaultTransport, Logger: logTo(&devstack.Output{}), Now: time.Now})
	c := Client{ID: uuid.New(), ClientSettings: identity.ClientSettings{Name: "signing", JWKSURI: server.URL}}
	gone, leave := context.WithCancel(t.Context())
	leave()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if found, err := sets.of(gone, c, "1"); (err != nil || len(found) != 1) && !errors.Is(err, context.Canceled) {
				t.Errorf("%v, %v", found, err)
			}
		})
	}
	devstack.Eventually(t, "it is fetched", func() bool { at.mu.Lock(); defer at.mu.Unlock(); return at.fetches == 1 })
	for range 8 {
		all.Go(func() {
			if found, err := sets.of(t.Context(), c, "1"); err != nil || len(found) != 1 {
				t.Errorf("%v, %v", found, err)
			}
		})
	}
	close(at.hold)
	all.Wait()
	at.wantFetches(t, "16 callers", 1)
}

func TestKeysThatCanBeSet(t *testing.T) {
	t.Parallel()
	good := newSigner(t, "1", jwt.SigningMethodES256)
	for what, change := range map[string]func(map[string]string){
		"for encryption":   func(k map[string]string) { k["use"] = "enc" },
		"of another curve": func(k map[string]string) { k["crv"] = "P-384" },
		"for HS256":        func(k map[string]string) { k["alg"] = "HS256" },
		"private":          func(k map[string]string) { k["d"] = "AAAA" },
	} {
		bad := signer{jwk: maps.Clone(good.jwk)}
		change(bad.jwk)
		if err := check(complete(identity.ClientSettings{Name: "a", JWKS: keySetOf(bad)})); err == nil {
			t.Errorf("a key %s can be set", what)
		}
	}
	if err := check(complete(identity.ClientSettings{Name: "a", JWKS: keySetOf(good)})); err != nil {
		t.Error(err)
	}
}
