package token

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"sync"
	"time"
)

// The ways in which a DPoP proof is no good. Each matches [ErrProof].
var (
	// ErrProof is matched by every error about a proof.
	ErrProof = errors.New("token: invalid DPoP proof")
	// ErrNonce: the proof is right, but for the nonce that it lacks or has from too long ago.
	ErrNonce error = &proofError{"a nonce of the server's is needed"}

	errProofForm    error = &proofError{"malformed"}
	errProofKey     error = &proofError{"its key is none that can be used, or did not sign it"}
	errProofRequest error = &proofError{"for another request"}
	errProofTime    error = &proofError{"made too long ago, or not yet"}
	errProofReplay  error = &proofError{"was used before"}
)

// proofError is a way in which a proof is no good.
type proofError struct{ text string }

func (e *proofError) Error() string { return ErrProof.Error() + ": " + e.text }
func (e *proofError) Unwrap() error { return ErrProof }

// ProofAlgorithms are those that a proof may be signed with: nobody but who made it has the key.
var ProofAlgorithms = []Algorithm{ES256, EdDSA, RS256}

const (
	proofType = "dpop+jwt"
	// maxProofBytes is the longest proof that is looked at; one has its key in it.
	maxProofBytes = 4 << 10
	maxProofID    = 256

	// proofLifetime is how long after it was made a proof is good, and nonceLifetime for how long a nonce is given out. One is
	// good for as long again.
	proofLifetime = time.Minute
	nonceLifetime = 30 * time.Second

	// DefaultProofs is how many proofs of the last minute a [ProofVerifier] keeps in mind, 40 bytes or so each.
	DefaultProofs = 200_000
)

// ProofConfig sets up a [ProofVerifier].
type ProofConfig struct {
	// NonceKey makes nonces, and is the same in all processes: with it every proof needs a nonce that a server has given out lately
	// (RFC 9449, section 8), so that a proof which was made in advance is good for nothing. Without it none is asked for.
	NonceKey []byte
	// Remember bounds the proofs that are kept in mind: DefaultProofs when 0. Once there are as many, others are refused until some are
	// a minute old.
	Remember int
	Now      func() time.Time // nil stands for time.Now
}

// ProofVerifier checks proofs that the sender of a token has the key that the token is bound to: DPoP (RFC 9449). A proof is good
// once. It is safe for concurrent use.
type ProofVerifier struct {
	config ProofConfig

	mu            sync.Mutex
	turned        time.Time // when recent began
	recent, older map[[sha256.Size]byte]struct{}
}

// NewProofVerifier makes a verifier.
func NewProofVerifier(c ProofConfig) *ProofVerifier {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Remember == 0 {
		c.Remember = DefaultProofs
	}
	return &ProofVerifier{config: c, recent: map[[sha256.Size]byte]struct{}{}}
}

// proofHeader and proofClaims are what a proof says (RFC 9449, section 4.2).
type proofHeader struct {
	Typ  string          `json:"typ"`
	Alg  string          `json:"alg"`
	JWK  json.RawMessage `json:"jwk"`
	Crit json.RawMessage `json:"crit"`
}

type proofClaims struct {
	ID       string   `json:"jti"`
	Method   string   `json:"htm"`
	URI      string   `json:"htu"`
	IssuedAt *float64 `json:"iat"` // a NumericDate may have a fraction
	Hash     string   `json:"ath"`
	Nonce    string   `json:"nonce"`
}

