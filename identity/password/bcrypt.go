package password

import (
	"encoding/base64"

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
)

// encoding is bcrypt's own base64.
var encoding = base64.NewEncoding("./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789").WithPadding(base64.NoPadding)

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

// advance does at most the given number of rounds and reports whether none is left.
func (r *bcryptRun) advance(rounds int) bool {
	rounds = min(rounds, r.left)
	for range rounds {
		blowfish.ExpandKey(r.key, r.cipher)
		blowfish.ExpandKey(r.salt, r.cipher)
	}
	r.left -= rounds
	return r.left == 0
}

// digest ends the computation once advance has reported true: the 31
// characters that are stored.
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
