package password

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
)

// Errors about stored hashes and settings.
var (
	// ErrUnknownScheme: the stored hash is in no form this package reads.
	ErrUnknownScheme = errors.New("password: unknown form of hash")
	// ErrCost: a cost outside the limits, in a stored hash or a setting; or a
	// salt or digest in a stored hash that is too short or too long.
	ErrCost = errors.New("password: cost of a hash outside the limits")
)

// How every hash that this package writes begins.
const (
	ownScheme     = "bcrypt-sha256"
	ownParameters = "v=2,t=2b,r="
)

// Limits of what is read, for all schemes that don't fix them.
const (
	maxHashBytes   = 512
	minSaltBytes   = 4
	maxSaltBytes   = 64
	minDigestBytes = 16
	maxDigestBytes = 64
)

// maxMemory is what argon2 and scrypt may fill, on purpose, to be dear: for one
// hash, and for all that are computed at the same time in a pool. What has been
// filled is garbage afterwards, so the heap may be twice that for a while.
const maxMemory = 256 << 20

// stored is a parsed [Hash].
type stored struct {
	method
	digest string // bytes; for bcrypt its 31 characters
}

// method is a way to compute the digest of a password: a scheme with its cost
// and salt.
type method interface {
	// begin prepares the computation, or does all of it where it can't stop on
	// the way. An error has nothing to do with the password.
	begin(Password) (computation, error)
	// memory is what the computation fills, in bytes.
	memory() int
}

// computation is the work of one digest, which goes on at any time and on any
// thread.
type computation interface {
	// advance works for a few milliseconds and reports whether nothing is left to do.
	advance() bool
	// digest ends the computation once advance has reported true.
	digest() string
}

// whole is a computation that was done in one piece: its digest.
type whole string

func (whole) advance() bool    { return true }
func (w whole) digest() string { return string(w) }

// parse reads a stored hash. It returns [ErrUnknownScheme] or [ErrCost]; the
// errors hold nothing of the hash.
func parse(hash Hash) (stored, error) {
	if len(hash) > maxHashBytes || strings.IndexFunc(string(hash), func(r rune) bool { return r <= ' ' || r > '~' }) >= 0 {
		return stored{}, ErrUnknownScheme
	}
	name, rest, _ := strings.Cut(string(hash), "$")
	switch name { // Django puts the name of its hasher before everything
	case "":
		return parseNamed(rest)
	case "bcrypt":
		return parsePlainBcrypt(asTyped, rest)
	case "bcrypt_sha256":
		return parsePlainBcrypt(sha256Hex, rest)
	case "argon2":
		if strings.HasPrefix(rest, "argon2") {
			return parseNamed(rest)
		}
	case "scrypt":
		return parseDjangoScrypt(rest)
	case "pbkdf2_sha1":
		return parseDjangoPBKDF2(sha1.New, rest)
	case "pbkdf2_sha256":
		return parseDjangoPBKDF2(sha256.New, rest)
	}
	return stored{}, ErrUnknownScheme
}

// parseNamed reads a hash that begins with the name of its scheme, the $ before it left out.
func parseNamed(text string) (stored, error) {
	name, rest, _ := strings.Cut(text, "$")
	switch name {
	case ownScheme:
		return parseOwnBcrypt(rest)
	case "2a", "2b", "2y":
		return parsePlainBcrypt(asTyped, "$"+text)
	case "argon2i":
		return parseArgon2(argon2.Key, rest)
	case "argon2id":
		return parseArgon2(argon2.IDKey, rest)
	case "scrypt":
		return parseScrypt(rest)
	case "pbkdf2": // passlib's name of SHA-1
		return parsePBKDF2(sha1.New, rest)
	}
	if function, ok := strings.CutPrefix(name, "pbkdf2-"); ok {
		if newHash, ok := pbkdf2Hashes[function]; ok {
			return parsePBKDF2(newHash, rest)
		}
	}
	return stored{}, ErrUnknownScheme
}

// parameters reads "m=65536,t=3,p=4": numbers, with these names in this order.
func parameters(text string, names ...string) ([]int, error) {
	parts := strings.Split(text, ",")
	if len(parts) != len(names) {
		return nil, ErrUnknownScheme
	}
	numbers := make([]int, len(names))
	for i, part := range parts {
		value, ok := strings.CutPrefix(part, names[i]+"=")
		if !ok {
			return nil, ErrUnknownScheme
		}
		var err error
		if numbers[i], err = number(value); err != nil {
			return nil, err
		}
	}
	return numbers, nil
}

// number reads a number in its one spelling. One that is too large to be a
// cost is ErrCost.
func number(text string) (int, error) {
	if text == "" || strings.Trim(text, "0123456789") != "" || text[0] == '0' && text != "0" {
		return 0, ErrUnknownScheme
	}
	if len(text) > 9 {
		return 0, ErrCost
	}
	return strconv.Atoi(text)
}

// decodeSaltAndDigest reads both and checks their lengths.
func decodeSaltAndDigest(encoding *base64.Encoding, saltText, digestText string) (salt, digest []byte, err error) {
	if salt, err = encoding.Strict().DecodeString(saltText); err != nil {
		return nil, nil, ErrUnknownScheme
	}
	if digest, err = encoding.Strict().DecodeString(digestText); err != nil {
		return nil, nil, ErrUnknownScheme
	}
	return salt, digest, checkLengths(len(salt), len(digest))
}

// decodeDjango reads a digest in Django's encoding and checks its length and
// that of the salt, whose characters are used as they are.
func decodeDjango(salt, digestText string) ([]byte, error) {
	digest, err := base64.StdEncoding.Strict().DecodeString(digestText)
	if err != nil {
		return nil, ErrUnknownScheme
	}
	return digest, checkLengths(len(salt), len(digest))
}

func checkLengths(salt, digest int) error {
	if salt < minSaltBytes || salt > maxSaltBytes || digest < minDigestBytes || digest > maxDigestBytes {
		return ErrCost
	}
	return nil
}

// compute is the digest of a password, on the caller's own thread.
func compute(m method, password Password) (string, error) {
	run, err := m.begin(password)
	if err != nil {
		return "", err
	}
	for !run.advance() {
	}
	return run.digest(), nil
}

// matches compares in constant time.
func (s stored) matches(digest string) bool {
	return subtle.ConstantTimeCompare([]byte(s.digest), []byte(digest)) == 1
}

// outdated reports whether a new hash of the same password would look different.
func (s stored) outdated(cost int) bool {
	m, ok := s.method.(bcryptMethod)
	return !ok || m.key != hmacKey || m.cost != cost
}

// New hashes a password on the caller's own thread; a server uses [Pool.Hash].
// It returns a [*RefusedError] or [ErrCost].
func New(password Password, cost int) (Hash, error) {
	if err := password.check(); err != nil {
		return "", err
	}
	m, err := fresh(cost)
	if err != nil {
		return "", err
	}
	digest, err := compute(m, password)
	return m.encode(digest), err
}

// Verify reports whether hash is that of password, on the caller's own
// thread; a server uses [Pool.Verify]. It returns a [*RefusedError],
// [ErrUnknownScheme] or [ErrCost], or what the algorithm's library has against
// the hash, as it may in FIPS 140-only mode.
func Verify(hash Hash, password Password) (bool, error) {
	if err := password.check(); err != nil {
		return false, err
	}
	s, err := parse(hash)
	if err != nil {
		return false, err
	}
	digest, err := compute(s.method, password)
	if err != nil {
		return false, err
	}
	return s.matches(digest), nil
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
