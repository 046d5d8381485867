package identity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"usher/eventstore"
	"usher/identity/password"
)

// Credentials is the wish of somebody to be logged in as a user.
type Credentials struct {
	Email    string
	Password password.Password
	Metadata eventstore.Metadata // the actor is filled in
}

// LoginResult is a session that began or goes on.
type LoginResult struct {
	User             *User
	Session          uuid.UUID
	StartedAt        time.Time
	ExpiresAt        time.Time // when the session ends at the latest
	Refresh          RefreshToken
	RefreshExpiresAt time.Time // when the session ends unless it is refreshed
	Position         int64     // of session.started; 0 for a refresh, which is no event
}

// Login checks credentials and starts a session. An address that nobody has costs the same hashing as one that
// somebody has, and gets the same answer as a wrong password.
//
// It fails with ErrInvalidEmail, ErrInvalidCredentials; with ErrUserLocked or ErrUserDisabled only for a right
// password; with password.ErrOverloaded or password.ErrStopped, or as eventstore.Log.Append does.
func (s *Service) Login(ctx context.Context, c Credentials) (LoginResult, error) {
	email, err := ParseEmail(c.Email)
	if err != nil {
		return LoginResult{}, err
	}
	id, hash, err := s.holder(ctx, reserveEmail(email))
	if err != nil {
		return LoginResult{}, err
	}
	outdated, err := s.checkPassword(ctx, id, hash, c.Password)
	if err != nil {
		return LoginResult{}, err
	}
	u, err := s.User(ctx, id)
	if errors.Is(err, ErrNotFound) { // erased since the address was looked up
		return LoginResult{}, wrongCredentials()
	}
	if err != nil {
		return LoginResult{}, fmt.Errorf("read the user: %w", err)
	}
	c.Metadata.Actor = ActorUser(id)
	result, err := s.startSession(ctx, u, []string{MethodPassword}, c.Metadata)
	if err != nil {
		return LoginResult{}, err
	}
	if outdated && s.rehash {
		// The login succeeded; a hash that could not be replaced is replaced by the next one.
		if err := s.replaceHash(ctx, u, hash, c); err != nil {
			s.logger.WarnContext(ctx, "outdated password hash was not replaced", slog.String("user", id.String()), slog.Any("error", err))
		}
	}
	return result, nil
}

// checkPassword fails with ErrInvalidCredentials unless the password is that of the hash. The nil UUID stands for
// nobody, and the empty hash is that of a user who has no password.
func (s *Service) checkPassword(ctx context.Context, id uuid.UUID, hash password.Hash, secret password.Password) (outdated bool, err error) {
	wrong := wrongCredentials()
	match := false
	if id == uuid.Nil || hash == "" {
		err = s.pool.VerifyUnknown(ctx, secret)
	} else {
		match, outdated, err = s.pool.Verify(ctx, hash, secret)
	}
	switch {
	case errors.Is(err, password.ErrRefused): // no user has such a password
		return false, wrong
	case err != nil:
		return false, err
	case !match:
		return false, wrong
	}
	return outdated, nil
}

// replaceHash stores the same password under a new hash. It changes nothing if the user changed since u was read.
func (s *Service) replaceHash(ctx context.Context, u *User, verified password.Hash, c Credentials) error {
	payloads, err := rehash(*u)
	if err != nil {
		return err
	}
	hash, err := s.pool.Hash(ctx, c.Password)
	if err != nil {
		return err
	}
	// The password may have been changed after its hash was verified and before u was read. If it has not been by now,
	// the version of u is one at which the verified hash was in force, and the append is refused at any other.
	present, err := s.readCredential(ctx, u.ID)
	if err != nil {
		return err
	}
	if present.hash != verified {
		return nil
	}
	present.hash = hash
	_, err = s.append(ctx, eventstore.Append{
		Stream:   eventstore.UserStream(u.ID),
		Expected: eventstore.Expected(u.Version),
		Events:   newEvents(payloads),
		Metadata: c.Metadata,
		State:    []eventstore.StateChange{storeCredential(u.ID, present)},
	})
	return err
}
