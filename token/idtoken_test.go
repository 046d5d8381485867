package token_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"

	"usher.example/token"
)

func sampleID() token.IDToken {
	return token.IDToken{
		Subject: "0198c0de-0000-7000-8000-000000000001", Client: "shop", AuthTime: epoch.Add(-time.Minute), Methods: []string{"pwd"},
		Nonce: "n", Session: "s", AccessToken: "jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y", Profile: map[string]any{"email": "ada@example.org", "sub": "somebody else"},
	}
}

// withIDKey adds a key for ID tokens to the ring.
func (p party) withIDKey(t *testing.T) token.Key {
	t.Helper()
	k := generate(t, token.RS256).ForIDTokens()
	if err := p.keys.Set(p.key, k); err != nil {
		t.Fatal(err)
	}
	return k
}

func TestIssueID(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		access, wanted, used token.Algorithm
	}{
		{token.ES256, "", token.ES256}, {token.ES256, token.RS256, token.RS256}, {token.EdDSA, "", token.EdDSA}, {token.HS256, "", token.RS256},
	} {
		p := setup(t, test.access)
		forID := p.withIDKey(t)
		raw, err := p.issuer.IssueID(sampleID(), test.wanted)
		if err != nil {
			t.Errorf("%s, %q wanted: %v", test.access, test.wanted, err)
			continue
		}
		parsed, _, err := jwt.NewParser().ParseUnverified(raw, jwt.MapClaims{})
		if err != nil {
			t.Fatal(err)
		}
		kid := p.key.ID()
		if test.used != test.access {
			kid = forID.ID()
		}
		if got := parsed.Header; got["alg"] != string(test.used) || got["typ"] != "JWT" || got["kid"] != kid {
			t.Errorf("%s, %q wanted: header %v, want %s by %s", test.access, test.wanted, got, test.used, kid)
		}
		claims := parsed.Claims.(jwt.MapClaims)
		if claims["sub"] != sampleID().Subject || claims["aud"] != "shop" || claims["iss"] != issuerName || claims["email"] != "ada@example.org" ||
			claims["exp"] != float64(epoch.Add(30*time.Minute).Unix()) || claims["auth_time"] != float64(epoch.Add(-time.Minute).Unix()) {
			t.Errorf("claims %v", claims)
		}
		// The hash of RFC 6749's example token, of OpenID Connect Core, appendix A.3.
		if test.used != token.EdDSA && claims["at_hash"] != "77QmUPtjPfzWtF2AnpK9RQ" {
			t.Errorf("%s: at_hash %v", test.used, claims["at_hash"])
		}

		// It is no access token, and what signs it alone signs none.
		if _, err := p.verifier.Verify(raw); !errors.Is(err, token.ErrInvalid) {
			t.Errorf("an ID token as an access token: %v", err)
		}
		p.clock.now = epoch.Add(365 * 24 * time.Hour)
		hint, err := p.issuer.ReadID(raw)
		if diff := cmp.Diff(token.IDHint{Subject: sampleID().Subject, Session: "s", Client: []string{"shop"}, Issuer: issuerName}, hint); diff != "" || err != nil {
			t.Errorf("the hint (-want +got), %v:\n%s", err, diff)
		}
	}
}

func TestIssueIDInAnAlgorithmThatIsNotThere(t *testing.T) {
	t.Parallel()
	p := setup(t, token.EdDSA)
	p.withIDKey(t)
	for algorithm, want := range map[token.Algorithm]error{token.ES256: token.ErrNoSigningKey, token.HS256: token.ErrNoSigningKey, token.RS256: nil} {
		if _, err := p.issuer.IssueID(sampleID(), algorithm); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", algorithm, err, want)
		}
	}
	if diff := cmp.Diff([]token.Algorithm{token.EdDSA, token.RS256}, p.keys.IDTokenAlgorithms()); diff != "" {
		t.Errorf("algorithms (-want +got):\n%s", diff)
	}
}

func TestVerifierRefusesAKeyOfIDTokens(t *testing.T) {
	t.Parallel()
	p := setup(t, token.RS256)
	raw, _, err := p.issuer.Issue(token.Grant{Subject: "u"})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.keys.Set(p.key.ForIDTokens()); err != nil {
		t.Fatal(err)
	}
	fresh := verifierOf(t, p)
	if _, err := fresh.Verify(raw); !errors.Is(err, token.ErrUnknownKey) {
		t.Errorf("an access token by a key of ID tokens: %v, want %v", err, token.ErrUnknownKey)
	}
	if _, _, err := p.issuer.Issue(token.Grant{Subject: "u"}); !errors.Is(err, token.ErrNoSigningKey) {
		t.Errorf("an access token with no key for it: %v, want %v", err, token.ErrNoSigningKey)
	}
}

func verifierOf(t *testing.T, p party) *token.Verifier {
	t.Helper()
	v, err := token.NewVerifier(token.VerifierConfig{Keys: p.keys, Issuer: issuerName, Audience: audience, Now: p.clock.read})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestReadIDRefuses(t *testing.T) {
	t.Parallel()
	p := setup(t, token.ES256)
	p.withIDKey(t)
	good, err := p.issuer.IssueID(sampleID(), token.RS256)
	if err != nil {
		t.Fatal(err)
	}
	access, _, err := p.issuer.Issue(token.Grant{Subject: "u"})
	if err != nil {
		t.Fatal(err)
	}
	other, err := setup(t, token.ES256).issuer.IssueID(sampleID(), "")
	if err != nil {
		t.Fatal(err)
	}
	head, rest, _ := strings.Cut(good, ".")
	body, _, _ := strings.Cut(rest, ".")
	for name, raw := range map[string]string{
		"nothing": "", "rubbish": "a.b.c", "an access token": access, "another's": other, "unsigned": head + "." + body + ".", "too long": good + strings.Repeat("x", token.MaxBytes),
		"changed": head + "." + body[:len(body)-2] + "." + good[strings.LastIndex(good, ".")+1:],
	} {
		if hint, err := p.issuer.ReadID(raw); !errors.Is(err, token.ErrInvalid) {
			out, _ := json.Marshal(hint)
			t.Errorf("%s: %s, %v", name, out, err)
		}
	}
}
