package identity

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/pquerna/otp"
	"github.com/pquerna/otp/hotp"
	"github.com/pquerna/otp/totp"

	"usher.example/eventstore"
)

// The kinds of factors. A user has at most one of each.
const (
	kindTOTP     = "totp"     // one-time passwords by time (RFC 6238): SHA-1, six digits, 30 s
	kindRecovery = "recovery" // the recovery codes together
)

const (
	stepSeconds   = 30
	stepSkew      = 1 // steps that a clock may be off
	confirmWithin = 10 * time.Minute

	// recoveryCodes is how many there are, of recoveryLength characters of base32 each: 120 bits, so that a keyed hash
	// is enough to store them (ASVS 6.5.2 asks for 112).
	recoveryCodes  = 10
	recoveryLength = 24
)

// factor is a row of the table factors.
type factor struct {
	secret    []byte
	lastStep  int64
	created   time.Time
	confirmed *time.Time
	version   int // of the user's stream, as of which its user was proven to be the one
}

// factors are those of a user, each nil where there is none.
type factors struct{ totp, recovery *factor }

// inForce says whether logins need a second factor.
func (f factors) inForce() bool { return f.totp != nil && f.totp.confirmed != nil }

// factorRow is a row of the table factors that may not be there.
type factorRow struct {
	secret             []byte
	lastStep           *int64
	created, confirmed *time.Time
}

func (r *factorRow) columns() []any { return []any{&r.secret, &r.lastStep, &r.created, &r.confirmed} }

func (r *factorRow) factor() *factor {
	if r.created == nil {
		return nil
	}
	return &factor{secret: r.secret, lastStep: *r.lastStep, created: *r.created, confirmed: r.confirmed}
}

// readFactor reads a user's factor of a kind, nil where there is none.
func (s *Service) readFactor(ctx context.Context, user uuid.UUID, kind string) (*factor, error) {
	var f factor
	err := s.db.QueryRow(ctx, `SELECT secret, last_step, created_at, confirmed_at, version FROM factors WHERE user_id = $1 AND kind = $2`, user, kind).
		Scan(&f.secret, &f.lastStep, &f.created, &f.confirmed, &f.version)
	if errors.Is(err, eventstore.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read a factor: %w", err)
	}
	return &f, nil
}

func storeFactor(user uuid.UUID, kind string, f factor) eventstore.StateChange {
	return stateRow("factors", map[string]any{
		"user_id": user, "kind": kind, "secret": bytea(f.secret), "last_step": f.lastStep,
		"created_at": f.created.UTC(), "confirmed_at": f.confirmed, "version": f.version,
	})
}

// dropFactors are the state changes that take all factors from a user.
func dropFactors(user uuid.UUID) []eventstore.StateChange {
	var changes []eventstore.StateChange
	for _, kind := range []string{kindTOTP, kindRecovery} {
		changes = append(changes, dropRow("factors", map[string]any{"user_id": user, "kind": kind}))
	}
	return changes
}

func totpPlace(user uuid.UUID) string { return "factors/" + user.String() + "/totp" }

// checkFactor checks the second factor of a user whose password was right, and answers with the methods that the login
// was proved by. What counts are the factors as they were read with the password, not u, which may be of a moment before.
// It fails with ErrTOTPRequired, or ErrInvalidCredentials for a code that is wrong or was used.
func (s *Service) checkFactor(ctx context.Context, u *User, f factors, code FactorCode) (methods []string, err error) {
	needed := f.inForce()
	if !needed && u.TOTPEnabled {
		// Either it was disabled since u was current, which the log tells by now, or its row was lost: then nobody passes.
		present, err := s.ReadUser(ctx, u.ID)
		switch {
		case errors.Is(err, ErrNotFound):
			return nil, wrongCredentials()
		case err != nil:
			return nil, fmt.Errorf("read the user: %w", err)
		}
		needed = present.TOTPEnabled
	}
	if !needed {
		return []string{MethodPassword}, nil
	}
	if code == "" {
		return nil, ErrTOTPRequired
	}
	text := plainCode(code)
	method, good := MethodRecoveryCode, false
	if sixDigits.MatchString(text) {
		method = MethodTOTP
		good, err = s.useTOTP(ctx, u.ID, f.totp, text)
	} else {
		good, err = s.useRecoveryCode(ctx, u.ID, f.recovery, text)
	}
	if err != nil {
		return nil, err
	}
	if !good {
		return nil, refuse(CodeInvalidCredentials, "the one-time password or recovery code is wrong, or was used")
	}
	return []string{MethodPassword, method}, nil
}

