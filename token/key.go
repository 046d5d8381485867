package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Algorithm is a signature algorithm by its JOSE name.
type Algorithm string

// The algorithms. ES256 is the default: small keys and tokens, known to every
// library, and verifiers hold nothing secret. HS256 is for a single service
// that verifies its own tokens.
const (
	ES256 Algorithm = "ES256"
	EdDSA Algorithm = "EdDSA" // Ed25519
	RS256 Algorithm = "RS256"
	HS256 Algorithm = "HS256"

	DefaultAlgorithm = ES256
)

// Bounds of key sizes.
const (
	// MinSecretBytes is the least length of an HS256 secret (RFC 7518, section 3.2).
	MinSecretBytes = 32

	minRSABits, maxRSABits = 2048, 8192
)

// Errors about keys.
var (
	// ErrKey: a key that can't be used: of the wrong kind for its algorithm,
	// too weak, unreadable, or twice in one ring.
	ErrKey = errors.New("token: unusable key")
	// ErrNoSigningKey: the ring holds no key that can sign.
	ErrNoSigningKey = errors.New("token: no signing key")
)

// method is the implementation of an algorithm, nil for an unknown one.
func (a Algorithm) method() jwt.SigningMethod {
	switch a {
	case ES256:
		return jwt.SigningMethodES256
	case EdDSA:
		return jwt.SigningMethodEdDSA
	case RS256:
		return jwt.SigningMethodRS256
	case HS256:
		return jwt.SigningMethodHS256
	}
	return nil
}

// Key is a key with its id (kid) and its one algorithm. It never prints its
// secret part, and it is immutable. The zero Key is good for nothing.
type Key struct {
	id        string
	algorithm Algorithm
	created   time.Time
	idTokens  bool // see ForIDTokens
	// Behind a pointer because fmt prints the address of a nested pointer and
	// not what it points to, even where it can't call Format.
	material *material
}

type material struct {
	method  jwt.SigningMethod
	private any    // *ecdsa.PrivateKey, ed25519.PrivateKey, *rsa.PrivateKey, []byte; nil if it can only verify
	public  any    // *ecdsa.PublicKey, ed25519.PublicKey, *rsa.PublicKey; the secret itself for HS256
	header  string // the encoded JOSE header of its access tokens
}

// GenerateKey makes a new key. It returns [ErrKey] for an unknown algorithm.
func GenerateKey(algorithm Algorithm, created time.Time) (Key, error) {
	var private any
	var err error
	switch algorithm {
	case ES256:
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case EdDSA:
		_, private, err = ed25519.GenerateKey(rand.Reader)
	case RS256:
		private, err = rsa.GenerateKey(rand.Reader, minRSABits)
	case HS256:
		secret := make([]byte, MinSecretBytes)
		_, err = rand.Read(secret)
		private = secret
	default:
		return Key{}, fmt.Errorf("generate %q key: %w", string(algorithm), ErrKey)
	}
	if err != nil {
		return Key{}, fmt.Errorf("generate %s key: %w", algorithm, err)
	}
	return newPrivateKey(algorithm, private, created)
}

// ParsePrivate is the inverse of [Key.MarshalPrivate]. It returns [ErrKey] for
// a key that isn't one of the algorithm or is too weak for it; the error says
// nothing about the data.
func ParsePrivate(algorithm Algorithm, data []byte, created time.Time) (Key, error) {
	if algorithm == HS256 {
		return newPrivateKey(HS256, append([]byte(nil), data...), created)
	}
	private, err := x509.ParsePKCS8PrivateKey(data)
	if err != nil {
		return Key{}, fmt.Errorf("parse %q key: %w", string(algorithm), ErrKey)
	}
	return newPrivateKey(algorithm, private, created)
}

// MarshalPrivate is the secret part: PKCS #8 in DER, for HS256 the secret
// itself. It returns [ErrNoSigningKey] for a key that can only verify.
func (k Key) MarshalPrivate() ([]byte, error) {
	if !k.CanSign() {
		return nil, ErrNoSigningKey
	}
	if secret, ok := k.material.private.([]byte); ok {
		return append([]byte(nil), secret...), nil
	}
	data, err := x509.MarshalPKCS8PrivateKey(k.material.private)
	if err != nil {
		return nil, fmt.Errorf("marshal key %s: %w", k.id, err)
	}
	return data, nil
}

