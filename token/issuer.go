package token

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/google/uuid"
)

// IssuerConfig sets up an [Issuer].
type IssuerConfig struct {
	Keys     *KeyRing      // required
	Issuer   string        // iss, required
	Audience []string      // aud, at least one
	Lifetime time.Duration // from iat to exp, at least a second

	Now    func() time.Time // nil stands for time.Now
	Random io.Reader        // of the jti, safe for concurrent use; nil stands for crypto/rand
}

// Issuer issues access tokens. It is safe for concurrent use.
type Issuer struct{ config IssuerConfig }

// Grant is what an access token is issued for.
type Grant struct {
	Subject string   // the user id, required
	Client  string   // the client that it is issued to; [LoginClient] when empty
	Session string   // the session id
	Roles   []string // as of now: a change shows in the next token
	Scopes  []string // what the bearer may do at most

	// Actors are the clients that act for the subject: see [Claims].
	Actors []string
	// Confirmation is the thumbprint of the key that the token is bound to; of none when empty.
	Confirmation string
	// Audience is whom the token is for; that of the issuer when empty.
	Audience []string
	// Lifetime is how long it lives, where that is shorter than the issuer's; 0 for no shorter.
	Lifetime time.Duration

	// Until bounds the token's life; the zero time doesn't.
	Until time.Time
}

// NewIssuer checks the configuration and returns an error that names the
// field that is missing.
func NewIssuer(config IssuerConfig) (*Issuer, error) {
	switch {
	case config.Keys == nil:
		return nil, errors.New("token: issuer without Keys")
	case config.Issuer == "":
		return nil, errors.New("token: issuer without Issuer")
	case len(config.Audience) == 0 || slices.Contains(config.Audience, ""):
		return nil, errors.New("token: issuer without Audience")
	case config.Lifetime < time.Second:
		return nil, errors.New("token: issuer with a Lifetime of less than a second")
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Random == nil {
		config.Random = rand.Reader
	}
	config.Audience = slices.Clone(config.Audience)
	return &Issuer{config: config}, nil
}

// Name is the iss of the issuer's tokens.
func (i *Issuer) Name() string { return i.config.Issuer }

// Issue signs an access token and returns it with its claims. It returns
// [ErrNoSigningKey], [ErrMalformed] for a grant without a subject, or
// [ErrTooLarge] if the roles don't fit into a token.
func (i *Issuer) Issue(grant Grant) (string, Claims, error) {
	if grant.Subject == "" {
		return "", Claims{}, fmt.Errorf("issue token without subject: %w", ErrMalformed)
	}
	key, err := i.config.Keys.signing()
	if err != nil {
		return "", Claims{}, fmt.Errorf("issue token: %w", err)
	}
	now := i.config.Now()
	id, err := newID(now, i.config.Random)
	if err != nil {
		return "", Claims{}, fmt.Errorf("issue token: %w", err)
	}
	issued := now.UTC().Truncate(time.Second)
	lifetime := i.config.Lifetime
	if grant.Lifetime > 0 {
		lifetime = min(lifetime, grant.Lifetime)
	}
	expires := issued.Add(lifetime.Truncate(time.Second))
	if until := grant.Until.UTC().Truncate(time.Second); !grant.Until.IsZero() && until.Before(expires) {
		expires = until
	}
	claims := Claims{
		Issuer:    i.config.Issuer,
		Subject:   grant.Subject,
		Audience:  audienceOf(grant, i.config),
		ExpiresAt: expires,
		NotBefore: issued,
		IssuedAt:  issued,
		ID:        id.String(),
		Client:    cmp.Or(grant.Client, LoginClient),
		Session:   grant.Session,
		Roles:     slices.Clone(grant.Roles),
		Scopes:    slices.Clone(grant.Scopes),

		Actors:       slices.Clone(grant.Actors),
		Confirmation: grant.Confirmation,
	}
	raw, err := encode(key, key.material.header, claims)
	if err != nil {
		return "", Claims{}, fmt.Errorf("issue token: %w", err)
	}
	return raw, claims, nil
}

func audienceOf(grant Grant, c IssuerConfig) []string {
	if len(grant.Audience) > 0 {
		return slices.Clone(grant.Audience)
	}
	return slices.Clone(c.Audience)
}

// encode signs the claims, under a header that is encoded already, in JWS compact form.
func encode(key Key, header string, claims json.Marshaler) (string, error) {
	body, err := claims.MarshalJSON()
	if err != nil {
		return "", err
	}
	input := header + "." + base64url.EncodeToString(body)
	signature, err := key.sign(input)
	if err != nil {
		return "", fmt.Errorf("sign with key %s: %w", key.id, err)
	}
	raw := input + "." + base64url.EncodeToString(signature)
	if len(raw) > MaxBytes {
		return "", ErrTooLarge
	}
	return raw, nil
}

// newID is a UUIDv7 (RFC 9562, section 5.7) of the given time and randomness.
func newID(now time.Time, random io.Reader) (uuid.UUID, error) {
	var id uuid.UUID
	if _, err := io.ReadFull(random, id[:]); err != nil {
		return uuid.Nil, fmt.Errorf("read randomness: %w", err)
	}
	ms := now.UnixMilli()
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	return id, nil
}

// header is the JOSE header.
type header struct {
	Alg  string          `json:"alg"`
	Typ  string          `json:"typ"`
	Kid  string          `json:"kid"`
	Crit json.RawMessage `json:"crit,omitempty"`
}

// encodeHeader is the header of every token of a type that a key signs.
func encodeHeader(algorithm Algorithm, id, typ string) string {
	// A struct of valid strings always marshals.
	data, _ := json.Marshal(header{Alg: string(algorithm), Typ: typ, Kid: id})
	return base64url.EncodeToString(data)
}
