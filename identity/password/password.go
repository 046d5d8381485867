// Package password turns passwords into stored hashes and checks them.
//
// A password of up to 1,024 bytes in any script is accepted whole: bcrypt
// looks at 72 bytes only, so the password is first reduced with HMAC-SHA-256
// and the result is what bcrypt hashes. The stored form says so with a scheme
// tag of its own (see [Hash]). Hashes that were made elsewhere, with bcrypt,
// argon2, scrypt or PBKDF2, verify too, within limits of what they may cost: at
// most about two seconds and 256 MiB. Which new passwords are accepted says a
// [Policy].
//
// Hashing costs a quarter of a second of CPU on purpose. [Pool] keeps that
// work in a few threads of low priority behind a bounded queue, so that a
// flood of logins slows logins and nothing else.
//
// The package does not store anything, does not throttle guesses and knows
// nothing about users.
package password

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// MaxBytes is the longest password accepted, in bytes as it was given. It
// bounds what an anonymous caller can make the server normalise and hash.
const MaxBytes = 1024

// ErrSecret is returned by the encoders of [Password] and [Hash]: neither may
// become part of a JSON document, an event or a log record.
var ErrSecret = errors.New("password: a secret is not encoded")

const hidden = "[hidden]"

// Password is a password as its user typed it. It never prints itself: every
// fmt verb, slog and the text encoders hide it. (Only a value in an unexported
// field of a struct that is printed whole escapes, because fmt cannot call
// methods there.) Convert with Password(s) and string(p).
type Password string

// String hides the password.
func (Password) String() string { return hidden }

// GoString hides the password.
func (Password) GoString() string { return hidden }

// Format hides the password, whatever the verb.
func (Password) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(hidden)) }

// LogValue hides the password.
func (Password) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText returns [ErrSecret].
func (Password) MarshalText() ([]byte, error) { return nil, ErrSecret }

// Hash is the stored form of a password. This package writes
//
//	$bcrypt-sha256$v=2,t=2b,r=12$<salt, 22>$<digest, 31>
//
// which is the scheme that passlib named bcrypt_sha256 version 2, so other
// software can read it: the password (normalised, UTF-8) goes through
// HMAC-SHA-256 under the salt's 22 characters, the result in base64 goes
// through bcrypt under the same salt. The HMAC is keyed by the salt so that an
// unsalted SHA-256 found in a leak elsewhere is of no use against it.
//
// It reads what was made elsewhere, from the bytes of the password as they were
// typed, in the forms of crypt, of the PHC string format, of passlib and of Django:
//
//	$2a$12$<salt, 22><digest, 31>                      also $2b$, $2y$
//	$argon2id$v=19$m=65536,t=3,p=4$<salt>$<digest>     also argon2i
//	$scrypt$ln=16,r=8,p=1$<salt>$<digest>
//	$pbkdf2-sha256$i=600000$<salt>$<digest>            also sha1, sha512; also with ,l=32
//	$pbkdf2-sha256$29000$<salt>$<digest>               also sha512; $pbkdf2$ is SHA-1
//	bcrypt$$2b$12$…   bcrypt_sha256$$2b$12$…   argon2$argon2id$v=19$…
//	scrypt$16384$<salt>$8$5$<digest>   pbkdf2_sha256$600000$<salt>$<digest>   also sha1
//
// The limits, past which a hash is not read ([ErrCost]): bcrypt of cost 4 to
// 15; argon2 and scrypt of 256 MiB, argon2 of 2^20 KiB times passes and 64
// lanes, scrypt of 512 MiB times p; PBKDF2 of 1,000 to 3,000,000 iterations; salts of 4 to
// 64 bytes, digests of 16 to 64.
//
// Like [Password], it never prints itself. Convert with Hash(s) and string(h).
type Hash string

// String hides the hash.
func (Hash) String() string { return hidden }

// GoString hides the hash.
func (Hash) GoString() string { return hidden }

// Format hides the hash, whatever the verb.
func (Hash) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(hidden)) }

// LogValue hides the hash.
func (Hash) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText returns [ErrSecret].
func (Hash) MarshalText() ([]byte, error) { return nil, ErrSecret }

// Value gives a database driver the hash itself. Without it a driver that
// prefers String would store the word that hides it.
func (h Hash) Value() (driver.Value, error) { return string(h), nil }

// defects lists what makes a password unusable whatever the policy.
func (p Password) defects() []Reason {
	var reasons []Reason
	if len(p) > MaxBytes {
		return []Reason{TooLong}
	}
	if !utf8.ValidString(string(p)) {
		reasons = append(reasons, InvalidUTF8)
	}
	for i := range len(p) {
		if p[i] == 0 {
			reasons = append(reasons, ContainsNUL)
			break
		}
	}
	return reasons
}

// check returns a [*RefusedError] for a password that can't be hashed.
func (p Password) check() error {
	if reasons := p.defects(); reasons != nil {
		return &RefusedError{Reasons: reasons}
	}
	return nil
}

// normalised is the one spelling of the password that is hashed. The same
// keys give different code points on different devices: composed and
// decomposed accents, half-width and full-width letters of an input method.
// NFKC is one of the two forms that NIST SP 800-63B (5.1.1.2) asks for, and
// unlike NFC it also folds the widths.
func (p Password) normalised() string { return norm.NFKC.String(string(p)) }
