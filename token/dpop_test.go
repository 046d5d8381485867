package token_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"usher.example/token"
)

const target = "https://id.example/v1/events"

// sender has a key, and makes proofs with golang-jwt.
type sender struct {
	key    token.Key
	jwk    map[string]any // the public one
	method jwt.SigningMethod
}

func newSender(t testing.TB, algorithm token.Algorithm) sender {
	t.Helper()
	key := generate(t, algorithm)
	ring, err := token.NewKeyRing(key)
	if err != nil {
		t.Fatal(err)
	}
	var set struct{ Keys []map[string]any }
	if err := json.Unmarshal(ring.JWKS(), &set); err != nil {
		t.Fatal(err)
	}
	return sender{key, set.Keys[0], jwt.GetSigningMethod(string(algorithm))}
}

func (s sender) header(changes ...any) map[string]any {
	return with(map[string]any{"typ": "dpop+jwt", "alg": string(s.key.Algorithm()), "jwk": s.jwk}, changes...)
}

func (s sender) prove(t testing.TB, header map[string]any, changes ...any) string {
	t.Helper()
	claims := with(map[string]any{"jti": fmt.Sprint(time.Now().UnixNano(), changes), "htm": "GET", "htu": target, "iat": epoch.Unix()}, changes...)
	return forge(t, s.method, private(t, s.key), header, claims)
}

