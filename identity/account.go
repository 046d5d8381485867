package identity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
)

// RequestVerification asks for another code to verify the user's address with; for a verified one it does nothing. It
// fails with ErrNotFound, ErrUserLocked, ErrUserDisabled or ErrThrottled, or as eventstore.Log.Append does. The command id
// makes it repeatable, as in what follows; the nil UUID stands for none.
func (s *Service) RequestVerification(ctx context.Context, user, command uuid.UUID, m eventstore.Metadata) (eventstore.Result, error) {
	return s.askFor(ctx, user, command, m, requestVerification)
}

// askFor asks for what is decided, such as a code to be mailed. A command id that was done is answered as the first time
// before there is any throttle.
func (s *Service) askFor(ctx context.Context, user, command uuid.UUID, m eventstore.Metadata, decide func(User, time.Time) ([]Payload, error)) (eventstore.Result, error) {
	if first, err := s.answered(ctx, command); err != nil || first.Repeated {
		return first, err
	}
	return s.change(ctx, user, m, func(u User) (change, error) {
		events, err := decide(u, s.now())
		return change{events: events, commandID: command}, err
	})
}

// RequestVerificationOf is RequestVerification for whoever has an address, asked for by somebody who is not logged in: see
// RequestPasswordReset.
func (s *Service) RequestVerificationOf(ctx context.Context, address string, command uuid.UUID, m eventstore.Metadata) error {
	return s.askQuietly(ctx, address, command, m, requestVerification)
}

// RequestPasswordReset asks for a code to set another password with, for whoever has an address. The answer is the same
// whether anybody has it, and whether the user may have a code; only the time that it takes is not. It fails with
// ErrInvalidEmail, and with eventstore.ErrUnavailable where nobody could be looked up at all.
func (s *Service) RequestPasswordReset(ctx context.Context, address string, command uuid.UUID, m eventstore.Metadata) error {
	return s.askQuietly(ctx, address, command, m, requestPasswordReset)
}

// askQuietly asks for a code by address.
func (s *Service) askQuietly(ctx context.Context, address string, command uuid.UUID, m eventstore.Metadata, decide func(User, time.Time) ([]Payload, error)) error {
	email, err := ParseEmail(address)
	if err != nil {
		return err
	}
	id, err := s.reservedBy(ctx, reserveEmail(email))
	if err != nil || id == uuid.Nil {
		return err
	}
	_, err = s.askFor(ctx, id, command, m, decide)
	var refusal *Error
	if err != nil && !errors.As(err, &refusal) {
		// Only a user who exists comes as far as this, so whoever asks is not told.
		s.logger.WarnContext(ctx, "a code was asked for in vain", slog.String("user", id.String()), slog.Any("error", err))
	}
	return nil
}

// UserWith is the user who has an address. It fails with ErrInvalidEmail, with ErrNotFound where nobody has it, or as the
// database does.
func (s *Service) UserWith(ctx context.Context, address string) (uuid.UUID, error) {
	email, err := ParseEmail(address)
	if err != nil {
		return uuid.Nil, err
	}
	id, err := s.reservedBy(ctx, reserveEmail(email))
	if err == nil && id == uuid.Nil {
		err = refuse(CodeNotFound, "nobody has this address")
	}
	return id, err
}

// reservedBy is the user who holds a reservation, the nil UUID where nobody does.
func (s *Service) reservedBy(ctx context.Context, r eventstore.Reservation) (id uuid.UUID, err error) {
	err = s.db.QueryRow(ctx, `SELECT stream FROM reservations WHERE scope = $1 AND key = $2`, r.Scope, s.log.Sealer().ReservationKey(r)).Scan(&id)
	if errors.Is(err, eventstore.ErrNoRows) {
		return uuid.Nil, nil
	}
	if err != nil {
		return uuid.Nil, fmt.Errorf("look up the %s: %w", r.Scope, err)
	}
	return id, nil
}

// RequestEmailChange asks for the user to have another address. The user keeps the present one until the code that is
// mailed to the other comes back: see Verify. It fails as prove does, with ErrInvalidEmail, ErrThrottled or, unless the
// service is enumeration-safe, ErrEmailTaken, or as eventstore.Log.Append does.
func (s *Service) RequestEmailChange(ctx context.Context, user uuid.UUID, p Proof, address string, command uuid.UUID, m eventstore.Metadata) (eventstore.Result, error) {
	if first, err := s.answered(ctx, command); err != nil || first.Repeated {
		return first, err
	}
	email, err := ParseEmail(address)
	if err != nil {
		return eventstore.Result{}, err
	}
	shown, err := s.prove(ctx, user, p, m)
	if err != nil {
		return eventstore.Result{}, err
	}
	owner, err := s.reservedBy(ctx, reserveEmail(email))
	switch {
	case err != nil:
		return eventstore.Result{}, err
	case owner != uuid.Nil && owner != user && !s.safe:
		return eventstore.Result{}, emailTaken()
	}
	return s.changeProven(ctx, shown, m, func(u User) (change, error) {
		events, err := requestEmailChange(u, email, s.now())
		return change{events: events, commandID: command}, err
	})
}

