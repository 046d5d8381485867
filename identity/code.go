package identity

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
)

// Purpose says what a code is for.
type Purpose string

// The purposes. A user has at most one good code for each.
const (
	PurposeVerify Purpose = "verify" // to verify the user's address
	PurposeReset  Purpose = "reset"  // to set another password
	PurposeEmail  Purpose = "email"  // to have the address that the user wants
)

// purposeTold is that of mails which carry no code and are bounded as those that do: anybody can have them sent.
const purposeTold Purpose = "told"

// Lifetime is how long a code for the purpose is good.
func (p Purpose) Lifetime() time.Duration {
	if p == PurposeVerify {
		return 24 * time.Hour
	}
	return time.Hour
}

// MailCode is the text that shows, to whoever was mailed it, that its holder reads mail at an address. It can't be printed by
// accident.
//
// It is random, of some 130 bits, in capital letters and digits. It is good once, for a while, for its user and purpose,
// and for the address it was mailed to: see Service.NewCode. The database has an HMAC of it, under a key that it has not.
type MailCode string

func (MailCode) String() string       { return "[hidden]" }
func (MailCode) GoString() string     { return "[hidden]" }
func (MailCode) LogValue() slog.Value { return slog.StringValue("[hidden]") }

// NewCode makes the code of a mail that is about to be sent, in the place of the one before it, and answers with the
// address that it is for. It fails with ErrNotFound, with ErrCodeNotNeeded where there is nothing left to do with a
// code, or as the database does.
func (s *Service) NewCode(ctx context.Context, user uuid.UUID, p Purpose) (MailCode, string, error) {
	address, err := s.CodeAddress(ctx, user, p)
	if err != nil {
		return "", "", err
	}
	code := MailCode(rand.Text())
	now := s.now().UTC()
	_, err = s.db.Exec(ctx, `
		INSERT INTO codes (user_id, purpose, hash, address, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (user_id, purpose) DO UPDATE
		   SET hash = excluded.hash, address = excluded.address, created_at = excluded.created_at, expires_at = excluded.expires_at,
		       used_at = NULL`,
		user, string(p), s.codeHash(code), s.addressHash(address), now, now.Add(p.Lifetime()))
	if err != nil {
		return "", "", fmt.Errorf("store a code: %w", err)
	}
	return code, address, nil
}

// CodeAddress is the address that a code for a purpose would be for. It fails as NewCode does.
func (s *Service) CodeAddress(ctx context.Context, user uuid.UUID, p Purpose) (string, error) {
	u, err := s.ReadUser(ctx, user)
	if err != nil {
		return "", err
	}
	address := codeAddress(*u, p)
	if address == "" {
		return "", ErrCodeNotNeeded
	}
	if p == PurposeEmail {
		// Nothing is mailed to somebody else's address. That it is somebody's may have been kept from the user.
		email, err := ParseEmail(address)
		if err != nil {
			return "", err
		}
		owner, err := s.reservedBy(ctx, reserveEmail(email))
		switch {
		case err != nil:
			return "", err
		case owner != uuid.Nil && owner != user:
			return "", ErrCodeNotNeeded
		}
	}
	return address, nil
}

// ErrCodeNotNeeded: a code for this purpose would be of no use to the user, now.
var ErrCodeNotNeeded = errors.New("the user needs no such code")

// codeAddress is the address that a user's code for a purpose is good for; "" where the user needs none.
func codeAddress(u User, p Purpose) string {
	switch {
	case mayLogIn(u) != nil:
		return ""
	case p == PurposeVerify && !u.EmailVerified, p == PurposeReset:
		return u.Email
	case p == PurposeEmail:
		return u.wantedEmail
	}
	return ""
}

func (s *Service) codeHash(c MailCode) []byte { return s.codeMAC("code", string(c)) }

func (s *Service) addressHash(address string) []byte { return s.codeMAC("address", address) }

func (s *Service) codeMAC(what, value string) []byte {
	mac := hmac.New(sha256.New, s.codeKey)
	mac.Write([]byte(what))
	mac.Write([]byte{0})
	mac.Write([]byte(value))
	return mac.Sum(nil)
}

// codeRow is what is known of a code.
type codeRow struct {
	user             uuid.UUID
	purpose          Purpose
	hash, address    []byte
	created, expires time.Time
	used             *time.Time // nil for one that was not used yet
}

