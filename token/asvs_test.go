package token_test

import (
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"

	"usher.example/token"
)

// The tests of this file are named after the requirements of OWASP ASVS 5.0, chapter 9, that they show to be met.

// forger is somebody who makes tokens that are wrong in one way: with the right key, or without it.
type forger struct {
	party
	method     jwt.SigningMethod
	own, other any      // the private keys of the issuer and of a stranger
	parts      []string // of a good token
	signature  []byte   // of the same
}

// refusal is a token and why it is refused.
type refusal struct {
	name string
	raw  string
	want error
}

// eachForger runs a test for every algorithm.
func eachForger(t *testing.T, refusals func(t *testing.T, f forger) []refusal) {
	t.Parallel()
	for _, algorithm := range algorithms {
		t.Run(string(algorithm), func(t *testing.T) {
			t.Parallel()
			f := forger{party: setup(t, algorithm), method: jwt.GetSigningMethod(string(algorithm))}
			f.own, f.other = private(t, f.key), private(t, generate(t, algorithm))
			good := f.forged(t, f.header(), goodClaims())
			if _, err := f.verifier.Verify(good); err != nil {
				t.Fatalf("Verify(good) = %v", err)
			}
			f.parts = strings.Split(good, ".")
			var err error
			if f.signature, err = base64.RawURLEncoding.DecodeString(f.parts[2]); err != nil {
				t.Fatal(err)
			}
			for _, r := range refusals(t, f) {
				for range 2 { // a refusal is not remembered as anything else
					claims, err := f.verifier.Verify(r.raw)
					if !errors.Is(err, r.want) || !errors.Is(err, token.ErrInvalid) {
						t.Errorf("%s: Verify = %v, want %v", r.name, err, r.want)
					}
					if diff := cmp.Diff(token.Claims{}, claims); diff != "" {
						t.Errorf("%s: claims of a refused token: %s", r.name, diff)
					}
				}
			}
		})
	}
}

func (f forger) header() map[string]any { return goodHeader(f.key) }

// forged is signed with the issuer's own key.
func (f forger) forged(t *testing.T, header, claims map[string]any) string {
	t.Helper()
	return forge(t, f.method, f.own, header, claims)
}

func encoded(raw []byte) string { return base64.RawURLEncoding.EncodeToString(raw) }

// A token's signature is checked before anything that it says.
func TestASVS_9_1_1_SignatureIsCheckedFirst(t *testing.T) {
	eachForger(t, func(t *testing.T, f forger) []refusal {
		h, c := f.header, goodClaims
		unsigned := f.parts[0] + "." + f.parts[1] + "."
		flipped := append([]byte(nil), f.signature...)
		flipped[len(flipped)/2] ^= 1
		expired := with(c(), "exp", epoch.Add(-time.Hour).Unix())
		return []refusal{
			{"signature empty", unsigned, token.ErrSignature},
			{"signature truncated", unsigned + encoded(f.signature[:len(f.signature)-1]), token.ErrSignature},
			{"signature longer", unsigned + encoded(append(f.signature, 0)), token.ErrSignature},
			{"signature altered", unsigned + encoded(flipped), token.ErrSignature},
			{"signature of zeros", unsigned + encoded(make([]byte, 64)), token.ErrSignature},
			{"another key", forge(t, f.method, f.other, h(), c()), token.ErrSignature},
			{"claims exchanged", f.parts[0] + "." + segment(t, with(c(), "sub", "user-2")) + "." + f.parts[2], token.ErrSignature},
			{"header exchanged", segment(t, with(h(), "typ", "application/at+jwt")) + "." + f.parts[1] + "." + f.parts[2], token.ErrSignature},
			{"expired, another key", forge(t, f.method, f.other, h(), expired), token.ErrSignature},
			{"other audience, another key", forge(t, f.method, f.other, h(), with(c(), "aud", "x")), token.ErrSignature},
			{"no claims, another key", forge(t, f.method, f.other, h(), nil), token.ErrSignature},
		}
	})
}

// The algorithm is that of the key, whatever a token says. "none" is no algorithm, and a public key is no shared secret.
func TestASVS_9_1_2_AlgorithmIsThatOfTheKey(t *testing.T) {
	eachForger(t, func(t *testing.T, f forger) []refusal {
		h, c := f.header, goodClaims
		unsigned := func(alg string) string { return segment(t, with(h(), "alg", alg)) + "." + f.parts[1] + "." }
		list := []refusal{
			{"none", unsigned("none"), token.ErrAlgorithm},
			{"None", unsigned("None"), token.ErrAlgorithm},
			{"nOnE", unsigned("nOnE"), token.ErrAlgorithm},
			{"none, signature kept", unsigned("none") + f.parts[2], token.ErrAlgorithm},
			{"missing", f.forged(t, with(h(), "alg", nil), c()), token.ErrAlgorithm},
			{"in lower case", f.forged(t, with(h(), "alg", strings.ToLower(string(f.key.Algorithm()))), c()), token.ErrAlgorithm},
			{"of a family", f.forged(t, with(h(), "alg", "HS512"), c()), token.ErrAlgorithm},
		}
		if f.key.Algorithm() != token.HS256 {
			list = append(list, refusal{"public key as HMAC secret",
				forge(t, jwt.SigningMethodHS256, publicDER(t, f.key), with(h(), "alg", "HS256"), c()), token.ErrAlgorithm})
		}
		return list
	})
}

