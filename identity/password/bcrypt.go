package password

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strconv"
	"strings"

	//lint:ignore SA1019 bcrypt is made of Blowfish; nothing is encrypted with it here
	"golang.org/x/crypto/blowfish"
)

// Limits of the cost, the binary logarithm of bcrypt's rounds. The upper one
// bounds what a stored hash, which may have been imported, can make a login
// burn: cost 15 is about two seconds.
const (
	MinCost     = 4
	MaxCost     = 15
	DefaultCost = 12
)

const (
	saltBytes   = 16
	saltChars   = 22
	digestChars = 31
	maxKeyBytes = 72 // what bcrypt looks at
	bcryptSlice = 64 // rounds
)

// encoding is bcrypt's own base64.
var encoding = base64.NewEncoding("./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789").WithPadding(base64.NoPadding)

// bcryptMethod is bcrypt of a key that is made of the password.
type bcryptMethod struct {
	key      bcryptKey
	cost     int
	salt     [saltBytes]byte
	saltText string
}

// bcryptKey is how a password becomes the key of bcrypt.
type bcryptKey int

const (
	asTyped   bcryptKey = iota // what lies beyond 72 bytes doesn't count, as it didn't where the hash was made
	hmacKey                    // this package's own: see Hash
	sha256Hex                  // Django's bcrypt_sha256
)

// parseOwnBcrypt reads what follows the name in this package's own form:
// v=2,t=2b,r=12$<salt>$<digest>.
func parseOwnBcrypt(text string) (stored, error) {
	rest, ok := strings.CutPrefix(text, ownParameters)
	parts := strings.Split(rest, "$")
	if !ok || len(parts) != 3 || strings.HasPrefix(parts[0], "0") {
		return stored{}, ErrUnknownScheme
	}
	return newBcrypt(hmacKey, parts[0], parts[1], parts[2])
}

// parsePlainBcrypt reads $2b$12$<salt><digest>. $2a$ and $2y$ are other names
// of the same computation; $2x$ was a bug.
func parsePlainBcrypt(key bcryptKey, text string) (stored, error) {
	parts := strings.Split(text, "$")
	if len(parts) != 4 || parts[0] != "" || parts[1] != "2a" && parts[1] != "2b" && parts[1] != "2y" ||
		len(parts[2]) != 2 || len(parts[3]) != saltChars+digestChars {
		return stored{}, ErrUnknownScheme
	}
	return newBcrypt(key, parts[2], parts[3][:saltChars], parts[3][saltChars:])
}

func newBcrypt(key bcryptKey, cost, salt, digest string) (stored, error) {
	m := bcryptMethod{key: key, saltText: salt}
	if len(cost) == 0 || len(cost) > 2 || strings.Trim(cost, "0123456789") != "" ||
		len(salt) != saltChars || len(digest) != digestChars {
		return stored{}, ErrUnknownScheme
	}
	if _, err := encoding.Decode(make([]byte, digestChars), []byte(digest)); err != nil {
		return stored{}, ErrUnknownScheme
	}
	var decoded [saltBytes + 1]byte
	if n, err := encoding.Decode(decoded[:], []byte(salt)); err != nil || n != saltBytes {
		return stored{}, ErrUnknownScheme
	}
	copy(m.salt[:], decoded[:])
	var err error
	if m.cost, err = strconv.Atoi(cost); err != nil {
		return stored{}, ErrUnknownScheme
	}
	if m.cost < MinCost || m.cost > MaxCost {
		return stored{}, ErrCost
	}
	return stored{method: m, digest: digest}, nil
}

// fresh is how a new password is hashed.
func fresh(cost int) (bcryptMethod, error) {
	if cost < MinCost || cost > MaxCost {
		return bcryptMethod{}, ErrCost
	}
	m := bcryptMethod{key: hmacKey, cost: cost}
	_, _ = rand.Read(m.salt[:]) // never fails
	m.saltText = encoding.EncodeToString(m.salt[:])
	return m, nil
}

// encode is the stored form of a fresh hash, once the digest is known.
func (m bcryptMethod) encode(digest string) Hash {
	return Hash("$" + ownScheme + "$" + ownParameters + strconv.Itoa(m.cost) + "$" + m.saltText + "$" + digest)
}

func (bcryptMethod) memory() int { return 0 }

func (m bcryptMethod) begin(password Password) (computation, error) {
	key := string(password)
	switch m.key {
	case hmacKey:
		mac := hmac.New(sha256.New, []byte(m.saltText))
		mac.Write([]byte(password.normalised()))
		key = base64.StdEncoding.EncodeToString(mac.Sum(nil))
	case sha256Hex:
		sum := sha256.Sum256([]byte(password))
		key = hex.EncodeToString(sum[:])
	}
	return newBcryptRun(key, m.salt, m.cost), nil
}

// bcryptRun is one bcrypt computation that can stop after any round and go on
// later, on another thread if need be. golang.org/x/crypto/bcrypt offers
// neither that nor a salt of the caller's choice; its Blowfish does the work
// here too, and the tests hold the two against each other.
type bcryptRun struct {
	cipher *blowfish.Cipher
	key    []byte
	salt   []byte
	left   int
}

// newBcryptRun prepares the computation; key has at least one byte and at
// most 72 count.
func newBcryptRun(key string, salt [saltBytes]byte, cost int) *bcryptRun {
	k := make([]byte, 0, maxKeyBytes+1)
	k = append(k, key[:min(len(key), maxKeyBytes)]...)
	k = append(k, 0) // part of the key since the C original
	// The only error is about an empty key, and the NUL is always there.
	cipher, err := blowfish.NewSaltedCipher(k, salt[:])
	if err != nil {
		panic("password: " + err.Error())
	}
	return &bcryptRun{cipher: cipher, key: k, salt: salt[:], left: 1 << cost}
}

func (r *bcryptRun) advance() bool {
	rounds := min(bcryptSlice, r.left)
	for range rounds {
		blowfish.ExpandKey(r.key, r.cipher)
		blowfish.ExpandKey(r.salt, r.cipher)
	}
	r.left -= rounds
	return r.left == 0
}

// digest is the 31 characters that are stored.
func (r *bcryptRun) digest() string {
	text := []byte("OrpheanBeholderScryDoubt")
	for block := 0; block < len(text); block += blowfish.BlockSize {
		for range 64 {
			r.cipher.Encrypt(text[block:], text[block:])
		}
	}
	// The C original left the last byte out, so everybody does.
	return encoding.EncodeToString(text[:len(text)-1])
}
