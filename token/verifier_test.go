package token_test

import (
	"encoding/base64"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"

	"usher.example/token"
)

func TestVerifyAcceptsWhatIssueIssued(t *testing.T) {
	t.Parallel()
	for _, algorithm := range algorithms {
		t.Run(string(algorithm), func(t *testing.T) {
			t.Parallel()
			p := setup(t, algorithm)
			raw, want, err := p.issuer.Issue(token.Grant{Subject: "user-1", Client: "a client", Session: "session-1", Roles: []string{"admin", "staff"}, Scopes: []string{"events:read", "users:read"}})
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // at first sight and remembered
				got, err := p.verifier.Verify(raw)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("Verify (-want +got):\n%s", diff)
				}
			}
		})
	}
}

// What is no token of the compact form is refused. What a token may be wrong in otherwise is in asvs_test.go.
func TestVerifyRefusesOtherForms(t *testing.T) {
	eachForger(t, func(t *testing.T, f forger) []refusal {
		h, c := f.header, goodClaims
		good := strings.Join(f.parts, ".")
		return []refusal{
			{"empty", "", token.ErrMalformed},
			{"one part", "abc", token.ErrMalformed},
			{"two parts", f.parts[0] + "." + f.parts[1], token.ErrMalformed},
			{"four parts", good + ".x", token.ErrMalformed},
			{"dots only", "..", token.ErrMalformed},
			{"not base64", "!!!." + f.parts[1] + "." + f.parts[2], token.ErrMalformed},
			{"padded", good + "==", token.ErrMalformed},
			{"line break in signature", f.parts[0] + "." + f.parts[1] + "." + f.parts[2][:4] + "\n" + f.parts[2][4:], token.ErrMalformed},
			{"header not JSON", encoded([]byte("{")) + "." + f.parts[1] + "." + f.parts[2], token.ErrMalformed},
			{"header an array", segment(t, []int{1}) + "." + f.parts[1] + "." + f.parts[2], token.ErrMalformed},
			{"crit", f.forged(t, with(h(), "crit", []string{"exp"}), c()), token.ErrMalformed},
			{"oversize", good + strings.Repeat("A", token.MaxBytes), token.ErrTooLarge},
			{"claims not JSON", f.forged(t, h(), nil), token.ErrMalformed},
			{"sub missing", f.forged(t, h(), with(c(), "sub", nil)), token.ErrMalformed},
			{"jti missing", f.forged(t, h(), with(c(), "jti", nil)), token.ErrMalformed},
		}
	})
}

func TestVerifyAcceptsTheVariantsOfTheStandard(t *testing.T) {
	t.Parallel()
	p := setup(t, token.EdDSA)
	own := private(t, p.key)
	for name, raw := range map[string]string{
		"full media type":       forge(t, jwt.SigningMethodEdDSA, own, with(goodHeader(p.key), "typ", "application/AT+JWT"), goodClaims()),
		"several audiences":     forge(t, jwt.SigningMethodEdDSA, own, goodHeader(p.key), with(goodClaims(), "aud", []string{"x", audience})),
		"no session, no roles":  forge(t, jwt.SigningMethodEdDSA, own, goodHeader(p.key), with(goodClaims(), "sid", nil, "roles", nil)),
		"a client":              forge(t, jwt.SigningMethodEdDSA, own, goodHeader(p.key), with(goodClaims(), "client_id", "usher")),
		"unknown claim":         forge(t, jwt.SigningMethodEdDSA, own, goodHeader(p.key), with(goodClaims(), "scope", "read")),
		"nbf within the leeway": forge(t, jwt.SigningMethodEdDSA, own, goodHeader(p.key), with(goodClaims(), "nbf", epoch.Add(token.Leeway).Unix())),
	} {
		if _, err := p.verifier.Verify(raw); err != nil {
			t.Errorf("%s: Verify = %v, want nil", name, err)
		}
	}
}

func TestVerifyEncodedSignatureOfZeroPoint(t *testing.T) {
	t.Parallel()
	p := setup(t, token.ES256)
	parts := strings.Split(issue(t, p), ".")
	order, _ := new(big.Int).SetString("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551", 16)
	signature := make([]byte, 64)
	order.FillBytes(signature[:32])
	order.FillBytes(signature[32:])
	raw := parts[0] + "." + parts[1] + "." + base64.RawURLEncoding.EncodeToString(signature)
	if _, err := p.verifier.Verify(raw); !errors.Is(err, token.ErrSignature) {
		t.Errorf("Verify(r = s = order) = %v, want %v", err, token.ErrSignature)
	}
}

