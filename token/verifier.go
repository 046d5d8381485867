package token

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"
	"unsafe"

	lru "github.com/hashicorp/golang-lru/v2"
)

// DefaultRemember is how many verified tokens a [Verifier] remembers, about
// 1 KB each.
const DefaultRemember = 10_000

// VerifierConfig sets up a [Verifier].
type VerifierConfig struct {
	Keys     *KeyRing // required
	Issuer   string   // the one iss accepted, required
	Audience string   // has to be among aud, required

	Now func() time.Time // nil stands for time.Now
	// Remember is how many verified tokens are remembered at most. Zero stands
	// for DefaultRemember, a negative number for none.
	Remember int
	// Missing, if set, is told the kid of a token whose key is not in the ring,
	// which may be newer than the ring is: it may bring the ring up to date, and
	// the key is looked up once more. Anybody can make such tokens, so it must
	// bound what it does for them; it has to be safe for concurrent use.
	Missing func(kid string)
	// Bound takes tokens that are bound to a key too. The caller has to look at
	// [Claims.Confirmation] then, and check the proof that comes with such a token: see
	// [ProofVerifier]. Without it they are refused, with [ErrBound].
	Bound bool
	// Revoked, if set, is asked about every token that is otherwise valid, on
	// every call; it must be quick and safe for concurrent use.
	Revoked func(Claims) bool
}

// Verifier checks access tokens. It is safe for concurrent use.
type Verifier struct {
	config   VerifierConfig
	verified *lru.Cache[[sha256.Size]byte, *verified] // nil if none are remembered
}

// verified is a token whose signature, issuer and audience were right.
type verified struct {
	kid      string
	material *material // of the key that verified it: another key of the same id won't do
	claims   Claims
}

// NewVerifier checks the configuration and returns an error that names the
// field that is missing.
func NewVerifier(config VerifierConfig) (*Verifier, error) {
	switch {
	case config.Keys == nil:
		return nil, errors.New("token: verifier without Keys")
	case config.Issuer == "":
		return nil, errors.New("token: verifier without Issuer")
	case config.Audience == "":
		return nil, errors.New("token: verifier without Audience")
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Remember == 0 {
		config.Remember = DefaultRemember
	}
	v := &Verifier{config: config}
	if config.Remember > 0 {
		var err error
		if v.verified, err = lru.New[[sha256.Size]byte, *verified](config.Remember); err != nil {
			return nil, err // only for a size below one
		}
	}
	return v, nil
}

// Revoked reports whether what claims name is known to have been revoked, as
// [VerifierConfig] says; of a token, [Verifier.Verify] asks that itself.
func (v *Verifier) Revoked(claims Claims) bool {
	return v.config.Revoked != nil && v.config.Revoked(claims)
}

// Verify checks a token and returns its claims. Every error matches
// [ErrInvalid] and is one of [ErrTooLarge], [ErrMalformed], [ErrType],
// [ErrUnknownKey], [ErrAlgorithm], [ErrSignature], [ErrIssuer], [ErrBound],
// [ErrAudience], [ErrExpired], [ErrNotYetValid] and [ErrRevoked]. No claim is
// read before the signature is known to be right.
//
// A token seen before costs a SHA-256 and no allocation; time, key and
// revocation are checked all the same.
func (v *Verifier) Verify(raw string) (Claims, error) {
	if len(raw) > MaxBytes {
		return Claims{}, ErrTooLarge
	}
	if v.verified == nil {
		t, err := v.check(raw)
		if err != nil {
			return Claims{}, err
		}
		return v.admit(t)
	}
	// The string's own bytes: a conversion would copy them, and a hash only reads.
	sum := sha256.Sum256(unsafe.Slice(unsafe.StringData(raw), len(raw)))
	t, ok := v.verified.Get(sum)
	if ok {
		if key, found := v.config.Keys.byID(t.kid); found && key.material == t.material {
			claims, err := v.admit(t)
			if errors.Is(err, ErrExpired) {
				v.verified.Remove(sum)
			}
			return claims, err
		}
		v.verified.Remove(sum)
	}
	t, err := v.check(raw)
	if err != nil {
		return Claims{}, err
	}
	claims, err := v.admit(t)
	if err == nil {
		v.verified.Add(sum, t)
	}
	return claims, err
}

// check does what needs doing once a token and key: form, header, signature,
// issuer, audience.
func (v *Verifier) check(raw string) (*verified, error) {
	input, head, body, signature, err := split(raw)
	if err != nil {
		return nil, err
	}
	var h header
	if json.Unmarshal(head, &h) != nil {
		return nil, ErrMalformed
	}
	if h.Crit != nil { // RFC 7515: extensions we must understand, and we know none
		return nil, ErrMalformed
	}
	if !isAccessToken(h.Typ) {
		return nil, ErrType
	}
	key, ok := v.config.Keys.byID(h.Kid)
	if !ok && v.config.Missing != nil {
		v.config.Missing(h.Kid)
		key, ok = v.config.Keys.byID(h.Kid)
	}
	if !ok || key.idTokens {
		return nil, ErrUnknownKey
	}
	if h.Alg != string(key.algorithm) {
		return nil, ErrAlgorithm
	}
	if !key.verify(input, signature) {
		return nil, ErrSignature
	}
	t := &verified{kid: key.id, material: key.material}
	if t.claims.UnmarshalJSON(body) != nil {
		return nil, ErrMalformed
	}
	if t.claims.Issuer != v.config.Issuer {
		return nil, ErrIssuer
	}
	if !slices.Contains(t.claims.Audience, v.config.Audience) {
		return nil, ErrAudience
	}
	if t.claims.Confirmation != "" && !v.config.Bound {
		return nil, ErrBound
	}
	return t, nil
}

// admit does what needs doing on every call: time and revocation.
func (v *Verifier) admit(t *verified) (Claims, error) {
	now := v.config.Now()
	if !now.Before(t.claims.ExpiresAt) {
		return Claims{}, ErrExpired
	}
	if limit := now.Add(Leeway); t.claims.NotBefore.After(limit) || t.claims.IssuedAt.After(limit) {
		return Claims{}, ErrNotYetValid
	}
	if v.config.Revoked != nil && v.config.Revoked(t.claims) {
		return Claims{}, ErrRevoked
	}
	return t.claims, nil
}

// split takes a JWS in compact form apart. input is what was signed.
func split(raw string) (input string, head, body, signature []byte, err error) {
	first := strings.IndexByte(raw, '.')
	last := strings.LastIndexByte(raw, '.')
	// The decoder passes over line breaks, which would give one token many texts.
	if first == last || strings.IndexByte(raw[first+1:last], '.') >= 0 || strings.ContainsAny(raw, "\r\n") {
		return "", nil, nil, nil, ErrMalformed
	}
	var errs [3]error
	head, errs[0] = base64url.DecodeString(raw[:first])
	body, errs[1] = base64url.DecodeString(raw[first+1 : last])
	signature, errs[2] = base64url.DecodeString(raw[last+1:])
	if errs != [3]error{} {
		return "", nil, nil, nil, ErrMalformed
	}
	return raw[:last], head, body, signature, nil
}

// isAccessToken accepts the two spellings of the media type (RFC 9068,
// section 4), in any case (RFC 7515, section 4.1.9).
func isAccessToken(t string) bool {
	return strings.EqualFold(t, typ) || strings.EqualFold(t, "application/"+typ)
}
