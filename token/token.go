// Package token issues and verifies access tokens: short-lived signed JWTs
// with the claims of RFC 9068 and the header typ "at+jwt".
//
// A [KeyRing] holds the keys, an [Issuer] signs with one of them, a [Verifier]
// checks with all of them. A service that only consumes tokens has [RemoteKeys]
// keep its ring as the issuer's JWKS document is. The algorithm is a property
// of the key and never of the token, so a token can't choose how it is checked.
//
// Everything that is wrong with a token is an error that matches [ErrInvalid].
// Verified tokens are remembered, by their SHA-256 and for no longer than
// they, their key and their session last, so that only the first request with
// a token pays for the signature.
//
// The package opens no connection, but for [RemoteKeys], which fetches that
// document and nothing else. It keeps no sessions and knows refresh tokens not
// at all. It imports nothing else of this module.
package token

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	// MaxBytes is the longest token accepted or issued.
	MaxBytes = 8 << 10
	// Leeway is how far in the future a token's nbf and iat may lie, for
	// clocks that disagree. The expiry has none: the issuer chose a short
	// lifetime, and the verifier keeps to it.
	Leeway = 5 * time.Second

	typ = "at+jwt"
)

// LoginClient is the client_id of the tokens that usher's own login gives:
// they are issued to no client of OAuth. The name is reserved.
const LoginClient = "usher"

// ErrInvalid is matched by every error about a token.
var ErrInvalid = errors.New("token: invalid")

// The ways in which a token is invalid. Each matches [ErrInvalid] too.
var (
	ErrTooLarge    error = &refusal{"longer than 8 KiB"}
	ErrMalformed   error = &refusal{"malformed"}
	ErrType        error = &refusal{`header typ is not "at+jwt"`}
	ErrAlgorithm   error = &refusal{"algorithm is not that of the key"}
	ErrUnknownKey  error = &refusal{"unknown key"}
	ErrSignature   error = &refusal{"wrong signature"}
	ErrExpired     error = &refusal{"expired"}
	ErrNotYetValid error = &refusal{"not yet valid"}
	ErrIssuer      error = &refusal{"wrong issuer"}
	ErrAudience    error = &refusal{"not for this audience"}
	ErrRevoked     error = &refusal{"revoked"}
	ErrBound       error = &refusal{"bound to a key, and good only with a proof of that"}
)

// refusal is a way in which a token is invalid.
type refusal struct{ text string }

func (r *refusal) Error() string { return ErrInvalid.Error() + ": " + r.text }
func (r *refusal) Unwrap() error { return ErrInvalid }

// Claims is what an access token says. Times have a resolution of a second.
// The slices of verified claims are shared between callers: read them only.
type Claims struct {
	Issuer    string   // iss
	Subject   string   // sub: the user id
	Audience  []string // aud
	ExpiresAt time.Time
	NotBefore time.Time
	IssuedAt  time.Time
	ID        string   // jti
	Client    string   // client_id: whom it was issued to, see [LoginClient]
	Session   string   // sid
	Roles     []string // roles
	Scopes    []string // scope (RFC 8693, section 4.2): what the bearer may do at most
	// Actors is act (RFC 8693, section 4.1): the clients that act for the subject, by delegation; the one that does now first, and behind
	// each whom it got the token from. There are none in the token of a login or of a grant.
	Actors []string
	// Confirmation is cnf.jkt (RFC 9449, section 6): the thumbprint of the key that the token is bound to, so that it is good only with a
	// proof of that key. Whoever takes a token has to look at it: see [ProofVerifier].
	Confirmation string
}

// HasScope reports whether the token has the scope.
func (c Claims) HasScope(scope string) bool { return slices.Contains(c.Scopes, scope) }

// HasRole reports whether the token grants the role.
func (c Claims) HasRole(role string) bool { return slices.Contains(c.Roles, role) }

// wireClaims is the JSON form of [Claims]. Times are pointers because an
// absent one is malformed and not 1970.
type wireClaims struct {
	Issuer    string   `json:"iss"`
	Subject   string   `json:"sub"`
	Audience  audience `json:"aud"`
	ExpiresAt *int64   `json:"exp"`
	NotBefore *int64   `json:"nbf"`
	IssuedAt  *int64   `json:"iat"`
	ID        string   `json:"jti"`
	Client    string   `json:"client_id,omitempty"`
	Session   string   `json:"sid,omitempty"`
	Roles     []string `json:"roles"`
	Scope     string   `json:"scope,omitempty"`

	Confirmation *confirmation `json:"cnf,omitempty"`
	Actor        *actor        `json:"act,omitempty"`
}

