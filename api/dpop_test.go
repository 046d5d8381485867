package api

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"usher.example/client"
	"usher.example/identity"
)

// prover is a client that has a key of its own.
type prover struct {
	t   *testing.T
	key *ecdsa.PrivateKey
}

func newProver(t *testing.T) prover {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return prover{t, key}
}

// prove makes a proof for a request to a path, with the nonce that an answer has given, and for an access token unless that is "".
func (p prover) prove(method, path, nonce, access string) string {
	p.t.Helper()
	point, err := p.key.PublicKey.Bytes()
	if err != nil {
		p.t.Fatal(err)
	}
	text := base64.RawURLEncoding.EncodeToString
	claims := jwt.MapClaims{"jti": uuid.NewString(), "htm": method, "htu": "https://usher.test" + path, "iat": time.Now().Unix()}
	if nonce != "" {
		claims["nonce"] = nonce
	}
	if access != "" {
		sum := sha256.Sum256([]byte(access))
		claims["ath"] = text(sum[:])
	}
	raw := jwt.NewWithClaims(jwt.SigningMethodES256, claims)
	raw.Header["typ"], raw.Header["jwk"] = "dpop+jwt", map[string]string{"kty": "EC", "crv": "P-256", "x": text(point[1:33]), "y": text(point[33:])}
	signed, err := raw.SignedString(p.key)
	if err != nil {
		p.t.Fatal(err)
	}
	return signed
}

// A token that was asked for with a proof is good with proofs of the same key, each once, and with nothing else.
func TestDPoP(t *testing.T) {
	t.Parallel()
	s := newStack(t, openSQLite(t), options{document: true})
	s.user("admin@example.org", identity.RoleGranted{Role: identity.RoleAdmin})
	id, secret := s.addService(s.login("admin@example.org"), `{"name":"warehouse","scopes":["events:read"]}`)
	p, thief := newProver(t), newProver(t)
	ask := func(proof string) answer {
		t.Helper()
		return s.call("POST", "/oauth2/token", form("grant_type", "client_credentials"), "Content-Type", formType, "Authorization", basic(id, secret), "DPoP", proof)
	}
	a := ask(p.prove("POST", "/oauth2/token", "", ""))
	s.wantOAuth(a, http.StatusBadRequest, "use_dpop_nonce")
	nonce := a.header.Get("DPoP-Nonce")
	s.wantOAuth(ask(p.prove("GET", "/oauth2/token", nonce, "")), http.StatusBadRequest, "invalid_dpop_proof")
	s.wantOAuth(ask("nonsense"), http.StatusBadRequest, "invalid_dpop_proof")
	proof := p.prove("POST", "/oauth2/token", nonce, "")
	granted := s.want(ask(proof), http.StatusOK, "")
	s.wantOAuth(ask(proof), http.StatusBadRequest, "invalid_dpop_proof")
	access := granted.field(t, "access_token")
	if kind := granted.field(t, "token_type"); kind != "DPoP" {
		t.Errorf("the type of the token is %s", kind)
	}
	seen := service{s, uuid.MustParse(id), client.Secret(secret)}.wantActive("a token that is bound", "token", access)
	if seen.field(t, "token_type") != "DPoP" || seen.field(t, "cnf", "jkt") == "" {
		t.Errorf("introspected: %s", seen.body)
	}

	get := func(scheme, access string, proofs ...string) answer {
		t.Helper()
		headers := []string{"Authorization", scheme + " " + access}
		for _, proof := range proofs {
			headers = append(headers, "DPoP", proof)
		}
		return s.call("GET", "/v1/events?limit=1", "", headers...)
	}
	good := p.prove("GET", "/v1/events", nonce, access)
	if a := s.want(get("DPoP", access, good), http.StatusOK, ""); a.header.Get("DPoP-Nonce") == "" {
		t.Error("no nonce for the next proof")
	}
	plain := s.grant(id, secret).field(t, "access_token")
	for name, try := range map[string]struct {
		scheme, access string
		proofs         []string
		has            string // the challenge
	}{
		"a proof again":             {"DPoP", access, []string{good}, `DPoP realm="usher", error="invalid_dpop_proof", algs="ES256 EdDSA RS256"`},
		"as a bearer":               {"Bearer", access, nil, `DPoP realm="usher", error="invalid_token"`},
		"as a bearer, with a proof": {"Bearer", access, []string{p.prove("GET", "/v1/events", nonce, access)}, `DPoP realm="usher", error="invalid_token"`},
		"without a proof":           {"DPoP", access, nil, `error="invalid_dpop_proof"`},
		"without a nonce":           {"DPoP", access, []string{p.prove("GET", "/v1/events", "", access)}, `error="use_dpop_nonce"`},
		"without the token":         {"DPoP", access, []string{p.prove("GET", "/v1/events", nonce, "")}, `error="invalid_dpop_proof"`},
		"for another path":          {"DPoP", access, []string{p.prove("GET", "/v1/users", nonce, access)}, `error="invalid_dpop_proof"`},
		"by another key":            {"DPoP", access, []string{thief.prove("GET", "/v1/events", nonce, access)}, `error="invalid_dpop_proof"`},
		"a token that is not bound": {"DPoP", plain, []string{p.prove("GET", "/v1/events", nonce, plain)}, `DPoP realm="usher", error="invalid_token"`},
	} {
		a := get(try.scheme, try.access, try.proofs...)
		s.want(a, http.StatusUnauthorized, identity.CodeUnauthenticated)
		if challenge := a.header.Get("WWW-Authenticate"); !strings.Contains(challenge, try.has) {
			t.Errorf("%s: the challenge is %q, want %q", name, challenge, try.has)
		}
	}
	s.want(get("Bearer", plain), http.StatusOK, "")
}