func hashOf(accessToken string) string {
	sum := sha256.Sum256([]byte(accessToken))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func TestProofs(t *testing.T) {
	t.Parallel()
	at := &clock{now: epoch}
	for _, algorithm := range token.ProofAlgorithms {
		v := token.NewProofVerifier(token.ProofConfig{Now: at.read})
		s := newSender(t, algorithm)
		for name, raw := range map[string]string{
			"a proof":                     s.prove(t, s.header()),
			"with a query and a fragment": s.prove(t, s.header(), "htu", target+"?a=b#c"),
			"in capitals, with the port":  s.prove(t, s.header(), "htu", "HTTPS://ID.example:443/v1/events"),
			"a minute old":                s.prove(t, s.header(), "iat", epoch.Add(-time.Minute).Unix()),
			"with a fraction":             s.prove(t, s.header(), "iat", float64(epoch.Unix())-0.25),
			"of a clock that is ahead":    s.prove(t, s.header(), "iat", epoch.Add(token.Leeway).Unix()),
			"with a nonce for no need":    s.prove(t, s.header(), "nonce", "x"),
		} {
			if thumbprint, err := v.Verify(raw, "GET", target, ""); err != nil || thumbprint != s.key.Thumbprint() {
				t.Errorf("%s, %s: %q, %v", algorithm, name, thumbprint, err)
			}
			if _, err := v.Verify(raw, "GET", target, ""); !errors.Is(err, token.ErrProof) {
				t.Errorf("%s, %s, again: %v", algorithm, name, err)
			}
		}
		raw := s.prove(t, s.header(), "ath", hashOf("token"))
		if _, err := v.Verify(raw, "GET", target, "another"); !errors.Is(err, token.ErrProof) {
			t.Errorf("%s, with another token: %v", algorithm, err)
		}
		if _, err := v.Verify(raw, "GET", target, "token"); err != nil {
			t.Errorf("%s, with its token: %v", algorithm, err)
		}
	}
}

func TestProofsThatAreNone(t *testing.T) {
	t.Parallel()
	v := token.NewProofVerifier(token.ProofConfig{Now: (&clock{now: epoch}).read})
	s, other := newSender(t, token.ES256), newSender(t, token.ES256)
	private := map[string]any{"d": "AAAA"}
	for name, value := range s.jwk {
		private[name] = value
	}
	shared := base64.RawURLEncoding.EncodeToString(make([]byte, 32))
	good := s.prove(t, s.header())
	for name, raw := range map[string]string{
		"nothing":                    "",
		"half":                       good[:len(good)/2],
		"two":                        good + "," + good,
		"another signature":          good[:strings.LastIndexByte(good, '.')] + s.prove(t, s.header())[strings.LastIndexByte(good, '.'):],
		"another type":               s.prove(t, s.header("typ", "JWT")),
		"no type":                    s.prove(t, s.header("typ", nil)),
		"no key":                     s.prove(t, s.header("jwk", nil)),
		"another's key":              s.prove(t, s.header("jwk", other.jwk)),
		"a private key":              s.prove(t, s.header("jwk", private)),
		"no algorithm":               s.prove(t, s.header("alg", "none")),
		"another algorithm":          s.prove(t, s.header("alg", "RS256")),
		"a shared key":               forge(t, jwt.SigningMethodHS256, make([]byte, 32), s.header("alg", "HS256", "jwk", map[string]any{"kty": "oct", "k": shared}), map[string]any{"jti": "a", "htm": "GET", "htu": target, "iat": epoch.Unix()}),
		"something critical":         s.prove(t, s.header("crit", []string{"x"})),
		"no id":                      s.prove(t, s.header(), "jti", nil),
		"a long id":                  s.prove(t, s.header(), "jti", strings.Repeat("x", 300)),
		"no method":                  s.prove(t, s.header(), "htm", nil),
		"another method":             s.prove(t, s.header(), "htm", "POST"),
		"the method in lower case":   s.prove(t, s.header(), "htm", "get"),
		"no URI":                     s.prove(t, s.header(), "htu", nil),
		"another path":               s.prove(t, s.header(), "htu", "https://id.example/v1/users"),
		"another host":               s.prove(t, s.header(), "htu", "https://id.example.evil.example/v1/events"),
		"another scheme":             s.prove(t, s.header(), "htu", "http://id.example/v1/events"),
		"a user in the URI":          s.prove(t, s.header(), "htu", "https://id.example@evil.example/v1/events"),
		"no time":                    s.prove(t, s.header(), "iat", nil),
		"made too long ago":          s.prove(t, s.header(), "iat", epoch.Add(-61*time.Second).Unix()),
		"not made yet":               s.prove(t, s.header(), "iat", epoch.Add(time.Minute).Unix()),
		"made before there was time": s.prove(t, s.header(), "iat", -1),
		"made after all time":        s.prove(t, s.header(), "iat", 1e300),
	} {
		if thumbprint, err := v.Verify(raw, "GET", target, ""); !errors.Is(err, token.ErrProof) || thumbprint != "" {
			t.Errorf("%s: %q, %v, want %v", name, thumbprint, err, token.ErrProof)
		}
	}
	if _, err := v.Verify(good, "GET", target, ""); err != nil {
		t.Errorf("the good one: %v", err)
	}
}

// A proof is good once for as long as it is good at all, and what is kept in mind has a bound.
func TestProofsAreGoodOnce(t *testing.T) {
	t.Parallel()
	at := &clock{now: epoch}
	v := token.NewProofVerifier(token.ProofConfig{Now: at.read, Remember: 3})
	s := newSender(t, token.EdDSA)
	use := func(raw string) error {
		_, err := v.Verify(raw, "GET", target, "")
		return err
	}
	ahead := s.prove(t, s.header(), "iat", epoch.Add(token.Leeway).Unix()) // which is good for longest
	for range 3 {
		if err := use(ahead); (err == nil) != (at.now == epoch) {
			t.Errorf("at %v: %v", at.now.Sub(epoch), err)
		}
		at.now = at.now.Add(32 * time.Second)
	}
	at.now = at.now.Add(time.Hour)
	now := func() string { return s.prove(t, s.header(), "iat", at.now.Unix()) }
	for i := range 5 {
		if err := use(now()); (err == nil) != (i < 3) {
			t.Errorf("proof %d of 3 that are kept in mind: %v", i+1, err)
		}
	}
	at.now = at.now.Add(3 * time.Minute)
	if err := use(now()); err != nil {
		t.Errorf("once the others are too old: %v", err)
	}
}

// With a key for nonces a proof needs one that was given out lately, by whichever process.
func TestNonces(t *testing.T) {
	t.Parallel()
	at := &clock{now: epoch}
	config := token.ProofConfig{Now: at.read, NonceKey: []byte("of all processes")}
	v, another := token.NewProofVerifier(config), token.NewProofVerifier(config)
	s := newSender(t, token.ES256)
	if _, err := v.Verify(s.prove(t, s.header()), "GET", target, ""); !errors.Is(err, token.ErrNonce) || !errors.Is(err, token.ErrProof) {
		t.Errorf("without a nonce: %v, want %v", err, token.ErrNonce)
	}
	nonce := v.Nonce()
	for _, age := range []time.Duration{0, 30 * time.Second, 61 * time.Second} {
		at.now = epoch.Add(age)
		_, err := another.Verify(s.prove(t, s.header(), "nonce", nonce, "iat", at.now.Unix()), "GET", target, "")
		if want := age < time.Minute; (err == nil) != want || !want && !errors.Is(err, token.ErrNonce) {
			t.Errorf("%v after it was given out: %v", age, err)
		}
	}
	if other := token.NewProofVerifier(token.ProofConfig{Now: at.read, NonceKey: []byte("of others")}).Nonce(); other == v.Nonce() {
		t.Error("another key makes the same nonce")
	}
	if token.NewProofVerifier(token.ProofConfig{}).Nonce() != "" {
		t.Error("a nonce without a key")
	}
}

// A token that is bound to a key is nothing for whoever does not look at that.
func TestBoundTokens(t *testing.T) {
	t.Parallel()
	p := setup(t, token.ES256)
	raw, _, err := p.issuer.Issue(token.Grant{Subject: "user-1", Confirmation: "thumbprint"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.verifier.Verify(raw); !errors.Is(err, token.ErrBound) {
		t.Errorf("Verify = %v, want %v", err, token.ErrBound)
	}
	looks, err := token.NewVerifier(token.VerifierConfig{Keys: p.keys, Issuer: issuerName, Audience: audience, Now: p.clock.read, Bound: true})
	if err != nil {
		t.Fatal(err)
	}
	if claims, err := looks.Verify(raw); err != nil || claims.Confirmation != "thumbprint" {
		t.Errorf("Verify = %q, %v", claims.Confirmation, err)
	}
	certificate := forge(t, jwt.SigningMethodES256, private(t, p.key), goodHeader(p.key), with(goodClaims(), "cnf", map[string]any{"x5t#S256": "x"}))
	if claims, err := looks.Verify(certificate); err != nil || claims.Confirmation == "" {
		t.Errorf("a token that is bound to a certificate counts as one that is not: %v", err)
	}
}

func FuzzProofs(f *testing.F) {
	v := token.NewProofVerifier(token.ProofConfig{Now: (&clock{now: epoch}).read})
	s := newSender(f, token.ES256)
	f.Add(s.prove(f, s.header()))
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, raw string) {
		if thumbprint, err := v.Verify(raw, "GET", target, ""); (err == nil) == (thumbprint == "") {
			t.Errorf("%q, %v", thumbprint, err)
		}
	})
}
