package token

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"maps"
	"time"
)

// IDTokenAlgorithm is the algorithm that OpenID Connect wants every provider to be able to sign ID tokens in, whatever signs the
// access tokens.
const IDTokenAlgorithm = RS256

// IDToken is what an ID token says: who logged in, when and how, to whom (OpenID Connect Core 1.0, section 2).
type IDToken struct {
	Subject  string    // required
	Client   string    // the aud, required
	AuthTime time.Time // when the user logged in
	Methods  []string  // amr, as RFC 8176 names them
	Class    string    // acr
	Nonce    string    // of the request, left out when empty
	Session  string    // sid
	// AccessToken is the one that comes with it; the ID token has its at_hash. None when empty.
	AccessToken string
	// Profile has the claims about the user that were asked for. None of those above is in it.
	Profile map[string]any
}

// IssueID signs an ID token, which expires with an access token that is issued at the same time. Where no algorithm is wanted it is
// that of the access tokens if everybody can check those, else [IDTokenAlgorithm]. It returns [ErrNoSigningKey] where no key signs in
// the algorithm, or [ErrTooLarge] if the profile doesn't fit into a token.
func (i *Issuer) IssueID(t IDToken, algorithm Algorithm) (string, error) {
	if t.Subject == "" || t.Client == "" {
		return "", fmt.Errorf("issue ID token without subject or client: %w", ErrMalformed)
	}
	key, err := i.config.Keys.signingID(algorithm)
	if err != nil {
		return "", fmt.Errorf("issue ID token in %s: %w", algorithm, err)
	}
	algorithm = key.algorithm
	issued := i.config.Now().UTC().Truncate(time.Second)
	claims := idClaims{}
	maps.Copy(claims, t.Profile)
	maps.Copy(claims, idClaims{
		"iss": i.config.Issuer, "sub": t.Subject, "aud": t.Client,
		"iat": issued.Unix(), "exp": issued.Add(i.config.Lifetime.Truncate(time.Second)).Unix(),
	})
	claims.set("auth_time", t.AuthTime.Unix(), !t.AuthTime.IsZero())
	claims.set("amr", t.Methods, len(t.Methods) > 0)
	claims.set("acr", t.Class, t.Class != "")
	claims.set("nonce", t.Nonce, t.Nonce != "")
	claims.set("sid", t.Session, t.Session != "")
	claims.set("at_hash", halfHash(algorithm, t.AccessToken), t.AccessToken != "")
	raw, err := encode(key, encodeHeader(key.algorithm, key.id, "JWT"), claims)
	if err != nil {
		return "", fmt.Errorf("issue ID token: %w", err)
	}
	return raw, nil
}

// IDHint is what an ID token says that is shown again, as a hint of who somebody is: it may have expired (OpenID Connect RP-Initiated
// Logout 1.0, section 2).
type IDHint struct {
	Subject string   `json:"sub"`
	Session string   `json:"sid"`
	Client  audience `json:"aud"` // one
	Issuer  string   `json:"iss"`
}

// ReadID reads an ID token that this issuer has signed with a key that is still in the ring. Every error matches [ErrInvalid].
func (i *Issuer) ReadID(raw string) (IDHint, error) {
	if len(raw) > MaxBytes {
		return IDHint{}, ErrTooLarge
	}
	input, head, body, signature, err := split(raw)
	if err != nil {
		return IDHint{}, err
	}
	var h header
	if json.Unmarshal(head, &h) != nil || h.Crit != nil {
		return IDHint{}, ErrMalformed
	}
	if isAccessToken(h.Typ) {
		return IDHint{}, ErrType
	}
	key, ok := i.config.Keys.byID(h.Kid)
	switch {
	case !ok:
		return IDHint{}, ErrUnknownKey
	case h.Alg != string(key.algorithm):
		return IDHint{}, ErrAlgorithm
	case !key.verify(input, signature):
		return IDHint{}, ErrSignature
	}
	var hint IDHint
	if json.Unmarshal(body, &hint) != nil || hint.Subject == "" || len(hint.Client) != 1 {
		return IDHint{}, ErrMalformed
	}
	if hint.Issuer != i.config.Issuer {
		return IDHint{}, ErrIssuer
	}
	return hint, nil
}

type idClaims map[string]any

func (c idClaims) set(name string, value any, is bool) {
	if is {
		c[name] = value
	}
}

// MarshalJSON implements json.Marshaler.
func (c idClaims) MarshalJSON() ([]byte, error) { return json.Marshal(map[string]any(c)) }

// halfHash is the at_hash of a token: the left half of its hash, by the hash function of the algorithm. That of Ed25519 is SHA-512
// (RFC 8032), which OpenID Connect leaves open and its clients agree on.
func halfHash(algorithm Algorithm, token string) string {
	sum := sha512.Sum512([]byte(token))
	half := sum[:sha512.Size/2]
	if algorithm != EdDSA {
		sum := sha256.Sum256([]byte(token))
		half = sum[:sha256.Size/2]
	}
	return base64url.EncodeToString(half)
}