// plainCode is a code without what people type to read it more easily.
func plainCode(c FactorCode) string {
	return strings.ToUpper(strings.NewReplacer(" ", "", "-", "").Replace(string(c)))
}

var sixDigits = regexp.MustCompile(`^[0-9]{6}$`)

// useTOTP says whether a one-time password is good, once: the step is moved on in one statement, and only forward.
func (s *Service) useTOTP(ctx context.Context, user uuid.UUID, f *factor, code string) (bool, error) {
	if f == nil || f.confirmed == nil {
		return false, nil
	}
	step, ok, err := s.matchTOTP(ctx, user, *f, code)
	if err != nil || !ok {
		return false, err
	}
	moved, err := s.db.Exec(ctx, `
		UPDATE factors SET last_step = $3 WHERE user_id = $1 AND kind = $2 AND last_step < $3 AND confirmed_at IS NOT NULL AND secret = $4`,
		user, kindTOTP, step, f.secret)
	if err != nil {
		return false, fmt.Errorf("use a one-time password: %w", err)
	}
	return moved == 1, nil
}

// matchTOTP finds the step that a one-time password is of.
func (s *Service) matchTOTP(ctx context.Context, user uuid.UUID, f factor, code string) (step int64, ok bool, err error) {
	secret, err := s.log.Sealer().OpenFor(ctx, user, totpPlace(user), f.secret)
	if err != nil {
		return 0, false, fmt.Errorf("open a factor: %w", err)
	}
	now := s.now().Unix() / stepSeconds
	for at := now - stepSkew; at <= now+stepSkew; at++ {
		want, err := hotp.GenerateCodeCustom(string(secret), uint64(at), hotp.ValidateOpts{Digits: otp.DigitsSix, Algorithm: otp.AlgorithmSHA1})
		if err != nil {
			return 0, false, fmt.Errorf("make a one-time password: %w", err)
		}
		if subtle.ConstantTimeCompare([]byte(want), []byte(code)) == 1 && at > f.lastStep {
			step, ok = at, true
		}
	}
	return step, ok, nil
}

// useRecoveryCode says whether a recovery code is good, once: whoever takes it out of the list first. Where the list has
// changed since f was read, it is read again.
func (s *Service) useRecoveryCode(ctx context.Context, user uuid.UUID, f *factor, code string) (bool, error) {
	hash := s.recoveryHash(user, code)
	for range changeTries {
		if f == nil {
			return false, nil
		}
		left := make([]byte, 0, len(f.secret))
		found := false
		for i := 0; i+sha256.Size <= len(f.secret); i += sha256.Size {
			one := f.secret[i : i+sha256.Size]
			if subtle.ConstantTimeCompare(one, hash) == 1 {
				found = true
				continue
			}
			left = append(left, one...)
		}
		if !found {
			return false, nil
		}
		took, err := s.db.Exec(ctx, `UPDATE factors SET secret = $3 WHERE user_id = $1 AND kind = $2 AND secret = $4`, user, kindRecovery, left, f.secret)
		if err != nil {
			return false, fmt.Errorf("use a recovery code: %w", err)
		}
		if took == 1 {
			return true, nil
		}
		if f, err = s.readFactor(ctx, user, kindRecovery); err != nil {
			return false, err
		}
	}
	return false, fmt.Errorf("use a recovery code: %w: others are being used", eventstore.ErrUnavailable)
}

func (s *Service) recoveryHash(user uuid.UUID, code string) []byte {
	return s.codeMAC("recovery", user.String()+code)
}