// Verify checks a proof for a request of a method to a URI, whose query counts for nothing, with an access token; "" where there is
// none yet. It answers with the thumbprint of the key (RFC 7638), which the token has to be bound to. Every error matches [ErrProof];
// with [ErrNonce] the sender is to try again with [ProofVerifier.Nonce].
func (v *ProofVerifier) Verify(raw, method, uri, accessToken string) (thumbprint string, err error) {
	if len(raw) > maxProofBytes {
		return "", errProofForm
	}
	input, head, body, signature, err := split(raw)
	if err != nil {
		return "", errProofForm
	}
	var h proofHeader
	var c proofClaims
	if json.Unmarshal(head, &h) != nil || json.Unmarshal(body, &c) != nil || h.Crit != nil || !strings.EqualFold(h.Typ, proofType) ||
		c.ID == "" || len(c.ID) > maxProofID || c.IssuedAt == nil {
		return "", errProofForm
	}
	key, ok := proofKey(h)
	if !ok || !key.verify(input, signature) {
		return "", errProofKey
	}
	if c.Method != method || !sameTarget(c.URI, uri) {
		return "", errProofRequest
	}
	if accessToken != "" {
		sum := sha256.Sum256([]byte(accessToken))
		if c.Hash != base64url.EncodeToString(sum[:]) {
			return "", errProofRequest
		}
	}
	now := v.config.Now()
	if age := now.Sub(time.UnixMilli(int64(*c.IssuedAt * 1000))); *c.IssuedAt < 0 || *c.IssuedAt > maxSeconds || age > proofLifetime || age < -Leeway {
		return "", errProofTime
	}
	if !v.isNonce(c.Nonce, now) {
		return "", ErrNonce
	}
	thumbprint = key.Thumbprint()
	if !v.first(sha256.Sum256([]byte(thumbprint+c.ID)), now) {
		return "", errProofReplay
	}
	return thumbprint, nil
}

// maxSeconds is the last moment that a time has, in seconds since 1970.
const maxSeconds = 253402300799

// proofKey is the public key in a proof's header, if that has nothing private in it and is of the algorithm.
func proofKey(h proofHeader) (Key, bool) {
	var j struct {
		jwk
		D json.RawMessage `json:"d"`
	}
	if json.Unmarshal(h.JWK, &j) != nil || j.D != nil {
		return Key{}, false
	}
	j.Kid, j.Use, j.Alg = "proof", "", "" // it goes by its thumbprint
	key, ok := j.key()
	return key, ok && h.Alg == string(key.algorithm)
}

// sameTarget compares two URIs but for query and fragment, and for what RFC 3986, section 6.2.2 and 6.2.3, calls the same.
func sameTarget(a, b string) bool {
	left, ok := target(a)
	right, fine := target(b)
	return ok && fine && left == right
}

func target(uri string) (string, bool) {
	u, err := url.Parse(uri)
	if err != nil || u.Host == "" || u.User != nil {
		return "", false
	}
	scheme, host := strings.ToLower(u.Scheme), strings.ToLower(u.Host)
	host = strings.TrimSuffix(host, map[string]string{"https": ":443", "http": ":80"}[scheme])
	path := u.EscapedPath()
	if path == "" {
		path = "/"
	}
	return scheme + "://" + host + path, true
}

// Nonce is what the next proofs are to have as their nonce; "" where none is asked for.
func (v *ProofVerifier) Nonce() string {
	if v.config.NonceKey == nil {
		return ""
	}
	return v.nonce(turn(v.config.Now()))
}

// isNonce says whether a nonce was given out lately.
func (v *ProofVerifier) isNonce(nonce string, now time.Time) bool {
	if v.config.NonceKey == nil {
		return true
	}
	return hmac.Equal([]byte(nonce), []byte(v.nonce(turn(now)))) || hmac.Equal([]byte(nonce), []byte(v.nonce(turn(now)-1)))
}

func turn(now time.Time) int64 { return now.Unix() / int64(nonceLifetime/time.Second) }

func (v *ProofVerifier) nonce(turn int64) string {
	mac := hmac.New(sha256.New, v.config.NonceKey)
	mac.Write([]byte("DPoP nonce"))
	mac.Write(binary.BigEndian.AppendUint64(nil, uint64(turn)))
	return base64url.EncodeToString(mac.Sum(nil)[:18])
}

// first says whether a proof is used for the first time, and keeps it in mind for as long as it is good. A proof is in one of two sets:
// once the newer has taken all of a lifetime, with the leeway, the older is dropped whole.
func (v *ProofVerifier) first(proof [sha256.Size]byte, now time.Time) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if now.Sub(v.turned) > proofLifetime+Leeway {
		if v.older = v.recent; now.Sub(v.turned) > 2*(proofLifetime+Leeway) {
			v.older = nil
		}
		v.recent, v.turned = map[[sha256.Size]byte]struct{}{}, now
	}
	_, seen := v.recent[proof]
	if _, before := v.older[proof]; seen || before || len(v.recent)+len(v.older) >= v.config.Remember {
		return false
	}
	v.recent[proof] = struct{}{}
	return true
}
