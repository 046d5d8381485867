package token

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"time"
)

// maxJWKSBytes bounds a JWKS document, and with it the work of reading one.
const maxJWKSBytes = 256 << 10

// jwk is a public key as RFC 7517, 7518 (section 6) and 8037 write it.
type jwk struct {
	Kty string `json:"kty"`
	Use string `json:"use,omitempty"`
	Alg string `json:"alg,omitempty"`
	Kid string `json:"kid,omitempty"`
	Crv string `json:"crv,omitempty"`
	X   string `json:"x,omitempty"`
	Y   string `json:"y,omitempty"`
	N   string `json:"n,omitempty"`
	E   string `json:"e,omitempty"`
}

type jwkSet struct {
	Keys []jwk `json:"keys"`
}

// base64url is the one encoding of JOSE. Strict, so that a text stands for
// one value; it still skips line breaks, which callers refuse where it matters.
var base64url = base64.RawURLEncoding.Strict()

// coordinateBytes is the length of a P-256 coordinate.
const coordinateBytes = 32

// publicJWK writes the members that make up the key. HS256 has none.
func publicJWK(public any) (jwk, bool) {
	switch p := public.(type) {
	case *ecdsa.PublicKey:
		point, err := p.Bytes()
		if err != nil {
			return jwk{}, false
		}
		x, y := point[1:1+coordinateBytes], point[1+coordinateBytes:]
		return jwk{Kty: "EC", Crv: "P-256", X: base64url.EncodeToString(x), Y: base64url.EncodeToString(y)}, true
	case ed25519.PublicKey:
		return jwk{Kty: "OKP", Crv: "Ed25519", X: base64url.EncodeToString(p)}, true
	case *rsa.PublicKey:
		e := big.NewInt(int64(p.E)).Bytes()
		return jwk{Kty: "RSA", N: base64url.EncodeToString(p.N.Bytes()), E: base64url.EncodeToString(e)}, true
	}
	return jwk{}, false
}

// thumbprint is that of RFC 7638: SHA-256 over the required members in
// lexicographic order, without white space.
func thumbprint(public any) string {
	k, ok := publicJWK(public)
	if !ok {
		return ""
	}
	var canonical string
	switch k.Kty {
	case "EC":
		canonical = fmt.Sprintf(`{"crv":"%s","kty":"EC","x":"%s","y":"%s"}`, k.Crv, k.X, k.Y)
	case "OKP":
		canonical = fmt.Sprintf(`{"crv":"%s","kty":"OKP","x":"%s"}`, k.Crv, k.X)
	case "RSA":
		canonical = fmt.Sprintf(`{"e":"%s","kty":"RSA","n":"%s"}`, k.E, k.N)
	}
	sum := sha256.Sum256([]byte(canonical))
	return base64url.EncodeToString(sum[:])
}

// public is the public key that a JWK describes, with the algorithm that usher
// uses such a key with; false for kinds that this package doesn't know.
func (j jwk) public() (Algorithm, any, bool) {
	if j.Use != "" && j.Use != "sig" {
		return "", nil, false
	}
	switch j.Kty {
	case "EC":
		x, errX := base64url.DecodeString(j.X)
		y, errY := base64url.DecodeString(j.Y)
		if j.Crv != "P-256" || errX != nil || errY != nil || len(x) != coordinateBytes || len(y) != coordinateBytes {
			return "", nil, false
		}
		point := append(append([]byte{4}, x...), y...)
		parsed, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
		return ES256, parsed, err == nil
	case "OKP":
		x, err := base64url.DecodeString(j.X)
		return EdDSA, ed25519.PublicKey(x), j.Crv == "Ed25519" && err == nil
	case "RSA":
		n, errN := base64url.DecodeString(j.N)
		e, errE := base64url.DecodeString(j.E)
		exponent := new(big.Int).SetBytes(e)
		if errN != nil || errE != nil || len(n) > maxRSABits/8 || exponent.BitLen() < 2 || exponent.BitLen() > 31 || exponent.Bit(0) == 0 {
			return "", nil, false
		}
		return RS256, &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(exponent.Int64())}, true
	}
	return "", nil, false // "oct" too: a secret has no place in a public document
}

// key is the verification key that a JWK describes; false if it is none that
// this package can use.
func (j jwk) key() (Key, bool) {
	algorithm, public, ok := j.public()
	if !ok || j.Kid == "" || (j.Alg != "" && j.Alg != string(algorithm)) {
		return Key{}, false
	}
	k, err := newKey(algorithm, nil, public, time.Time{})
	if err != nil {
		return Key{}, false
	}
	return k.withID(j.Kid), true
}

// ParseJWKS reads the verification keys of a JWKS document, for
// [NewKeyRing] or [KeyRing.Set]. As RFC 7517 asks, keys of kinds it
// doesn't know, for other uses or out of bounds are passed over. It returns
// [ErrKey] if the document can't be read.
func ParseJWKS(document []byte) ([]Key, error) {
	set, err := parseSet(document)
	var keys []Key
	for _, j := range set {
		if k, ok := j.key(); ok {
			keys = append(keys, k)
		}
	}
	return keys, err
}

// parseSet reads what can be read of the keys of a JWKS document. It returns
// [ErrKey] if the document can't be read.
func parseSet(document []byte) ([]jwk, error) {
	if len(document) > maxJWKSBytes {
		return nil, fmt.Errorf("parse JWKS of %d bytes: %w", len(document), ErrKey)
	}
	var set struct {
		Keys *[]json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(document, &set); err != nil || set.Keys == nil {
		return nil, fmt.Errorf("parse JWKS: %w", ErrKey)
	}
	var keys []jwk
	for _, raw := range *set.Keys {
		var j jwk
		if json.Unmarshal(raw, &j) == nil {
			keys = append(keys, j)
		}
	}
	return keys, nil
}

// marshalJWKS writes the public keys; HS256 keys are left out.
func marshalJWKS(keys []Key) ([]byte, error) {
	set := jwkSet{Keys: []jwk{}}
	for _, k := range keys {
		j, ok := publicJWK(k.material.public)
		if !ok {
			continue
		}
		j.Use, j.Alg, j.Kid = "sig", string(k.algorithm), k.id
		set.Keys = append(set.Keys, j)
	}
	return json.Marshal(set)
}