// TOTPKey is a secret that a user is to put into an authenticator.
type TOTPKey struct{ Secret, URL FactorCode }

// StartTOTP makes a secret for a user's one-time passwords. It counts once ConfirmTOTP has shown that it works, and is
// forgotten otherwise. It fails with CodeTOTPEnabled, with ErrEmailNotVerified, since somebody who has never shown to read mail
// at the address must not be able to keep out who does, or as prove does.
func (s *Service) StartTOTP(ctx context.Context, id uuid.UUID, p Proof, m eventstore.Metadata) (TOTPKey, error) {
	present, err := s.ReadUser(ctx, id)
	if err == nil {
		err = mayHaveFactor(*present)
	}
	if err != nil {
		return TOTPKey{}, err
	}
	shown, err := s.prove(ctx, id, p, m)
	if err != nil {
		return TOTPKey{}, err
	}
	key, err := totp.Generate(totp.GenerateOpts{Issuer: s.issuer, AccountName: present.Email})
	if err != nil {
		return TOTPKey{}, fmt.Errorf("make a secret: %w", err)
	}
	sealed, err := s.log.Sealer().SealFor(ctx, id, totpPlace(id), []byte(key.Secret()))
	if err != nil {
		return TOTPKey{}, fmt.Errorf("seal a secret: %w", err)
	}
	// It is no event, so nothing keeps the user from changing right after it. That is why the version as of which it was
	// asked for is stored with it, and ConfirmTOTP looks at that.
	for range changeTries {
		u, err := s.ReadUser(ctx, id)
		if err == nil {
			err = shown.holds(*u)
		}
		if err == nil {
			err = mayHaveFactor(*u)
		}
		if err != nil {
			return TOTPKey{}, err
		}
		stored, err := s.db.Exec(ctx, `
			INSERT INTO factors (user_id, kind, secret, last_step, created_at, version)
			SELECT $1, $2, $3, 0, $4, $5 FROM streams WHERE stream = $1 AND version = $6
			ON CONFLICT (user_id, kind) DO UPDATE SET secret = excluded.secret, last_step = 0, created_at = excluded.created_at, version = excluded.version
			 WHERE factors.confirmed_at IS NULL`, id, kindTOTP, sealed, s.now().UTC(), shown.version, u.Version)
		if err != nil {
			return TOTPKey{}, fmt.Errorf("store a secret: %w", err)
		}
		if stored == 1 {
			return TOTPKey{FactorCode(key.Secret()), FactorCode(key.URL())}, nil
		}
	}
	return TOTPKey{}, fmt.Errorf("store a secret: %w: the user keeps changing", eventstore.ErrUnavailable)
}

// mayHaveFactor decides on a user who wants a second factor.
func mayHaveFactor(u User) error {
	switch {
	case u.TOTPEnabled:
		return totpEnabled()
	case !u.EmailVerified:
		return refuse(CodeEmailNotVerified, "a second factor is for accounts whose address is verified; "+
			"POST /v1/auth/verify-email/resend asks for a code to do that with")
	}
	return nil
}

// ConfirmTOTP turns a user's second factor on, with a one-time password of the secret that StartTOTP made. It fails with
// CodeTOTPEnabled, with CodeTOTPNotEnabled where there is nothing to confirm, or what was proven for it is no longer so, with
// ErrEmailNotVerified, CodeInvalidCode, or ErrThrottled.
func (s *Service) ConfirmTOTP(ctx context.Context, id uuid.UUID, code FactorCode, m eventstore.Metadata) (eventstore.Result, error) {
	a := s.throttle.beginApart(scopeSession, id)
	if err := a.enter(ctx); err != nil {
		return eventstore.Result{}, err
	}
	defer a.leave()
	wrong := refuse(CodeInvalidCode, "the one-time password is wrong")
	result, err := s.change(ctx, id, m, func(u User) (change, error) {
		if err := mayLogIn(u); err != nil {
			return change{}, err
		}
		if err := mayHaveFactor(u); err != nil {
			return change{}, err
		}
		f, err := s.readFactor(ctx, id, kindTOTP)
		if err != nil {
			return change{}, err
		}
		now := s.now().UTC()
		if f == nil || f.confirmed != nil || now.Sub(f.created) > confirmWithin || (proven{user: id, version: f.version}).holds(u) != nil {
			return change{}, refuse(CodeTOTPNotEnabled, "there is no second factor to confirm; ask for one first")
		}
		step, ok, err := s.matchTOTP(ctx, id, *f, plainCode(code))
		if err != nil {
			return change{}, err
		}
		if !ok {
			return change{}, wrong
		}
		f.lastStep, f.confirmed = step, &now
		return change{events: []Payload{TOTPEnabled{}}, state: []eventstore.StateChange{storeFactor(id, kindTOTP, *f)}}, nil
	})
	if err == wrong {
		err = s.failed(ctx, a, uuid.Nil, MethodTOTP, m, err)
	}
	return result, err
}

