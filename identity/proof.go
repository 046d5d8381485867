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
	Password password.Password // the current one
	TOTP     FactorCode        // where the user has a second factor; else it is not looked at
}

// FactorCode is what shows a second factor: a one-time password or a recovery code. It can't be printed by accident.
type FactorCode string

func (FactorCode) String() string       { return "[hidden]" }
func (FactorCode) GoString() string     { return "[hidden]" }
func (FactorCode) LogValue() slog.Value { return slog.StringValue("[hidden]") }

// proven is who has shown to be a user: the user's state, which was read before the password was, and the hash that the
// password is of.
type proven struct {
	user *User
	hash password.Hash
	by   password.Caller // for what else is to be hashed
}

// prove checks that whoever acts for a user is the user. It is throttled as a login is, and together with those.
//
// It fails with ErrInvalidCredentials, also where there is no such user or the user has no password; with ErrThrottled; with
// ErrTOTPRequired, ErrUserLocked or ErrUserDisabled, only for a right password; with password.ErrOverloaded or
// password.ErrStopped, or as the database does.
func (s *Service) prove(ctx context.Context, id uuid.UUID, p Proof, m eventstore.Metadata) (proven, error) {
	u, err := s.ReadUser(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return proven{}, wrongPassword()
	}
	if err != nil {
		return proven{}, err
	}
	email, err := ParseEmail(u.Email)
	if err != nil {
		return proven{}, err
	}
	by := hashingFor(email, m)
	a := s.throttle.begin(email, m.Address)
	defer a.leave()
	found, err := s.lookUpUser(ctx, id, a)
	if err != nil {
		return proven{}, err
	}
	if err := a.wait(ctx, found.account, found.network); err != nil {
		return proven{}, err
	}
	if _, err := s.checkPassword(ctx, by, found.hash, p.Password); err != nil {
		if errors.Is(err, ErrInvalidCredentials) {
			err = s.failed(ctx, a, id, MethodPassword, m, wrongPassword())
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
	return proven{u, found.hash, by}, a.forgive(ctx)
}

// lately is how long a login shows who somebody is.
const lately = 15 * time.Minute

// Confirm checks that whoever acts in a session has logged in lately or shows, by a password, to be the user. It fails with
// CodeInvalidRequest where there is no password and the session is older than that, and otherwise as every call that takes
// a Proof does.
func (s *Service) Confirm(ctx context.Context, user, session uuid.UUID, p Proof, m eventstore.Metadata) error {
	if p.Password != "" {
		_, err := s.prove(ctx, user, p, m)
		return err
	}
	if s.now().Sub(sessionStart(session)) > lately {
		return refuse(CodeInvalidRequest, `the field "current_password" is needed, because the session began more than %.0f minutes ago`, lately.Minutes())
	}
	return nil
}

func wrongPassword() error { return refuse(CodeInvalidCredentials, "the password is wrong") }
