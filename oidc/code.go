package oidc

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"regexp"
	"time"

	"github.com/google/uuid"
)

// codeLifetime is how long a code is good: as long as a browser and an application need to hand it over.
const codeLifetime = 60 * time.Second

// code is what a user has agreed to, as the code says that the client gets of it. It is nowhere else: a code is sealed under a key that
// is in no database, and used up by the grant that it names, which begins once.
type code struct {
	Grant     uuid.UUID `json:"g"`
	User      uuid.UUID `json:"u"`
	Client    uuid.UUID `json:"c"`
	Session   uuid.UUID `json:"s"` // that the user was logged in to
	Scopes    []string  `json:"sc"`
	Methods   []string  `json:"m"`
	Redirect  string    `json:"r"`
	Challenge string    `json:"ch,omitempty"` // of PKCE; none for a client that can't
	Nonce     string    `json:"n,omitempty"`
	Until     int64     `json:"x"` // Unix seconds
}

// sealer seals codes.
type sealer struct{ aead cipher.AEAD }

// newSealer makes one of a key of 32 bytes.
func newSealer(key []byte) (sealer, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return sealer{}, fmt.Errorf("seal codes: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return sealer{}, fmt.Errorf("seal codes: %w", err)
	}
	return sealer{aead}, nil
}

var (
	codeText = base64.RawURLEncoding.Strict()
	codeUse  = []byte("authorization code, form 1") // what else may be sealed with the same key is no code
)

// maxCode bounds the text of a code: what a request may have in it, sealed.
const maxCode = 8 << 10

func (s sealer) seal(c code) (string, error) {
	raw, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	return codeText.EncodeToString(s.aead.Seal(nil, nil, raw, codeUse)), nil
}

// open is false for everything that seal did not make.
func (s sealer) open(text string) (c code, ok bool) {
	if len(text) > maxCode {
		return c, false
	}
	raw, err := codeText.DecodeString(text)
	if err == nil {
		raw, err = s.aead.Open(nil, nil, raw, codeUse)
	}
	return c, err == nil && json.Unmarshal(raw, &c) == nil
}

// challengeForm is what S256 makes of a verifier, and verifierForm what a verifier is (RFC 7636, section 4).
var (
	challengeForm = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)
	verifierForm  = regexp.MustCompile(`^[A-Za-z0-9._~-]{43,128}$`)
)

// proves says whether a verifier is that of the code's challenge. One that is shown where there was no challenge is refused: somebody
// has taken the challenge out of the request (RFC 9700, section 4.8.2).
func (c code) proves(verifier string) bool {
	if c.Challenge == "" || verifier == "" {
		return c.Challenge == verifier
	}
	sum := sha256.Sum256([]byte(verifier))
	return verifierForm.MatchString(verifier) && subtle.ConstantTimeCompare([]byte(codeText.EncodeToString(sum[:])), []byte(c.Challenge)) == 1
}
