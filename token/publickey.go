package token

import (
	"crypto"
	"slices"
	"time"
)

// PublicKey is a public key of somebody else, by which what they sign is
// checked.
type PublicKey struct {
	ID         string // kid, which it may lack
	Algorithms []string
	Key        crypto.PublicKey // *ecdsa.PublicKey, ed25519.PublicKey or *rsa.PublicKey
}

const (
	// algorithmPS256 is what others may sign with by an RSA key, beside RS256.
	algorithmPS256 = "PS256"
	// algorithmEd25519 is EdDSA by its newer name (RFC 9864), which some libraries
	// use and others don't know.
	algorithmEd25519 = "Ed25519"
)

// PublicAlgorithms are the algorithms that a [PublicKey] can be for.
var PublicAlgorithms = []string{string(ES256), algorithmEd25519, string(EdDSA), algorithmPS256, string(RS256)}

// Fits says whether the key may be used with an algorithm: the one that it
// names, or where it names none, those for its kind.
func (k PublicKey) Fits(algorithm string) bool { return slices.Contains(k.Algorithms, algorithm) }

// ParsePublicKeys reads the keys of a JWKS document that somebody else's
// signatures are checked with. Like [ParseJWKS] it passes over keys of other
// kinds and uses, and fails with [ErrKey]; but it takes keys without an id, and
// those for PS256.
func ParsePublicKeys(document []byte) ([]PublicKey, error) {
	set, err := parseSet(document)
	var keys []PublicKey
	for _, j := range set {
		algorithm, public, ok := j.public()
		if !ok {
			continue
		}
		if _, err := newKey(algorithm, nil, public, time.Time{}); err != nil {
			continue // of the wrong size
		}
		k := PublicKey{ID: j.Kid, Algorithms: []string{string(algorithm)}, Key: public}
		switch algorithm {
		case RS256:
			k.Algorithms = append(k.Algorithms, algorithmPS256)
		case EdDSA:
			k.Algorithms = append(k.Algorithms, algorithmEd25519)
		}
		switch {
		case j.Alg == "":
		case !k.Fits(j.Alg):
			continue
		case algorithm == RS256:
			k.Algorithms = []string{j.Alg}
		}
		keys = append(keys, k)
	}
	return keys, err
}
