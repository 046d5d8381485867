package client

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"usher.example/identity"
	"usher.example/token"
)

// AssertionType is the client_assertion_type of what a client signs to prove who it is (RFC 7523, section 2.2).
const AssertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// newerEdDSA is EdDSA by the name of RFC 9864, which the library doesn't know.
type newerEdDSA struct{ *jwt.SigningMethodEd25519 }

func (newerEdDSA) Alg() string { return "Ed25519" }

func init() {
	jwt.RegisterSigningMethod(newerEdDSA{}.Alg(), func() jwt.SigningMethod { return newerEdDSA{jwt.SigningMethodEdDSA} })
}

const (
	maxAssertion = 8 << 10
	// maxAhead is how far ahead an assertion may expire, and so for how long it is remembered that it was used.
	maxAhead = 5 * time.Minute
	// leeway is how far the clocks of a client and of this process may be apart.
	leeway = 30 * time.Second
	// clocksApart is how far those of usher's own processes may be.
	clocksApart = time.Minute
)

// AuthenticateSigned finds the client that has signed an assertion (RFC 7523; OpenID Connect Core, section 9: private_key_jwt), which
// has to be for one of the audiences and for none beside them. An assertion is good once: that is noted in the database, by one
// statement, after the signature was found to be the client's. It fails with ErrUnknown, which is then the cause of an
// *identity.Error that says what is wrong with the assertion, or as the database does.
func (r *Registry) AuthenticateSigned(ctx context.Context, assertion string, audiences []string) (Client, error) {
	if len(assertion) > maxAssertion {
		return Client{}, refuseAssertion("is longer than %d bytes", maxAssertion)
	}
	var c Client
	var failed error // that is not about the assertion
	keys := func(t *jwt.Token) (any, error) {
		claims := t.Claims.(*jwt.RegisteredClaims)
		id, err := uuid.Parse(claims.Subject)
		if err != nil || claims.Issuer != claims.Subject || id.String() != claims.Subject {
			return nil, refuseAssertion("has another iss or sub than the client_id")
		}
		if c, err = r.Get(ctx, id); err != nil || c.Authentication != AuthenticationSigned {
			if err != nil && !errors.Is(err, ErrUnknown) {
				failed = err
			}
			return nil, refuseAssertion("is of no client that signs")
		}
		if _, critical := t.Header["crit"]; critical {
			return nil, refuseAssertion("has a header crit, of which nothing is understood")
		}
		kid, _ := t.Header["kid"].(string)
		found, err := r.keys.of(ctx, c, kid)
		if err != nil {
			return nil, err
		}
		var set jwt.VerificationKeySet
		for _, k := range found {
			if k.Fits(t.Method.Alg()) {
				set.Keys = append(set.Keys, k.Key)
			}
		}
		if len(set.Keys) == 0 {
			return nil, refuseAssertion("is signed by %s, which the client's key is not for", t.Method.Alg())
		}
		return set, nil
	}
	now := r.config.Now()
	var claims jwt.RegisteredClaims
	parser := jwt.NewParser(jwt.WithValidMethods(token.PublicAlgorithms), jwt.WithExpirationRequired(), jwt.WithIssuedAt(),
		jwt.WithLeeway(leeway), jwt.WithStrictDecoding(), jwt.WithTimeFunc(func() time.Time { return now }))
	if _, err := parser.ParseWithClaims(assertion, &claims, keys); err != nil {
		if failed != nil {
			err = failed
		} else {
			err = explainAssertion(err)
		}
		return Client{}, err
	}
	switch {
	case len(claims.Audience) == 0 || slices.ContainsFunc(claims.Audience, func(a string) bool { return !slices.Contains(audiences, a) }):
		return Client{}, refuseAssertion("has another aud than %s", audiences[0])
	case claims.ExpiresAt.After(now.Add(maxAhead + leeway)):
		return Client{}, refuseAssertion("expires more than %v ahead", maxAhead)
	case claims.ID == "":
		return Client{}, refuseAssertion("has no jti")
	}
	return c, r.useOnce(ctx, c, claims)
}

// useOnce notes that an assertion was used.
func (r *Registry) useOnce(ctx context.Context, c Client, claims jwt.RegisteredClaims) error {
	jti := sha256.Sum256([]byte(claims.ID))
	n, err := r.config.DB.Exec(ctx, `INSERT INTO client_assertions (client_id, jti, expires_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
		c.ID, jti[:], claims.ExpiresAt.UTC().Add(leeway+clocksApart))
	switch {
	case err != nil:
		return fmt.Errorf("note the use of an assertion: %w", err)
	case n == 0:
		return refuseAssertion("was used before: its jti is known")
	}
	return nil
}

// explainAssertion says for a client what is wrong with its assertion.
func explainAssertion(err error) error {
	var refusal *identity.Error
	switch {
	case errors.As(err, &refusal):
		return refusal
	case errors.Is(err, jwt.ErrTokenExpired):
		return refuseAssertion("is expired")
	case errors.Is(err, jwt.ErrTokenNotValidYet), errors.Is(err, jwt.ErrTokenUsedBeforeIssued):
		return refuseAssertion("is from later than now, by its nbf or iat")
	case errors.Is(err, jwt.ErrTokenRequiredClaimMissing):
		return refuseAssertion("has no exp")
	case errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return refuseAssertion("is signed by another key than the client's, or by none of %s", listed(token.PublicAlgorithms))
	}
	return refuseAssertion("is no signed JWT")
}

func refuseAssertion(format string, args ...any) error {
	return &identity.Error{Code: identity.CodeUnauthenticated, Detail: "the client_assertion " + fmt.Sprintf(format, args...), Err: ErrUnknown}
}

const (
	sweepEvery = 5 * time.Minute
	sweepBatch = 1000
	sweepSome  = `DELETE FROM client_assertions WHERE (client_id, jti) IN (
		SELECT client_id, jti FROM client_assertions WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)`
)

// Sweep forgets the assertions that are not good any more, every few minutes, until ctx ends; then it returns its cause. Any number of
// processes may. What fails is logged, and tried again.
func (r *Registry) Sweep(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		if err := r.forgetAssertions(ctx); err != nil && ctx.Err() == nil {
			r.config.Logger.WarnContext(ctx, "used assertions of clients were not forgotten; trying again", slog.Any("error", err))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (r *Registry) forgetAssertions(ctx context.Context) error {
	for removed := int64(sweepBatch); removed == sweepBatch; {
		var err error
		if removed, err = r.config.DB.Exec(ctx, sweepSome, r.config.Now().UTC(), sweepBatch); err != nil {
			return fmt.Errorf("forget used assertions: %w", err)
		}
	}
	return nil
}