// Keys come from where the verifier was set up to take them from. A token that brings one, or says where there is one, is
// refused, and nobody is asked.
func TestASVS_9_1_3_KeysComeFromTheirSource(t *testing.T) {
	var asked atomic.Int32
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	t.Cleanup(func() {
		elsewhere.Close()
		if n := asked.Load(); n > 0 {
			t.Errorf("the address in a token was asked %d times", n)
		}
	})
	eachForger(t, func(t *testing.T, f forger) []refusal {
		h, c := f.header, goodClaims
		foreign := func(member string, value any) string {
			return forge(t, f.method, f.other, with(h(), "kid", "x", member, value), c())
		}
		return []refusal{
			{"jwk", foreign("jwk", map[string]any{"kty": "oct", "k": "AAAA"}), token.ErrUnknownKey},
			{"jku", foreign("jku", elsewhere.URL), token.ErrUnknownKey},
			{"x5u", foreign("x5u", elsewhere.URL), token.ErrUnknownKey},
			{"x5c", foreign("x5c", []string{"AAAA"}), token.ErrUnknownKey},
			{"jku, own kid", forge(t, f.method, f.other, with(h(), "jku", elsewhere.URL), c()), token.ErrSignature},
			{"kid missing", f.forged(t, with(h(), "kid", nil), c()), token.ErrUnknownKey},
			{"kid unknown", f.forged(t, with(h(), "kid", "../../etc/passwd"), c()), token.ErrUnknownKey},
		}
	})
}

// A token is good from its nbf, with a leeway for clocks, to its exp, without one.
func TestASVS_9_2_1_ValidityPeriodIsChecked(t *testing.T) {
	eachForger(t, func(t *testing.T, f forger) []refusal {
		at := func(claim string, value any) string { return f.forged(t, f.header(), with(goodClaims(), claim, value)) }
		unix := func(d time.Duration) int64 { return epoch.Add(d).Unix() }
		return []refusal{
			{"expired", at("exp", unix(-time.Second)), token.ErrExpired},
			{"expires now", at("exp", unix(0)), token.ErrExpired},
			{"nbf in the future", at("nbf", unix(token.Leeway+time.Second)), token.ErrNotYetValid},
			{"iat in the future", at("iat", unix(token.Leeway+time.Second)), token.ErrNotYetValid},
			{"exp missing", at("exp", nil), token.ErrMalformed},
			{"iat missing", at("iat", nil), token.ErrMalformed},
			{"nbf missing", at("nbf", nil), token.ErrMalformed},
			{"exp a string", at("exp", "9999999999"), token.ErrMalformed},
			{"exp enormous", at("exp", int64(1)<<62), token.ErrMalformed},
			{"exp negative", at("exp", -1), token.ErrMalformed},
		}
	})
}

// An access token is one by its type, and a token for something else is none.
func TestASVS_9_2_2_TypeIsChecked(t *testing.T) {
	eachForger(t, func(t *testing.T, f forger) []refusal {
		typed := func(typ any) string { return f.forged(t, with(f.header(), "typ", typ), goodClaims()) }
		return []refusal{
			{"missing", typed(nil), token.ErrType},
			{"an id token", typed("JWT"), token.ErrType},
			{"a logout token", typed("logout+jwt"), token.ErrType},
			{"empty", typed(""), token.ErrType},
			{"a beginning", typed("at+jwt2"), token.ErrType},
			{"a refresh token", strings.Repeat("AQGiCksR0n9gjkQNnzHysMcA", 3), token.ErrMalformed},
		}
	})
}

// A token is for the services that it names, and from the one issuer.
func TestASVS_9_2_3_AudienceIsChecked(t *testing.T) {
	eachForger(t, func(t *testing.T, f forger) []refusal {
		with := func(claim string, value any) string { return f.forged(t, f.header(), with(goodClaims(), claim, value)) }
		return []refusal{
			{"another", with("aud", "https://other.example"), token.ErrAudience},
			{"all others", with("aud", []string{"a", "b"}), token.ErrAudience},
			{"a beginning", with("aud", audience[:len(audience)-1]), token.ErrAudience},
			{"missing", with("aud", nil), token.ErrMalformed},
			{"a number", with("aud", 1), token.ErrMalformed},
			{"none", with("aud", []string{}), token.ErrMalformed},
			{"another issuer", with("iss", issuerName+"/"), token.ErrIssuer},
			{"no issuer", with("iss", nil), token.ErrMalformed},
		}
	})
}
