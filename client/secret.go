package client

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"hash/crc32"
	"log/slog"
	"strings"
	"time"

	"github.com/google/uuid"

	"usher.example/identity"
)

// Secret proves that a request is a client's: together with the client's id, or, as a key, alone. It can't be printed by accident.
//
// Either is random enough that nothing slow is needed to store it: the database has its SHA-256.
type Secret string

func (Secret) String() string       { return "[hidden]" }
func (Secret) GoString() string     { return "[hidden]" }
func (Secret) LogValue() slog.Value { return slog.StringValue("[hidden]") }

type digest = [sha256.Size]byte

func (s Secret) digest() digest { return sha256.Sum256([]byte(s)) }

// prefix is what a secret may be known by.
func (s Secret) prefix() string {
	if strings.HasPrefix(string(s), KeyPrefix) {
		return string(s[:keyShown])
	}
	return secretPrefix
}

const (
	// secretPrefix lets programs that look for leaked secrets know one.
	secretPrefix = "usher_secret_"
	// KeyPrefix is what every key begins with, and no access token does.
	KeyPrefix = "usher_sk_"

	base62    = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	keyRandom = 30 // characters of a key
	keySum    = 6
	keyShown  = len(KeyPrefix) + 4
)

func newSecret() Secret {
	raw := make([]byte, 32)
	rand.Read(raw)
	return Secret(secretPrefix + base64.RawURLEncoding.EncodeToString(raw))
}

// newKey makes a key: behind the prefix 36 characters of base 62, 30 that are random, of some 178 bits, and 6 that are the CRC-32 of
// those. So programs that look for leaked secrets know one without asking, and a typing error is told from a wrong key. The form is
// that of GitHub's tokens ("Behind GitHub's new authentication token formats", 2021).
func newKey() Secret {
	random := make([]byte, 0, keyRandom)
	var raw [1]byte
	for len(random) < keyRandom {
		rand.Read(raw[:])
		if n := raw[0] & 63; int(n) < len(base62) { // a remainder would have some characters come more often
			random = append(random, base62[n])
		}
	}
	return Secret(KeyPrefix + string(random) + checksum(string(random)))
}

// checksum is the CRC-32 of a text in base 62.
func checksum(text string) string {
	sum := crc32.ChecksumIEEE([]byte(text))
	digits := [keySum]byte{}
	for i := range digits {
		digits[keySum-1-i] = base62[sum%uint32(len(base62))]
		sum /= uint32(len(base62))
	}
	return string(digits[:])
}

// IsKey says whether a bearer token is a key, whoever's, and whether it was typed right.
func IsKey(raw string) (is, typed bool) {
	rest, is := strings.CutPrefix(raw, KeyPrefix)
	return is, is && len(rest) == keyRandom+keySum && checksum(rest[:keyRandom]) == rest[keyRandom:]
}

// Credential is a secret or a key, as everybody may know it who may know of the client.
type Credential struct {
	ID        uuid.UUID  `json:"id"`
	Kind      string     `json:"kind"`   // identity.SecretShared or identity.SecretKey
	Prefix    string     `json:"prefix"` // what it begins with
	Scopes    []string   `json:"scopes"` // of a key
	CreatedAt time.Time  `json:"created_at"`
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
	UsedAt    *time.Time `json:"last_used_at,omitempty"` // to the minute

	digest digest
}

// good says whether it is of use at a time.
func (c Credential) good(now time.Time) bool { return c.ExpiresAt == nil || now.Before(*c.ExpiresAt) }

func (c Credential) isKey() bool { return c.Kind == identity.SecretKey }
