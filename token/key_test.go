package token_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"usher.example/token"
)

func TestPrivateKeyRoundTrip(t *testing.T) {
	t.Parallel()
	for _, algorithm := range algorithms {
		key := generate(t, algorithm)
		data, err := key.MarshalPrivate()
		if err != nil {
			t.Fatal(err)
		}
		again, err := token.ParsePrivate(algorithm, data, key.Created())
		if err != nil {
			t.Fatal(err)
		}
		if again.ID() != key.ID() || again.Algorithm() != algorithm || !again.Created().Equal(epoch) || !again.CanSign() {
			t.Errorf("ParsePrivate = %v created %v, want %v created %v", again, again.Created(), key, epoch)
		}
		for _, other := range algorithms {
			if other == algorithm || other == token.HS256 { // any bytes can be an HS256 secret
				continue
			}
			if _, err := token.ParsePrivate(other, data, epoch); !errors.Is(err, token.ErrKey) {
				t.Errorf("ParsePrivate(%s key as %s) = %v, want %v", algorithm, other, err, token.ErrKey)
			}
		}
	}
}

func TestWeakAndForeignKeysAreRefused(t *testing.T) {
	t.Parallel()
	pkcs8 := func(key any, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		data, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	for name, test := range map[string]struct {
		algorithm token.Algorithm
		data      []byte
	}{
		"short secret":      {token.HS256, make([]byte, token.MinSecretBytes-1)},
		"no secret":         {token.HS256, nil},
		"RSA of 1024 bits":  {token.RS256, pkcs8(rsa.GenerateKey(rand.Reader, 1024))},
		"curve P-384":       {token.ES256, pkcs8(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))},
		"not DER":           {token.ES256, []byte("hunter2 hunter2 hunter2 hunter2 hunter2")},
		"unknown algorithm": {"ES512", pkcs8(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))},
		"none":              {"none", make([]byte, 64)},
	} {
		_, err := token.ParsePrivate(test.algorithm, test.data, epoch)
		if !errors.Is(err, token.ErrKey) {
			t.Errorf("%s: ParsePrivate = %v, want %v", name, err, token.ErrKey)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error shows the key", name)
		}
	}
	if _, err := token.GenerateKey("none", epoch); !errors.Is(err, token.ErrKey) {
		t.Errorf("GenerateKey(none) = %v, want %v", err, token.ErrKey)
	}
}

func TestKeyHidesItsSecret(t *testing.T) {
	t.Parallel()
	for _, algorithm := range algorithms {
		key := generate(t, algorithm)
		secret, err := key.MarshalPrivate()
		if err != nil {
			t.Fatal(err)
		}
		var logged bytes.Buffer
		holder := struct{ key token.Key }{key}
		slog.New(slog.NewJSONHandler(&logged, nil)).Info("key", "key", key, "pointer", &key, "holder", holder)
		slog.New(slog.NewTextHandler(&logged, nil)).Info("key", "key", key, "pointer", &key, "holder", holder)
		fmt.Fprintf(&logged, "%v %+v %#v %s %q %x %d %v %+v %#v", key, key, key, key, key, key, key, &key, holder, holder)
		for _, form := range []string{
			string(secret), fmt.Sprint(secret), strings.Trim(fmt.Sprint(secret[len(secret)-16:]), "[]"), hex.EncodeToString(secret[len(secret)-16:]),
			base64.StdEncoding.EncodeToString(secret), fmt.Sprintf("%#v", secret[len(secret)-16:])[7:40],
		} {
			if strings.Contains(logged.String(), form) {
				t.Errorf("%s: the secret is shown: %s", algorithm, logged.String())
			}
		}
		if !strings.Contains(logged.String(), key.ID()) {
			t.Errorf("%s: the key id is not shown", algorithm)
		}
	}
}

// The document and the thumbprint of RFC 7638, section 3.1, and RFC 8037, appendix A.3.
func TestThumbprintOfTheStandards(t *testing.T) {
	t.Parallel()
	for want, document := range map[string]string{
		"NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs": `{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256","kid":"2011-04-29"}`,
		"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k": `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"2011-04-29"}`,
	} {
		keys, err := token.ParseJWKS([]byte(`{"keys":[` + document + `]}`))
		if err != nil || len(keys) != 1 {
			t.Fatalf("ParseJWKS = %v, %v", keys, err)
		}
		if keys[0].ID() != "2011-04-29" {
			t.Errorf("ID = %q, want that of the document", keys[0].ID())
		}
		if got := keys[0].Thumbprint(); got != want {
			t.Errorf("Thumbprint = %q, want %q", got, want)
		}
	}
}