func newPrivateKey(algorithm Algorithm, private any, created time.Time) (Key, error) {
	if secret, ok := private.([]byte); ok {
		return newKey(algorithm, private, secret, created)
	}
	signer, ok := private.(crypto.Signer)
	if !ok {
		return Key{}, fmt.Errorf("%q key: %w", string(algorithm), ErrKey)
	}
	return newKey(algorithm, private, signer.Public(), created)
}

// newKey checks that the material is the algorithm's and strong enough, and
// derives the key's id.
func newKey(algorithm Algorithm, private, public any, created time.Time) (Key, error) {
	fits := false
	switch p := public.(type) {
	case *ecdsa.PublicKey:
		fits = algorithm == ES256 && p.Curve == elliptic.P256()
	case ed25519.PublicKey:
		fits = algorithm == EdDSA && len(p) == ed25519.PublicKeySize
	case *rsa.PublicKey:
		fits = algorithm == RS256 && p.N.BitLen() >= minRSABits && p.N.BitLen() <= maxRSABits
	case []byte:
		fits = algorithm == HS256 && len(p) >= MinSecretBytes
	}
	if !fits {
		return Key{}, fmt.Errorf("%q key: %w", string(algorithm), ErrKey)
	}
	k := Key{algorithm: algorithm, created: created, material: &material{
		method: algorithm.method(), private: private, public: public,
	}}
	if secret, ok := public.([]byte); ok {
		k.id = secretID(secret)
	} else {
		k.id = thumbprint(public)
	}
	k.material.header = encodeHeader(algorithm, k.id, typ)
	return k, nil
}

// withID is the key under another id, that which a JWKS document gave it.
func (k Key) withID(id string) Key {
	m := *k.material
	m.header = encodeHeader(k.algorithm, id, typ)
	return Key{id: id, algorithm: k.algorithm, created: k.created, idTokens: k.idTokens, material: &m}
}

// ForIDTokens is the key as one that signs ID tokens, and never an access token.
func (k Key) ForIDTokens() Key {
	k.idTokens = true
	return k
}

// secretID is the id of an HS256 key: a MAC under the secret of a text that
// holds spaces, which no signed token does, so it is neither a token's
// signature nor does it say more about the secret than any token says.
func secretID(secret []byte) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte("usher key id of HS256"))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:16])
}

// ID is the key's kid: the RFC 7638 thumbprint, or for HS256 a value derived
// one-way from the secret.
func (k Key) ID() string { return k.id }

// Thumbprint is the RFC 7638 thumbprint of the public key, empty for HS256,
// which has none. It is the ID too, unless a JWKS document gave another.
func (k Key) Thumbprint() string {
	if k.material == nil {
		return ""
	}
	return thumbprint(k.material.public)
}

// Algorithm is the one algorithm the key is used with.
func (k Key) Algorithm() Algorithm { return k.algorithm }

// Created is when the key was made; the zero time for a key out of a JWKS document.
func (k Key) Created() time.Time { return k.created }

// CanSign reports whether the key has its private part.
func (k Key) CanSign() bool { return k.material != nil && k.material.private != nil }

// sign signs the encoded header and claims.
func (k Key) sign(input string) ([]byte, error) {
	return k.material.method.Sign(input, k.material.private)
}

// verify checks the signature of the encoded header and claims.
func (k Key) verify(input string, signature []byte) bool {
	return k.material.method.Verify(input, signature, k.material.public) == nil
}

// String names the key without its secret part.
func (k Key) String() string { return fmt.Sprintf("%s key %s", k.algorithm, k.id) }

// GoString names the key without its secret part.
func (k Key) GoString() string { return k.String() }

// Format names the key without its secret part, whatever the verb.
func (k Key) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(k.String())) }

// LogValue is the key's id, algorithm and age.
func (k Key) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String("kid", k.id),
		slog.String("algorithm", string(k.algorithm)),
		slog.Time("created", k.created),
	)
}
