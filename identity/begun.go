package identity

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
)

// BegunLogin is the opaque text by which a login goes on whose password was right and that needs a second factor, without the
// password being sent again. By itself it is good for nothing. It can't be printed by accident.
//
// Its content is, in base64url: its form (1 byte, 1), the user's id (16 bytes), the version of the user's stream at which the password
// was right, when that was (8 bytes each, big-endian; Unix seconds), and an HMAC-SHA-256 over all that, under a key that is in no
// database.
type BegunLogin string

func (BegunLogin) String() string       { return "[hidden]" }
func (BegunLogin) GoString() string     { return "[hidden]" }
func (BegunLogin) LogValue() slog.Value { return slog.StringValue("[hidden]") }

const (
	begunForm    = 1
	begunContent = 1 + 16 + 8 + 8
	begunLength  = begunContent + sha256.Size

	// continueWithin is how long a login that has begun may take.
	continueWithin = 10 * time.Minute
)

// FactorRequiredError is ErrTOTPRequired, with what has been shown so far.
type FactorRequiredError struct{ Begun BegunLogin }

func (*FactorRequiredError) Error() string { return ErrTOTPRequired.Error() }
func (*FactorRequiredError) Unwrap() error { return ErrTOTPRequired }

func (s *Service) beginFactor(shown proven) BegunLogin {
	raw := make([]byte, 1, begunLength)
	raw[0] = begunForm
	raw = append(raw, shown.user[:]...)
	raw = binary.BigEndian.AppendUint64(raw, uint64(shown.version))
	raw = binary.BigEndian.AppendUint64(raw, uint64(s.now().Unix()))
	return BegunLogin(refreshText.EncodeToString(append(raw, s.codeMAC("begun", string(raw))...)))
}

// parseBegun is what was shown in a login that has begun. It fails with ErrLoginOver.
func (s *Service) parseBegun(t BegunLogin) (proven, error) {
	if len(t) != refreshText.EncodedLen(begunLength) {
		return proven{}, ErrLoginOver
	}
	raw, err := refreshText.DecodeString(string(t))
	if err != nil || len(raw) != begunLength || raw[0] != begunForm || !hmac.Equal(raw[begunContent:], s.codeMAC("begun", string(raw[:begunContent]))) {
		return proven{}, ErrLoginOver
	}
	began := time.Unix(int64(binary.BigEndian.Uint64(raw[25:begunContent])), 0)
	if s.now().Sub(began) > continueWithin {
		return proven{}, ErrLoginOver
	}
	return proven{user: uuid.UUID(raw[1:17]), version: int(binary.BigEndian.Uint64(raw[17:25]))}, nil
}

// FactorShown is the second factor of a login that has begun.
type FactorShown struct {
	Begun    BegunLogin
	TOTP     FactorCode
	Device   DeviceToken
	Metadata eventstore.Metadata // the actor is filled in
}

// ContinueLogin goes on with a login that failed with a FactorRequiredError. It is counted and kept back as that is, and fails as Login
// does where the second factor is looked at; with ErrLoginOver where the login began too long ago, or what was shown then was
// replaced since.
func (s *Service) ContinueLogin(ctx context.Context, f FactorShown) (LoginResult, error) {
	shown, err := s.parseBegun(f.Begun)
	if err != nil {
		return LoginResult{}, err
	}
	u, err := s.ReadUser(ctx, shown.user)
	if errors.Is(err, ErrNotFound) {
		return LoginResult{}, ErrLoginOver
	}
	if err != nil {
		return LoginResult{}, fmt.Errorf("read the user: %w", err)
	}
	email, err := ParseEmail(u.Email)
	if err != nil {
		return LoginResult{}, err
	}
	c := Credentials{TOTP: f.TOTP, Device: f.Device, Metadata: f.Metadata}
	a, found, err := s.beginLogin(ctx, email, c)
	if err != nil {
		return LoginResult{}, err
	}
	defer a.leave()
	if err := a.wait(ctx, found.counted, found.network); err != nil {
		return LoginResult{}, err
	}
	if found.user != u.ID { // the address is another's since
		return LoginResult{}, ErrLoginOver
	}
	if u, err = s.userSince(ctx, u.ID, found.version); err != nil {
		return LoginResult{}, fmt.Errorf("read the user: %w", err)
	}
	if err := shown.holds(*u); errors.Is(err, ErrInvalidCredentials) {
		return LoginResult{}, ErrLoginOver
	} else if err != nil {
		return LoginResult{}, err
	}
	return s.finishLogin(ctx, a, found, shown, u, c)
}
