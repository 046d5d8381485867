package identity

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity/password"
)

// Proof is what somebody who is logged in shows to be allowed what a stolen session must not be enough for.
type Proof struct {
	Session  uuid.UUID         // that the user is logged in to: what fails in it is counted for it alone
	Password password.Password // the current one
	TOTP     FactorCode        // where the user has a second factor; else it is not looked at
}

// FactorCode is what shows a second factor: a one-time password or a recovery code. It can't be printed by accident.
type FactorCode string

func (FactorCode) String() string       { return "[hidden]" }
func (FactorCode) GoString() string     { return "[hidden]" }
func (FactorCode) LogValue() slog.Value { return slog.StringValue("[hidden]") }

// proven is who has shown to be a user, and as of which version of the user's stream: what was shown was in force at it.
//
// Between what is shown and what follows stands a hash that takes long on purpose, and other processes don't stand still
// meanwhile. So whatever follows a proof carries it into its append, which expects the user's stream where the proof was
// last seen to hold: see changeProven for an append to that stream, and appendProven for one to another.
type proven struct {
	user    uuid.UUID
	version int
	by      password.Caller // for what else is to be hashed
}

// holds is the one rule about that: what was proven counts for nothing once something came to pass that voids it (see
// voidsProofs). It fails with ErrUserLocked, ErrUserDisabled or ErrInvalidCredentials.
func (p proven) holds(u User) error {
	if err := mayLogIn(u); err != nil {
		return err
	}
	if p.version < u.provenFrom {
		return refuse(CodeInvalidCredentials, "what was shown was replaced meanwhile")
	}
	return nil
}

// stillHolds is holds on the user's state at present, for where nothing may be left to append.
func (s *Service) stillHolds(ctx context.Context, p proven) error {
	u, err := s.ReadUser(ctx, p.user)
	if err != nil {
		return err
	}
	return p.holds(*u)
}

// voidsProofs says whether a payload voids what was proven before it: another password, but not the same under another
// hash; other factors; and whatever ends every session of the user, for which a proof would begin another.
func voidsProofs(payload Payload) bool {
	switch p := payload.(type) {
	case PasswordChanged:
		return p.Reason != ReasonRehash
	case TOTPEnabled, TOTPDisabled, RecoveryCodesGenerated, Locked, Disabled:
		return true
	}
	return false
}

// changeProven is change on the strength of a proof. It fails as proven.holds does as well.
func (s *Service) changeProven(ctx context.Context, p proven, m eventstore.Metadata, decide func(User) (change, error)) (eventstore.Result, error) {
	return s.change(ctx, p.user, m, func(u User) (change, error) {
		if err := p.holds(u); err != nil {
			return change{}, err
		}
		return decide(u)
	})
}

// appendProven appends to a stream of the user's other than the user's own, on the strength of a proof. What to append is
// decided on u, and again on a newer state if the user changed since. It fails as proven.holds does, with decide's error, or
// as eventstore.Log.Append does.
func (s *Service) appendProven(ctx context.Context, p proven, u *User, decide func(*User) (eventstore.Append, error)) (eventstore.Result, error) {
	for try := 1; ; try++ {
		if err := p.holds(*u); err != nil {
			return eventstore.Result{}, err
		}
		a, err := decide(u)
		if err != nil {
			return eventstore.Result{}, err
		}
		a.Given = append(a.Given, eventstore.StreamVersion{Stream: p.user, Version: u.Version})
		result, err := s.log.Append(ctx, a)
		var stale *eventstore.StaleError
		if !errors.As(err, &stale) || try == changeTries {
			return result, err
		}
		if stale.Given.Stream == keysStream().ID {
			err = s.leaveKeys(ctx, stale.Given.Version)
		} else {
			u, err = s.ReadUser(ctx, p.user)
		}
		if err != nil {
			return eventstore.Result{}, err
		}
	}
}

// prove checks that whoever acts for a user is the user. It is throttled as a login is, and apart from those: a session has its
// own count, which strangers have no part in.
//
// It fails with ErrInvalidCredentials, also where there is no such user or the user has no password; with ErrThrottled; with
// ErrTOTPRequired, ErrUserLocked or ErrUserDisabled, only for a right password; with password.ErrOverloaded or
// password.ErrStopped, or as the database does.
func (s *Service) prove(ctx context.Context, id uuid.UUID, p Proof, m eventstore.Metadata) (proven, error) {
	u, err := s.ReadUser(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return proven{}, ErrWrongPassword
	}
	if err != nil {
		return proven{}, err
	}
	email, err := ParseEmail(u.Email)
	if err != nil {
		return proven{}, err
	}
	by := hashingFor(email, m)
	counted := p.Session
	if counted == uuid.Nil {
		counted = id
	}
	a := s.throttle.beginApart(scopeSession, counted)
	defer a.leave()
	found, err := s.lookUpUser(ctx, id, a)
	if err != nil {
		return proven{}, err
	}
	if err := a.wait(ctx, found.counted, found.network); err != nil {
		return proven{}, err
	}
	if _, err := s.checkPassword(ctx, by, found.hash, p.Password); err != nil {
		if errors.Is(err, ErrInvalidCredentials) {
			err = s.failed(ctx, a, id, MethodPassword, m, ErrWrongPassword)
		}
		return proven{}, err
	}
	if err := mayLogIn(*u); err != nil {
		return proven{}, err
	}
	if _, err := s.checkFactor(ctx, u, found.factors, p.TOTP); err != nil {
		if errors.Is(err, ErrInvalidCredentials) {
			err = s.failed(ctx, a, id, MethodTOTP, m, err)
		}
		return proven{}, err
	}
	return proven{id, found.version, by}, a.forgive(ctx)
}

// lately is how long a login shows who somebody is.
const lately = 15 * time.Minute

// confirm is prove for what a session that began lately is proof enough of: no password is needed then. It fails with
// CodeInvalidRequest where there is none and the session is older, and with ErrSessionEnded where it has ended.
func (s *Service) confirm(ctx context.Context, user, session uuid.UUID, p Proof, m eventstore.Metadata) (proven, error) {
	if p.Password != "" {
		return s.prove(ctx, user, p, m)
	}
	if !s.BeganLately(session) {
		return proven{}, refuse(CodeInvalidRequest, `the field "current_password" is needed, because the session began more than %.0f minutes ago`, lately.Minutes())
	}
	u, err := s.ReadUser(ctx, user)
	switch {
	case errors.Is(err, ErrNotFound):
		return proven{}, ErrSessionEnded
	case err != nil:
		return proven{}, err
	case !u.hasSession(session, sessionStart(session)):
		return proven{}, ErrSessionEnded
	}
	return proven{user: user, version: u.Version}, nil
}

// BeganLately says whether a session began so lately that it shows by itself who its user is, where Confirm would not ask for more.
func (s *Service) BeganLately(session uuid.UUID) bool {
	return s.now().Sub(sessionStart(session)) <= lately
}

// Confirm checks that whoever acts for a user in a session is the user: because the session began lately, or by what is shown. It
// fails as prove does, with CodeInvalidRequest where something has to be shown, and with ErrSessionEnded where the session has ended.
func (s *Service) Confirm(ctx context.Context, user, session uuid.UUID, p Proof, m eventstore.Metadata) error {
	shown, err := s.confirm(ctx, user, session, p, m)
	if err != nil {
		return err
	}
	return s.stillHolds(ctx, shown)
}