func TestJWKSHoldsPublicKeysOnly(t *testing.T) {
	t.Parallel()
	var keys []token.Key
	for _, algorithm := range algorithms {
		keys = append(keys, generate(t, algorithm))
	}
	ring, err := token.NewKeyRing(keys...)
	if err != nil {
		t.Fatal(err)
	}
	var document struct{ Keys []map[string]string }
	if err := json.Unmarshal(ring.JWKS(), &document); err != nil {
		t.Fatal(err)
	}
	var members [][]string
	for _, k := range document.Keys {
		members = append(members, []string{k["kty"], k["alg"], k["kid"], k["use"]})
		for _, secret := range []string{"d", "p", "q", "dp", "dq", "qi", "k"} {
			if _, there := k[secret]; there {
				t.Errorf("member %q is in the document", secret)
			}
		}
	}
	want := [][]string{
		{"EC", "ES256", keys[1].ID(), "sig"},
		{"OKP", "EdDSA", keys[2].ID(), "sig"},
		{"RSA", "RS256", keys[3].ID(), "sig"},
	}
	if diff := cmp.Diff(want, members); diff != "" {
		t.Errorf("JWKS (-want +got):\n%s", diff)
	}
	if got := string(new(token.KeyRing).JWKS()); got != `{"keys":[]}` {
		t.Errorf("JWKS of an empty ring = %s", got)
	}
}

func TestParseJWKSPassesOverWhatItCannotUse(t *testing.T) {
	t.Parallel()
	good := `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"good"}`
	for name, key := range map[string]string{
		"secret":          `{"kty":"oct","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","kid":"a","alg":"HS256"}`,
		"no kid":          `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`,
		"for encryption":  `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"a","use":"enc"}`,
		"other algorithm": `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"a","alg":"HS256"}`,
		"short":           `{"kty":"OKP","crv":"Ed25519","x":"AAAA","kid":"a"}`,
		"not on curve":    `{"kty":"EC","crv":"P-256","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","y":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","kid":"a"}`,
		"small RSA":       `{"kty":"RSA","n":"AQAB","e":"AQAB","kid":"a"}`,
		"exponent one":    `{"kty":"RSA","n":"` + strings.Repeat("_", 342) + `","e":"AQ","kid":"a"}`,
		"not an object":   `7`,
	} {
		keys, err := token.ParseJWKS([]byte(`{"keys":[` + key + `,` + good + `]}`))
		if err != nil || len(keys) != 1 || keys[0].ID() != "good" {
			t.Errorf("%s: ParseJWKS = %v, %v", name, keys, err)
		}
	}
	for _, document := range []string{"", "{}", "[]", `{"keys":7}`, `{"keys":[]}` + strings.Repeat(" ", 1<<20)} {
		if _, err := token.ParseJWKS([]byte(document)); !errors.Is(err, token.ErrKey) {
			t.Errorf("ParseJWKS(%.20q) = %v, want %v", document, err, token.ErrKey)
		}
	}
}

func FuzzParseJWKS(f *testing.F) {
	for _, algorithm := range algorithms {
		f.Add(setup(f, algorithm).keys.JWKS())
	}
	f.Fuzz(func(t *testing.T, document []byte) {
		keys, err := token.ParseJWKS(document)
		if err != nil && !errors.Is(err, token.ErrKey) {
			t.Errorf("ParseJWKS = %v, which is not ErrKey", err)
		}
		for _, k := range keys {
			if k.CanSign() || k.ID() == "" || k.Algorithm() == token.HS256 {
				t.Errorf("ParseJWKS made %v", k)
			}
		}
	})
}

func TestSetRefusesAndKeepsTheRing(t *testing.T) {
	t.Parallel()
	p := setup(t, token.ES256)
	for name, keys := range map[string][]token.Key{"twice": {p.key, p.key}, "zero": {{}}} {
		if err := p.keys.Set(keys...); !errors.Is(err, token.ErrKey) {
			t.Errorf("%s: Set = %v, want %v", name, err, token.ErrKey)
		}
	}
	if _, err := p.verifier.Verify(issue(t, p)); err != nil {
		t.Errorf("Verify = %v, want nil", err)
	}
}