// findCode fails with ErrInvalidCode where there is no such code.
func (s *Service) findCode(ctx context.Context, c MailCode) (r codeRow, err error) {
	var purpose string
	r.hash = s.codeHash(c)
	err = s.db.QueryRow(ctx, `SELECT user_id, purpose, address, created_at, expires_at, used_at FROM codes WHERE hash = $1`, r.hash).
		Scan(&r.user, &purpose, &r.address, &r.created, &r.expires, &r.used)
	if errors.Is(err, eventstore.ErrNoRows) {
		return r, ErrInvalidCode
	}
	if err != nil {
		return r, fmt.Errorf("look up a code: %w", err)
	}
	r.purpose = Purpose(purpose)
	return r, nil
}

// checkCode says whether a code is good for one of the purposes, and for the user as the user is now. It fails with
// ErrInvalidCode, ErrUserLocked or ErrUserDisabled, or with ErrAlreadyDone for one that has done what it is for, or of which
// there is nothing left to do: mails are opened twice, by people and by programs that look at links for them.
func (s *Service) checkCode(u User, r codeRow, purposes ...Purpose) error {
	if err := mayLogIn(u); err != nil {
		return err
	}
	verified := r.purpose == PurposeVerify && u.EmailVerified && bytes.Equal(r.address, s.addressHash(u.Email))
	switch {
	case !slices.Contains(purposes, r.purpose), !s.now().Before(r.expires):
		return ErrInvalidCode
	case r.used != nil, verified:
		return ErrAlreadyDone
	case !bytes.Equal(r.address, s.addressHash(codeAddress(u, r.purpose))):
		return ErrInvalidCode
	}
	return nil
}

// useCode does what a code for one of the purposes allows, and decide decides on, in one append with the end of the code.
//
// A code is good once because the append expects the version of the user at which the code was not used yet: whoever
// comes second finds another version, reads again, and finds it used. So the code is read after the user, never before.
//
// A command id that was done is answered as the first time, although the code is used.
func (s *Service) useCode(ctx context.Context, c MailCode, command uuid.UUID, m eventstore.Metadata, decide func(User, Purpose) (change, error), purposes ...Purpose) (eventstore.Result, error) {
	result, err := s.tryCode(ctx, c, command, m, decide, purposes...)
	if errors.Is(err, ErrInvalidCode) || errors.Is(err, ErrAlreadyDone) {
		if first, found := s.answered(ctx, command); found != nil || first.Repeated {
			return first, found
		}
	}
	return result, err
}

func (s *Service) tryCode(ctx context.Context, c MailCode, command uuid.UUID, m eventstore.Metadata, decide func(User, Purpose) (change, error), purposes ...Purpose) (eventstore.Result, error) {
	found, err := s.findCode(ctx, c)
	if err != nil {
		return eventstore.Result{}, err
	}
	m.Actor = ActorUser(found.user)
	result, err := s.change(ctx, found.user, m, func(u User) (change, error) {
		row, err := s.findCode(ctx, c)
		if err == nil {
			err = s.checkCode(u, row, purposes...)
		}
		if err != nil {
			return change{}, err
		}
		done, err := decide(u, row.purpose)
		if err != nil {
			return change{}, err
		}
		email, err := ParseEmail(codeAddress(u, row.purpose))
		if err != nil {
			return change{}, err
		}
		// Whoever reads mail at the address is not kept out by those who guessed at it.
		done.state = append(done.state, row.use(s.now()), s.throttle.pardon(email))
		done.commandID = command
		return done, nil
	})
	if errors.Is(err, ErrNotFound) { // erased since
		err = ErrInvalidCode
	}
	return result, err
}

// use is the state change that uses a code up.
func (r codeRow) use(now time.Time) eventstore.StateChange {
	return stateRow("codes", map[string]any{
		"user_id": r.user, "purpose": string(r.purpose), "hash": bytea(r.hash), "address": bytea(r.address),
		"created_at": r.created.UTC(), "expires_at": r.expires.UTC(), "used_at": now.UTC(),
	})
}

// dropCode is the state change that ends a user's code for a purpose, if there is one.
func dropCode(user uuid.UUID, p Purpose) eventstore.StateChange {
	return dropRow("codes", map[string]any{"user_id": user, "purpose": string(p)})
}

// dropExpiredCodes removes the codes that are past their time, which nobody could use any more.
func (s *Service) dropExpiredCodes(ctx context.Context) error {
	if _, err := s.db.Exec(ctx, `DELETE FROM codes WHERE expires_at <= $1`, s.now().UTC()); err != nil {
		return fmt.Errorf("remove expired codes: %w", err)
	}
	return nil
}