// Verify does what a code from a mail is for, if it is one to verify an address: the user's own, or the one that the user
// wants to have, which the user has from then on. It fails with ErrInvalidCode, ErrAlreadyDone, ErrUserLocked or ErrUserDisabled, with
// ErrEmailTaken where somebody else has the wanted address by now, or as eventstore.Log.Append does.
func (s *Service) Verify(ctx context.Context, c MailCode, command uuid.UUID, m eventstore.Metadata) (eventstore.Result, error) {
	result, err := s.useCode(ctx, c, command, m, func(u User, p Purpose) (change, error) {
		if p == PurposeEmail {
			return changeEmail(u)
		}
		return change{events: verifyEmail(u)}, nil
	}, PurposeVerify, PurposeEmail)
	if errors.Is(err, eventstore.ErrReserved) {
		err = emailTaken()
	}
	return result, err
}

// What follows decides.

func requestVerification(u User, now time.Time) ([]Payload, error) {
	if err := mayLogIn(u); err != nil {
		return nil, err
	}
	if u.EmailVerified {
		return nil, nil
	}
	return []Payload{EmailVerificationRequested{}}, u.mayAsk(PurposeVerify, now)
}

// registerAgain decides on a user whose address somebody has registered once more, without being told that it is taken: the
// user is. Where nobody has shown to read mail there, it is a code that is mailed.
func registerAgain(u User, now time.Time) ([]Payload, error) {
	if !u.EmailVerified {
		return requestVerification(u, now)
	}
	if err := mayLogIn(u); err != nil {
		return nil, err
	}
	return []Payload{RegisteredAgain{}}, u.mayAsk(purposeTold, now)
}

func requestPasswordReset(u User, now time.Time) ([]Payload, error) {
	if err := mayLogIn(u); err != nil {
		return nil, err
	}
	return []Payload{PasswordResetRequested{}}, u.mayAsk(PurposeReset, now)
}

func requestEmailChange(u User, email Email, now time.Time) ([]Payload, error) {
	if err := mayLogIn(u); err != nil {
		return nil, err
	}
	if email.String() == u.Email {
		return nil, refuse(CodeInvalidEmail, "the account has this address already")
	}
	var p EmailChangeRequested
	p.Personal.Email = email.String()
	return []Payload{p}, u.mayAsk(PurposeEmail, now)
}

// verifyEmail decides on a user who has shown to read mail at the present address.
func verifyEmail(u User) []Payload {
	if u.EmailVerified {
		return nil
	}
	var p EmailVerified
	p.Personal.Email = u.Email
	return []Payload{p}
}

// firstProof decides on a user who comes in by a code that was mailed to the present address. If nobody had shown to read mail
// there, whoever registered may be somebody else, who has squatted the address: what proved the user until now does so no
// longer. The caller ends the sessions and replaces the password in the same append. A code that only verifies an
// address takes nothing away: it lets nobody in.
func firstProof(u User) change {
	if u.EmailVerified {
		return change{}
	}
	done := change{events: verifyEmail(u), state: dropFactors(u.ID)}
	if u.TOTPEnabled {
		done.events = append(done.events, TOTPDisabled{Reason: ReasonReset})
	}
	done.events = append(done.events, withdrawConsents(u)...)
	return done
}

// changeEmail decides on a user who has shown to read mail at the wanted address.
func changeEmail(u User) (change, error) {
	wanted, err := ParseEmail(u.wantedEmail)
	if err != nil {
		return change{}, err
	}
	return giveEmail(u, wanted)
}

// giveEmail decides on another address for a user, which counts as verified.
func giveEmail(u User, email Email) (change, error) {
	present, err := ParseEmail(u.Email)
	if err != nil {
		return change{}, err
	}
	var p EmailChanged
	p.Personal.Email = email.String()
	return change{
		events:  []Payload{p},
		reserve: []eventstore.Reservation{reserveEmail(email)},
		release: []eventstore.Reservation{reserveEmail(present)},
	}, nil
}

func emailTaken() error { return refuse(CodeEmailTaken, "the address is taken") }

// Bounds of the mails that can be asked for, by the user or by somebody who only knows the address.
const (
	askPause  = time.Minute // between two of a purpose
	askWindow = time.Hour
	askLimit  = 5 // of a purpose within a window
)

// ask is a mail that was asked for.
type ask struct {
	purpose Purpose
	at      time.Time
}

// asked notes that a mail was asked for, and forgets what is too old to matter. It changes nothing of the state before.
func (u *User) asked(p Purpose, at time.Time) {
	var recent []ask
	for _, a := range u.asks {
		if a.at.After(at.Add(-askWindow)) {
			recent = append(recent, a)
		}
	}
	u.asks = append(recent, ask{p, at})
}

// mayAsk fails with ErrThrottled where a mail was asked for too often of late.
func (u *User) mayAsk(p Purpose, now time.Time) error {
	var recent []time.Time
	for _, a := range u.asks {
		if a.purpose == p && a.at.After(now.Add(-askWindow)) {
			recent = append(recent, a.at)
		}
	}
	var wait time.Duration
	if n := len(recent); n > 0 {
		wait = recent[n-1].Add(askPause).Sub(now)
		if n >= askLimit {
			wait = max(wait, recent[n-askLimit].Add(askWindow).Sub(now))
		}
	}
	if wait <= 0 {
		return nil
	}
	return &Error{Code: CodeThrottled, Detail: "a mail was sent a short while ago", RetryAfter: wait}
}