func TestRingIsReplacedUnderLoad(t *testing.T) {
	t.Parallel()
	p := setup(t, token.EdDSA)
	next := generate(t, token.HS256)
	raw := issue(t, p)
	done := make(chan struct{})
	var users sync.WaitGroup
	for range 4 {
		users.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if _, err := p.verifier.Verify(raw); err != nil {
					t.Errorf("Verify = %v, want nil", err)
				}
				fresh, _, err := p.issuer.Issue(token.Grant{Subject: "user-2"})
				if err != nil {
					t.Errorf("Issue = %v, want nil", err)
				} else if _, err := p.verifier.Verify(fresh); err != nil {
					t.Errorf("Verify(fresh) = %v, want nil", err)
				}
				_ = p.keys.JWKS()
			}
		})
	}
	for i := range 200 {
		keys := []token.Key{p.key, next}
		if i%2 == 0 {
			keys = []token.Key{next, p.key}
		}
		if err := p.keys.Set(keys...); err != nil {
			t.Error(err)
		}
	}
	close(done)
	users.Wait()
}

func TestIssue(t *testing.T) {
	t.Parallel()
	ring, err := token.NewKeyRing(generate(t, token.ES256))
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := token.NewIssuer(token.IssuerConfig{
		Keys: ring, Issuer: issuerName, Audience: []string{audience}, Lifetime: 30 * time.Minute,
		Now:    func() time.Time { return epoch.Add(123 * time.Millisecond) },
		Random: bytes.NewReader(bytes.Repeat([]byte{0xff}, 16*3)),
	})
	if err != nil {
		t.Fatal(err)
	}
	raw, claims, err := issuer.Issue(token.Grant{Subject: "user-1", Session: "session-1", Roles: []string{"admin"}})
	if err != nil {
		t.Fatal(err)
	}
	want := token.Claims{
		Issuer: issuerName, Subject: "user-1", Audience: []string{audience}, ID: "019ca945-0a7b-7fff-bfff-ffffffffffff", Client: token.LoginClient, Session: "session-1",
		IssuedAt: epoch, NotBefore: epoch, ExpiresAt: epoch.Add(30 * time.Minute), Roles: []string{"admin"},
	}
	if diff := cmp.Diff(want, claims); diff != "" {
		t.Errorf("claims (-want +got):\n%s", diff)
	}
	parts := strings.Split(raw, ".")
	for i, want := range []string{
		fmt.Sprintf(`{"alg":"ES256","typ":"at+jwt","kid":"%s"}`, ring.Keys()[0].ID()),
		`{"iss":"https://id.example","sub":"user-1","aud":"https://api.example","exp":1772368200,"nbf":1772366400,"iat":1772366400,"jti":"019ca945-0a7b-7fff-bfff-ffffffffffff","client_id":"usher","sid":"session-1","roles":["admin"]}`,
	} {
		got, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil || string(got) != want {
			t.Errorf("part %d = %s, %v, want %s", i, got, err, want)
		}
	}

	if _, _, err := issuer.Issue(token.Grant{}); !errors.Is(err, token.ErrMalformed) {
		t.Errorf("Issue without subject = %v, want %v", err, token.ErrMalformed)
	}
	if _, _, err := issuer.Issue(token.Grant{Subject: "user-1", Roles: []string{strings.Repeat("x", token.MaxBytes)}}); !errors.Is(err, token.ErrTooLarge) {
		t.Errorf("Issue with too many roles = %v, want %v", err, token.ErrTooLarge)
	}
	public, err := token.ParseJWKS(ring.JWKS())
	if err != nil {
		t.Fatal(err)
	}
	if err := ring.Set(public...); err != nil {
		t.Fatal(err)
	}
	if _, _, err := issuer.Issue(token.Grant{Subject: "user-1"}); !errors.Is(err, token.ErrNoSigningKey) {
		t.Errorf("Issue without a private key = %v, want %v", err, token.ErrNoSigningKey)
	}
	if _, err := public[0].MarshalPrivate(); !errors.Is(err, token.ErrNoSigningKey) {
		t.Errorf("MarshalPrivate of a public key = %v, want %v", err, token.ErrNoSigningKey)
	}
}