func TestRememberedTokenStillExpires(t *testing.T) {
	t.Parallel()
	p := setup(t, token.ES256)
	raw := issue(t, p)
	if _, err := p.verifier.Verify(raw); err != nil {
		t.Fatal(err)
	}
	p.clock.now = epoch.Add(-time.Minute)
	if _, err := p.verifier.Verify(raw); !errors.Is(err, token.ErrNotYetValid) {
		t.Errorf("Verify before nbf = %v, want %v", err, token.ErrNotYetValid)
	}
	p.clock.now = epoch.Add(30*time.Minute - time.Second)
	if _, err := p.verifier.Verify(raw); err != nil {
		t.Errorf("Verify a second before exp = %v, want nil", err)
	}
	p.clock.now = epoch.Add(30 * time.Minute)
	for range 2 {
		if _, err := p.verifier.Verify(raw); !errors.Is(err, token.ErrExpired) {
			t.Errorf("Verify at exp = %v, want %v", err, token.ErrExpired)
		}
	}
}

func TestRememberedTokenOfRemovedKeyIsRefused(t *testing.T) {
	t.Parallel()
	p := setup(t, token.ES256)
	raw := issue(t, p)
	verify := func(want error) {
		t.Helper()
		if _, err := p.verifier.Verify(raw); !errors.Is(err, want) {
			t.Errorf("Verify = %v, want %v", err, want)
		}
	}
	set := func(keys ...token.Key) {
		t.Helper()
		if err := p.keys.Set(keys...); err != nil {
			t.Fatal(err)
		}
	}
	verify(nil)
	next := generate(t, token.EdDSA)
	set(next, p.key) // rotated: the old one still verifies
	verify(nil)
	set(next)
	verify(token.ErrUnknownKey)
	set(next, p.key)
	verify(nil)
	set()
	verify(token.ErrUnknownKey)
}

func TestKeyReplacedUnderItsIDIsNoticed(t *testing.T) {
	t.Parallel()
	p := setup(t, token.ES256)
	raw := issue(t, p)
	if _, err := p.verifier.Verify(raw); err != nil {
		t.Fatal(err)
	}
	other, err := token.NewKeyRing(generate(t, token.ES256))
	if err != nil {
		t.Fatal(err)
	}
	impostors, err := token.ParseJWKS([]byte(strings.Replace(string(other.JWKS()), other.Keys()[0].ID(), p.key.ID(), 1)))
	if err != nil || len(impostors) != 1 {
		t.Fatalf("ParseJWKS = %v, %v", impostors, err)
	}
	if err := p.keys.Set(impostors...); err != nil {
		t.Fatal(err)
	}
	if _, err := p.verifier.Verify(raw); !errors.Is(err, token.ErrSignature) {
		t.Errorf("Verify = %v, want %v", err, token.ErrSignature)
	}
}

func TestRevokedIsAskedOnEveryCall(t *testing.T) {
	t.Parallel()
	revoked := ""
	p := setup(t, token.HS256, func(c *token.VerifierConfig) {
		c.Revoked = func(claims token.Claims) bool { return claims.Session == revoked }
	})
	raw := issue(t, p)
	for _, step := range []struct {
		revoked string
		want    error
	}{{"", nil}, {"session-1", token.ErrRevoked}, {"session-1", token.ErrRevoked}, {"session-2", nil}} {
		revoked = step.revoked
		if _, err := p.verifier.Verify(raw); !errors.Is(err, step.want) {
			t.Errorf("Verify with %q revoked = %v, want %v", revoked, err, step.want)
		}
	}
}

