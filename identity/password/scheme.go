package password

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Errors about stored hashes and settings.
var (
	// ErrUnknownScheme: the stored hash is in no form this package reads.
	ErrUnknownScheme = errors.New("password: unknown form of hash")
	// ErrCost: a cost below MinCost or above MaxCost, in a stored hash or a setting.
	ErrCost = fmt.Errorf("password: cost outside %d to %d", MinCost, MaxCost)
)

// sha256Prefix opens every hash that this package writes.
const sha256Prefix = "$bcrypt-sha256$v=2,t=2b,r="

// stored is a parsed [Hash].
type stored struct {
	prehashed bool // HMAC-SHA-256 before bcrypt; plain bcrypt otherwise
	cost      int
	salt      [saltBytes]byte
	saltText  string
	digest    string
}

// parse reads a stored hash. It returns [ErrUnknownScheme] or [ErrCost]; the
// errors hold nothing of the hash.
func parse(hash Hash) (stored, error) {
	s := string(hash)
	if rest, ok := strings.CutPrefix(s, sha256Prefix); ok {
		cost, rest, _ := strings.Cut(rest, "$")
		salt, digest, _ := strings.Cut(rest, "$")
		if strings.HasPrefix(cost, "0") {
			return stored{}, ErrUnknownScheme
		}
		return newStored(true, cost, salt, digest)
	}
	if len(s) != len("$2b$12$")+saltChars+digestChars || s[6] != '$' {
		return stored{}, ErrUnknownScheme
	}
	switch s[:4] {
	case "$2a$", "$2b$", "$2y$": // one computation under three names; $2x$ was a bug
		return newStored(false, s[4:6], s[7:7+saltChars], s[7+saltChars:])
	}
	return stored{}, ErrUnknownScheme
}

func newStored(prehashed bool, cost, salt, digest string) (stored, error) {
	s := stored{prehashed: prehashed, saltText: salt, digest: digest}
	if len(cost) == 0 || len(cost) > 2 || strings.Trim(cost, "0123456789") != "" ||
		len(salt) != saltChars || len(digest) != digestChars || strings.ContainsAny(salt+digest, "\r\n") {
		return stored{}, ErrUnknownScheme
	}
	if _, err := encoding.Decode(make([]byte, digestChars), []byte(digest)); err != nil {
		return stored{}, ErrUnknownScheme
	}
	var decoded [saltBytes + 1]byte
	if n, err := encoding.Decode(decoded[:], []byte(salt)); err != nil || n != saltBytes {
		return stored{}, ErrUnknownScheme
	}
	copy(s.salt[:], decoded[:])
	var err error
	if s.cost, err = strconv.Atoi(cost); err != nil {
		return stored{}, ErrUnknownScheme
	}
	if s.cost < MinCost || s.cost > MaxCost {
		return stored{}, ErrCost
	}
	return s, nil
}

// fresh is a hash of our own scheme that still lacks its digest.
func fresh(cost int) (stored, error) {
	if cost < MinCost || cost > MaxCost {
		return stored{}, ErrCost
	}
	s := stored{prehashed: true, cost: cost}
	_, _ = rand.Read(s.salt[:]) // never fails
	s.saltText = encoding.EncodeToString(s.salt[:])
	return s, nil
}

// run prepares the computation of the digest of a password under this hash's
// salt and cost. Plain bcrypt gets the bytes as they were typed, because that
// is what the software that made the hash had; what lies beyond its 72 bytes
// doesn't count there, as it didn't then.
func (s stored) run(password Password) *bcryptRun {
	if !s.prehashed {
		return newBcryptRun(string(password), s.salt, s.cost)
	}
	mac := hmac.New(sha256.New, []byte(s.saltText))
	mac.Write([]byte(password.normalised()))
	return newBcryptRun(base64.StdEncoding.EncodeToString(mac.Sum(nil)), s.salt, s.cost)
}

// matches compares in constant time.
func (s stored) matches(digest string) bool {
	return subtle.ConstantTimeCompare([]byte(s.digest), []byte(digest)) == 1
}

// outdated reports whether a new hash of the same password would look different.
func (s stored) outdated(cost int) bool { return !s.prehashed || s.cost != cost }

// encode is the stored form, once the digest is known.
func (s stored) encode(digest string) Hash {
	return Hash(sha256Prefix + strconv.Itoa(s.cost) + "$" + s.saltText + "$" + digest)
}

// New hashes a password on the caller's own thread; a server uses [Pool.Hash].
// It returns a [*RefusedError] or [ErrCost].
func New(password Password, cost int) (Hash, error) {
	if err := password.check(); err != nil {
		return "", err
	}
	s, err := fresh(cost)
	if err != nil {
		return "", err
	}
	run := s.run(password)
	run.advance(run.left)
	return s.encode(run.digest()), nil
}

// Verify reports whether hash is that of password, on the caller's own
// thread; a server uses [Pool.Verify]. It returns a [*RefusedError],
// [ErrUnknownScheme] or [ErrCost].
func Verify(hash Hash, password Password) (bool, error) {
	if err := password.check(); err != nil {
		return false, err
	}
	s, err := parse(hash)
	if err != nil {
		return false, err
	}
	run := s.run(password)
	run.advance(run.left)
	return s.matches(run.digest()), nil
}

// Check returns nil, [ErrUnknownScheme] or [ErrCost]: whether Verify could
// work with the hash. An import asks before it stores one.
func Check(hash Hash) error {
	_, err := parse(hash)
	return err
}

// NeedsRehash reports whether hash has another scheme or another cost than New
// would give it, so that it should be replaced when its password is next at
// hand. A hash that can't be read needs it too.
func NeedsRehash(hash Hash, cost int) bool {
	s, err := parse(hash)
	return err != nil || s.outdated(cost)
}