// DisableTOTP takes the second factor from a user who shows it, and the recovery codes with it. It fails as prove does.
func (s *Service) DisableTOTP(ctx context.Context, id uuid.UUID, p Proof, m eventstore.Metadata) (eventstore.Result, error) {
	shown, err := s.prove(ctx, id, p, m)
	if err != nil {
		return eventstore.Result{}, err
	}
	return s.changeProven(ctx, shown, m, func(u User) (change, error) { return disableTOTP(u, ReasonChange) })
}

// ResetTOTP takes the second factor from a user, for an administrator. It fails with ErrNotFound.
func (s *Service) ResetTOTP(ctx context.Context, id uuid.UUID, m eventstore.Metadata) (eventstore.Result, error) {
	return s.change(ctx, id, m, func(u User) (change, error) { return disableTOTP(u, ReasonAdmin) })
}

func disableTOTP(u User, reason string) (change, error) {
	if !u.TOTPEnabled {
		return change{}, nil
	}
	return change{events: []Payload{TOTPDisabled{Reason: reason}}, state: dropFactors(u.ID)}, nil
}

// NewRecoveryCodes makes a user's recovery codes, in the place of those before. Each stands in for a one-time password,
// once. It fails with CodeTOTPNotEnabled for a user without a second factor, or as prove does.
func (s *Service) NewRecoveryCodes(ctx context.Context, id uuid.UUID, p Proof, m eventstore.Metadata) ([]FactorCode, eventstore.Result, error) {
	shown, err := s.prove(ctx, id, p, m)
	if err != nil {
		return nil, eventstore.Result{}, err
	}
	codes := make([]FactorCode, recoveryCodes)
	var hashes bytes.Buffer
	for i := range codes {
		text := rand.Text()[:recoveryLength]
		hashes.Write(s.recoveryHash(id, text))
		var groups []string
		for ; text != ""; text = text[4:] {
			groups = append(groups, text[:4])
		}
		codes[i] = FactorCode(strings.Join(groups, "-"))
	}
	now := s.now().UTC()
	result, err := s.changeProven(ctx, shown, m, func(u User) (change, error) {
		if !u.TOTPEnabled {
			return change{}, refuse(CodeTOTPNotEnabled, "recovery codes are for users with a second factor")
		}
		stored := storeFactor(id, kindRecovery, factor{secret: hashes.Bytes(), created: now, confirmed: &now, version: shown.version})
		return change{events: []Payload{RecoveryCodesGenerated{Count: recoveryCodes}}, state: []eventstore.StateChange{stored}}, nil
	})
	return codes, result, err
}

func totpEnabled() error {
	return refuse(CodeTOTPEnabled, "there is a second factor already; take it away first")
}

// dropUnconfirmed removes the secrets that were not confirmed in time.
func (s *Service) dropUnconfirmed(ctx context.Context) error {
	if _, err := s.db.Exec(ctx, `DELETE FROM factors WHERE confirmed_at IS NULL AND created_at <= $1`, s.now().UTC().Add(-confirmWithin)); err != nil {
		return fmt.Errorf("remove unconfirmed factors: %w", err)
	}
	return nil
}
