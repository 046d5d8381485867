package password

import (
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"hash"
	"strings"
)

// Limits of a PBKDF2 hash, in iterations; a digest that is longer than its
// hash function's counts as several. The upper one takes about two seconds.
const (
	minIterations = 1000 // what RFC 2898 named as a minimum in the year 2000
	maxIterations = 3_000_000
)

// pbkdf2Method is PBKDF2 (RFC 8018) with HMAC.
type pbkdf2Method struct {
	hash       func() hash.Hash
	iterations int
	salt       []byte
	length     int // of the digest
}

// pbkdf2Hashes are the hash functions by their names in those of the schemes.
var pbkdf2Hashes = map[string]func() hash.Hash{"sha1": sha1.New, "sha256": sha256.New, "sha512": sha512.New}

// passlibEncoding is the base64 of passlib's own forms.
var passlibEncoding = base64.NewEncoding("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789./").WithPadding(base64.NoPadding)

// parsePBKDF2 reads what follows the name, in the PHC string format,
// i=600000$<salt>$<digest> or i=600000,l=32$…, or in that of passlib,
// 600000$<salt>$<digest>.
func parsePBKDF2(newHash func() hash.Hash, text string) (stored, error) {
	parts := strings.Split(text, "$")
	if len(parts) != 3 {
		return stored{}, ErrUnknownScheme
	}
	if !strings.HasPrefix(parts[0], "i=") {
		salt, digest, err := decodeSaltAndDigest(passlibEncoding, parts[1], parts[2])
		if err != nil {
			return stored{}, err
		}
		iterations, err := number(parts[0])
		if err != nil {
			return stored{}, err
		}
		return newPBKDF2(newHash, iterations, salt, digest)
	}
	salt, digest, err := decodeSaltAndDigest(base64.RawStdEncoding, parts[1], parts[2])
	if err != nil {
		return stored{}, err
	}
	names := []string{"i"}
	if strings.Contains(parts[0], ",") {
		names = append(names, "l")
	}
	p, err := parameters(parts[0], names...)
	if err != nil {
		return stored{}, err
	}
	if len(p) == 2 && p[1] != len(digest) {
		return stored{}, ErrUnknownScheme
	}
	return newPBKDF2(newHash, p[0], salt, digest)
}

// parseDjangoPBKDF2 reads what follows Django's name: 600000$<salt>$<digest>.
func parseDjangoPBKDF2(newHash func() hash.Hash, text string) (stored, error) {
	parts := strings.Split(text, "$")
	if len(parts) != 3 {
		return stored{}, ErrUnknownScheme
	}
	digest, err := decodeDjango(parts[1], parts[2])
	if err != nil {
		return stored{}, err
	}
	iterations, err := number(parts[0])
	if err != nil {
		return stored{}, err
	}
	return newPBKDF2(newHash, iterations, []byte(parts[1]), digest)
}

func newPBKDF2(newHash func() hash.Hash, iterations int, salt, digest []byte) (stored, error) {
	m := pbkdf2Method{hash: newHash, iterations: iterations, salt: salt, length: len(digest)}
	size := newHash().Size()
	if iterations < minIterations || iterations > maxIterations/((m.length+size-1)/size) {
		return stored{}, ErrCost
	}
	return stored{method: m, digest: string(digest)}, nil
}

func (pbkdf2Method) memory() int { return 0 }

// begin hashes the bytes as they were typed.
func (m pbkdf2Method) begin(password Password) (computation, error) {
	digest, err := pbkdf2.Key(m.hash, string(password), m.salt, m.iterations, m.length)
	if err != nil {
		return nil, fmt.Errorf("compute PBKDF2: %w", err)
	}
	return whole(digest), nil
}