func TestVerifierFromJWKS(t *testing.T) {
	t.Parallel()
	for _, algorithm := range []token.Algorithm{token.ES256, token.EdDSA, token.RS256} {
		p := setup(t, algorithm)
		keys, err := token.ParseJWKS(p.keys.JWKS())
		if err != nil {
			t.Fatal(err)
		}
		ring, err := token.NewKeyRing(keys...)
		if err != nil {
			t.Fatal(err)
		}
		downstream, err := token.NewVerifier(token.VerifierConfig{Keys: ring, Issuer: issuerName, Audience: audience, Now: p.clock.read})
		if err != nil {
			t.Fatal(err)
		}
		if claims, err := downstream.Verify(issue(t, p)); err != nil || claims.Subject != "user-1" || !claims.HasRole("admin") {
			t.Errorf("%s: Verify = %+v, %v", algorithm, claims, err)
		}
		if _, err := downstream.Verify(issue(t, setup(t, algorithm))); !errors.Is(err, token.ErrUnknownKey) {
			t.Errorf("%s: Verify(foreign) = %v, want %v", algorithm, err, token.ErrUnknownKey)
		}
	}
}

// A key that the ring lacks is asked for, and the token is good if that brought it.
func TestMissingKeys(t *testing.T) {
	t.Parallel()
	p := setup(t, token.ES256)
	ring := new(token.KeyRing)
	var asked []string
	brings := false
	v, err := token.NewVerifier(token.VerifierConfig{Keys: ring, Issuer: issuerName, Audience: audience, Now: p.clock.read, Missing: func(kid string) {
		asked = append(asked, kid)
		if brings {
			if err := ring.Set(p.key); err != nil {
				t.Error(err)
			}
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	raw := issue(t, p)
	if _, err := v.Verify(raw); !errors.Is(err, token.ErrUnknownKey) {
		t.Errorf("Verify = %v, want %v", err, token.ErrUnknownKey)
	}
	brings = true
	for range 2 {
		if _, err := v.Verify(raw); err != nil {
			t.Errorf("Verify = %v", err)
		}
	}
	if want := []string{p.key.ID(), p.key.ID()}; !slices.Equal(asked, want) {
		t.Errorf("asked for %q, want %q", asked, want)
	}
}

func TestVerifyOfRememberedTokenAllocatesNothing(t *testing.T) {
	// Not parallel: AllocsPerRun counts those of every goroutine.
	p := setup(t, token.ES256)
	raw := issue(t, p)
	if _, err := p.verifier.Verify(raw); err != nil {
		t.Fatal(err)
	}
	if allocations := testing.AllocsPerRun(100, func() { _, _ = p.verifier.Verify(raw) }); allocations != 0 {
		t.Errorf("allocations = %v, want 0", allocations)
	}
}

func TestNewVerifierNamesWhatIsMissing(t *testing.T) {
	t.Parallel()
	ring := new(token.KeyRing)
	for want, config := range map[string]token.VerifierConfig{
		"Keys":     {Issuer: "i", Audience: "a"},
		"Issuer":   {Keys: ring, Audience: "a"},
		"Audience": {Keys: ring, Issuer: "i"},
	} {
		if _, err := token.NewVerifier(config); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("NewVerifier without %s = %v", want, err)
		}
	}
}

func FuzzVerify(f *testing.F) {
	// ES256 is left out because whoever has (r, s) can write (r, -s): another text of the same token.
	var verifiers []*token.Verifier
	issued := map[string]bool{}
	for _, algorithm := range []token.Algorithm{token.HS256, token.EdDSA, token.RS256} {
		p := setup(f, algorithm)
		raw := issue(f, p)
		issued[raw] = true
		verifiers = append(verifiers, p.verifier)
		parts := strings.Split(raw, ".")
		f.Add(raw)
		f.Add(parts[0] + "." + parts[1] + ".")
		f.Add(segment(f, map[string]any{"alg": "none", "typ": "at+jwt", "kid": p.key.ID()}) + "." + parts[1] + ".")
		f.Add(segment(f, map[string]any{"alg": []int{1}, "typ": nil, "crit": 1}) + "." + parts[1] + "." + parts[2])
	}
	f.Add("..")
	f.Fuzz(func(t *testing.T, raw string) {
		for _, v := range verifiers {
			_, first := v.Verify(raw)
			_, second := v.Verify(raw)
			if first != second {
				t.Errorf("Verify(%q) = %v, then %v", raw, first, second)
			}
			if first == nil && !issued[raw] {
				t.Errorf("Verify accepted %q, which was never issued", raw)
			}
			if first != nil && !errors.Is(first, token.ErrInvalid) {
				t.Errorf("Verify(%q) = %v, which is not ErrInvalid", raw, first)
			}
		}
	})
}
