package token_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"usher.example/token"
)

var algorithms = []token.Algorithm{token.HS256, token.ES256, token.EdDSA, token.RS256}

const (
	issuerName = "https://id.example"
	audience   = "https://api.example"
)

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// clock is a time that the test sets.
type clock struct{ now time.Time }

func (c *clock) read() time.Time { return c.now }

// party is one issuer and one verifier on one ring.
type party struct {
	clock    *clock
	key      token.Key
	keys     *token.KeyRing
	issuer   *token.Issuer
	verifier *token.Verifier
}

func setup(t testing.TB, algorithm token.Algorithm, change ...func(*token.VerifierConfig)) party {
	t.Helper()
	p := party{clock: &clock{now: epoch}, key: generate(t, algorithm)}
	var err error
	if p.keys, err = token.NewKeyRing(p.key); err != nil {
		t.Fatal(err)
	}
	p.issuer, err = token.NewIssuer(token.IssuerConfig{
		Keys: p.keys, Issuer: issuerName, Audience: []string{audience}, Lifetime: 30 * time.Minute, Now: p.clock.read,
	})
	if err != nil {
		t.Fatal(err)
	}
	config := token.VerifierConfig{Keys: p.keys, Issuer: issuerName, Audience: audience, Now: p.clock.read}
	for _, f := range change {
		f(&config)
	}
	if p.verifier, err = token.NewVerifier(config); err != nil {
		t.Fatal(err)
	}
	return p
}

func generate(t testing.TB, algorithm token.Algorithm) token.Key {
	t.Helper()
	key, err := token.GenerateKey(algorithm, epoch)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func issue(t testing.TB, p party) string {
	t.Helper()
	raw, _, err := p.issuer.Issue(token.Grant{Subject: "user-1", Session: "session-1", Roles: []string{"admin"}})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// private is the key as golang-jwt wants it.
func private(t testing.TB, key token.Key) any {
	t.Helper()
	data, err := key.MarshalPrivate()
	if err != nil {
		t.Fatal(err)
	}
	if key.Algorithm() == token.HS256 {
		return data
	}
	parsed, err := x509.ParsePKCS8PrivateKey(data)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// publicDER is what an attacker who knows the public key might use as an HMAC secret.
func publicDER(t testing.TB, key token.Key) []byte {
	t.Helper()
	var public any
	switch k := private(t, key).(type) {
	case *ecdsa.PrivateKey:
		public = k.Public()
	case ed25519.PrivateKey:
		public = k.Public()
	case *rsa.PrivateKey:
		public = k.Public()
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// forge signs any header and claims with golang-jwt, independent of the issuer.
func forge(t testing.TB, method jwt.SigningMethod, key any, header, claims map[string]any) string {
	t.Helper()
	input := segment(t, header) + "." + segment(t, claims)
	signature, err := method.Sign(input, key)
	if err != nil {
		t.Fatal(err)
	}
	return input + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func segment(t testing.TB, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString(data)
}

func goodHeader(key token.Key) map[string]any {
	return map[string]any{"alg": string(key.Algorithm()), "typ": "at+jwt", "kid": key.ID()}
}

func goodClaims() map[string]any {
	return map[string]any{
		"iss": issuerName, "sub": "user-1", "aud": audience, "jti": "0195f0a0-0000-7000-8000-000000000000", "sid": "session-1",
		"exp": epoch.Add(time.Hour).Unix(), "nbf": epoch.Unix(), "iat": epoch.Unix(), "roles": []string{"admin"},
	}
}

// with is m with some members changed; a nil value removes one.
func with(m map[string]any, pairs ...any) map[string]any {
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] == nil {
			delete(m, pairs[i].(string))
			continue
		}
		m[pairs[i].(string)] = pairs[i+1]
	}
	return m
}