// actor is who acts for a subject, and who did before.
type actor struct {
	Subject string `json:"sub"`
	Before  *actor `json:"act,omitempty"`
}

// actorOf nests actors, as actorsOf reads them.
func actorOf(list []string) (a *actor) {
	for _, subject := range slices.Backward(list) {
		a = &actor{subject, a}
	}
	return a
}

func actorsOf(a *actor) (list []string) {
	for ; a != nil; a = a.Before {
		list = append(list, a.Subject)
	}
	return list
}

// confirmation is how the sender of a token shows to be who it was given to (RFC 7800).
type confirmation struct {
	Thumbprint string `json:"jkt"`
}

// audience is one string or a list of them (RFC 7519, section 4.1.3).
type audience []string

// MarshalJSON writes a single audience as a string.
func (a audience) MarshalJSON() ([]byte, error) {
	if len(a) == 1 {
		return json.Marshal(a[0])
	}
	return json.Marshal([]string(a))
}

// UnmarshalJSON reads either form.
func (a *audience) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '"' {
		*a = make(audience, 1)
		return json.Unmarshal(data, &(*a)[0])
	}
	return json.Unmarshal(data, (*[]string)(a))
}

// MarshalJSON writes the claims as they stand in a token.
func (c Claims) MarshalJSON() ([]byte, error) {
	exp, nbf, iat := c.ExpiresAt.Unix(), c.NotBefore.Unix(), c.IssuedAt.Unix()
	roles := c.Roles
	if roles == nil {
		roles = []string{} // a list in any case: who reads it need not ask whether it is there
	}
	w := wireClaims{
		Issuer: c.Issuer, Subject: c.Subject, Audience: c.Audience,
		ExpiresAt: &exp, NotBefore: &nbf, IssuedAt: &iat,
		ID: c.ID, Client: c.Client, Session: c.Session, Roles: roles, Scope: strings.Join(c.Scopes, " "),
		Actor: actorOf(c.Actors),
	}
	if c.Confirmation != "" {
		w.Confirmation = &confirmation{c.Confirmation}
	}
	return json.Marshal(w)
}

// UnmarshalJSON reads the claims of a token. All but client_id, sid, roles and
// scope have to be there: usher did not always give the first. Its error matches [ErrMalformed].
func (c *Claims) UnmarshalJSON(data []byte) error {
	var w wireClaims
	if err := json.Unmarshal(data, &w); err != nil {
		return fmt.Errorf("decode claims: %w", ErrMalformed)
	}
	if w.Issuer == "" || w.Subject == "" || len(w.Audience) == 0 || w.ID == "" ||
		w.ExpiresAt == nil || w.NotBefore == nil || w.IssuedAt == nil ||
		!plausible(*w.ExpiresAt) || !plausible(*w.NotBefore) || !plausible(*w.IssuedAt) {
		return fmt.Errorf("decode claims: %w", ErrMalformed)
	}
	*c = Claims{
		Issuer: w.Issuer, Subject: w.Subject, Audience: w.Audience,
		ExpiresAt: time.Unix(*w.ExpiresAt, 0).UTC(), NotBefore: time.Unix(*w.NotBefore, 0).UTC(), IssuedAt: time.Unix(*w.IssuedAt, 0).UTC(),
		ID: w.ID, Client: w.Client, Session: w.Session, Roles: w.Roles,
		Actors: actorsOf(w.Actor),
	}
	if w.Scope != "" {
		c.Scopes = strings.Fields(w.Scope)
	}
	if w.Confirmation != nil {
		// One that is bound in a way that is not known here is bound to a key that nobody has.
		c.Confirmation = cmp.Or(w.Confirmation.Thumbprint, "unknown")
	}
	return nil
}

// plausible bounds a time to the years that RFC 3339 can write, so that no
// arithmetic on it overflows.
func plausible(seconds int64) bool { return seconds >= 0 && seconds < 253402300800 }
