package identity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity/password"
)

// Credentials is the wish of somebody to be logged in as a user.
type Credentials struct {
	Email    string
	Password password.Password
	TOTP     FactorCode          // for a user with a second factor
	Device   DeviceToken         // of the device, where the user was logged in on it before
	Metadata eventstore.Metadata // the actor is filled in
}

// LoginResult is a session that began or goes on.
type LoginResult struct {
	User             *User
	Session          uuid.UUID
	StartedAt        time.Time
	ExpiresAt        time.Time // when the session ends at the latest
	Methods          []string  // that proved who it is: MethodPassword, …; nil for a refresh
	Refresh          RefreshToken
	RefreshExpiresAt time.Time   // when the session ends unless it is refreshed
	Position         int64       // of session.started; 0 for a refresh, which is no event
	Device           DeviceToken // for the next login on this device; empty for a refresh
	Grant            *Grant      // that the session is; nil for a login
}

// Login checks credentials and starts a session. An address that nobody has costs the same as one that somebody has, in
// hashing, queries and waits, and gets the same answer as a wrong password.
//
// It is one query, the user's state (from memory, else the log), and one append; a second factor that is shown is one
// update more. A failure is one query and one upsert.
//
// It fails with ErrInvalidEmail, ErrInvalidCredentials; with ErrThrottled after too many failures, and then nothing was
// looked at; with ErrTOTPRequired, ErrUserLocked, ErrUserDisabled, ErrEmailNotVerified or ErrPasswordExpired only for a right
// password; with password.ErrOverloaded or password.ErrStopped, or as eventstore.Log.Append does.
func (s *Service) Login(ctx context.Context, c Credentials) (LoginResult, error) {
	email, err := ParseEmail(c.Email)
	if err != nil {
		return LoginResult{}, err
	}
	a, found, err := s.beginLogin(ctx, email, c)
	if err != nil {
		return LoginResult{}, err
	}
	defer a.leave()
	if err := a.wait(ctx, found.counted, found.network); err != nil {
		return LoginResult{}, err
	}
	by := hashingFor(email, c.Metadata)
	outdated, err := s.checkPassword(ctx, by, found.hash, c.Password)
	wrong := errors.Is(err, ErrInvalidCredentials)
	if err != nil && !wrong {
		return LoginResult{}, err
	}
	var u *User
	if !wrong || s.safe && found.user != uuid.Nil { // read for a wrong password too, where time must not tell which it was
		u, err = s.userSince(ctx, found.user, found.version)
		if errors.Is(err, ErrNotFound) { // erased since the address was looked up
			return LoginResult{}, wrongCredentials()
		}
		if err != nil {
			return LoginResult{}, fmt.Errorf("read the user: %w", err)
		}
	}
	unverified := !wrong && s.needsVerified && !u.EmailVerified
	switch {
	case wrong:
		return LoginResult{}, s.failed(ctx, a, found.user, MethodPassword, c.Metadata, wrongCredentials())
	case unverified && s.safe:
		// It is counted as well, or it would be told by when attempts are no longer looked at.
		return LoginResult{}, s.failed(ctx, a, found.user, reasonUnverified, c.Metadata, wrongCredentials())
	}
	if err := mayLogIn(*u); err != nil {
		return LoginResult{}, err
	}
	if unverified {
		return LoginResult{}, refuse(CodeEmailNotVerified, "the address is not verified; POST /v1/auth/verify-email/resend asks for a code to do that with")
	}
	shown := proven{u.ID, found.version, by}
	result, err := s.finishLogin(ctx, a, found, shown, u, c)
	if errors.Is(err, ErrTOTPRequired) {
		err = &FactorRequiredError{Begun: s.beginFactor(shown)}
	} else if err != nil {
		return LoginResult{}, err
	}
	if outdated && s.rehash {
		// The password was right; a hash that could not be replaced is replaced by the next login.
		c.Metadata.Actor = ActorUser(u.ID)
		if err := s.replaceHash(ctx, shown, found.hash, c); err != nil {
			s.logger.WarnContext(ctx, "outdated password hash was not replaced", slog.String("user", u.ID.String()), slog.Any("error", err))
		}
	}
	return result, err
}

// finishLogin starts the session of a user whose password was right, once the second factor is.
func (s *Service) finishLogin(ctx context.Context, a *attempt, found found, shown proven, u *User, c Credentials) (LoginResult, error) {
	methods, err := s.checkFactor(ctx, u, found.factors, c.TOTP)
	if errors.Is(err, ErrInvalidCredentials) {
		err = s.failed(ctx, a, u.ID, MethodTOTP, c.Metadata, err)
	}
	if err == nil {
		err = mayUsePassword(*u, found.changed, s.now(), s.passwordMaxAge)
	}
	if err != nil {
		return LoginResult{}, err
	}
	c.Metadata.Actor = ActorUser(u.ID)
	token, known, err := s.remember(ctx, u.ID, found.device, found.changed)
	if err != nil {
		return LoginResult{}, err
	}
	result, err := s.startSession(ctx, shown, u, methods, c.Metadata, append(known, a.clear()...)...)
	if err != nil {
		return LoginResult{}, err
	}
	result.Device, result.Methods = token, methods
	a.succeeded()
	return result, nil
}

// found is what is read of a user, and of the throttle, before anything that is shown is checked.
type found struct {
	user             uuid.UUID     // the nil UUID where nobody has the address
	version          int           // of the user's stream, at which all this was so
	hash             password.Hash // "" where nobody has the address, and for a user without a password
	changed          time.Time     // when the password changed
	factors          factors
	device           device
	counted, network failures
}

// beginLogin begins an attempt to log in, and reads all that is to be known before what is shown is checked. An attempt from a
// device that is known is counted on that, any other on the address. If it fails, leave need not be called.
func (s *Service) beginLogin(ctx context.Context, e Email, c Credentials) (*attempt, found, error) {
	if id := s.parseDevice(c.Device); id != uuid.Nil {
		a := s.throttle.beginApart(scopeDevice, id)
		f, err := s.lookUp(ctx, e, a, id)
		if err == nil && f.device.id != uuid.Nil {
			return a, f, nil
		}
		a.leave()
		if err != nil {
			return nil, found{}, err
		}
	}
	a := s.throttle.begin(e, networkOf(c.Metadata))
	f, err := s.lookUp(ctx, e, a, uuid.Nil)
	if err != nil {
		a.leave()
		return nil, found{}, err
	}
	return a, f, nil
}

// lookUp reads it all in one query, which is the same whether anybody has the address or not. The user's data key comes
// along, since the session's client is sealed with it.
func (s *Service) lookUp(ctx context.Context, e Email, a *attempt, device uuid.UUID) (found, error) {
	r := reserveEmail(e)
	return s.find(ctx, a, lookUpAddress, device, r.Scope, s.log.Sealer().ReservationKey(r))
}

// lookUpUser reads the same of a user who is logged in.
func (s *Service) lookUpUser(ctx context.Context, id uuid.UUID, a *attempt) (found, error) {
	return s.find(ctx, a, lookUpID, uuid.Nil, id)
}

// The statements of lookUp and lookUpUser.
var (
	lookUpAddress = findStatement("LEFT JOIN reservations r ON r.scope = $4 AND r.key = $5 LEFT JOIN streams s ON s.stream = r.stream")
	lookUpID      = findStatement("LEFT JOIN streams s ON s.stream = $4")
)

func findStatement(from string) string {
	return `
		SELECT s.stream, s.version, c.hash, c.changed_at, k.wrapped, t.secret, t.last_step, t.created_at, t.confirmed_at,
		       b.secret, b.last_step, b.created_at, b.confirmed_at,
		       d.device_id, d.created_at, d.used_at, (SELECT count(*) FROM known_devices o WHERE o.user_id = s.stream),
		       a.failures, a.failed_at, a.forget_at, n.failures, n.failed_at, n.forget_at
		  FROM (SELECT 1) one ` + from + `
		  LEFT JOIN credentials c ON c.user_id = s.stream
		  LEFT JOIN user_keys k ON k.user_id = s.stream
		  LEFT JOIN factors t ON t.user_id = s.stream AND t.kind = '` + kindTOTP + `'
		  LEFT JOIN factors b ON b.user_id = s.stream AND b.kind = '` + kindRecovery + `'
		  LEFT JOIN known_devices d ON d.user_id = s.stream AND d.device_id = $3 AND d.password_set_at = c.changed_at
		  LEFT JOIN throttle a ON a.key = $1
		  LEFT JOIN throttle n ON n.key = $2`
}

func (s *Service) find(ctx context.Context, a *attempt, statement string, known uuid.UUID, who ...any) (f found, err error) {
	var user uuid.NullUUID
	var version *int
	var hash *string
	var changed *time.Time
	var wrapped []byte
	var totp, recovery factorRow
	var device uuid.NullUUID
	var created, used *time.Time
	var devices int
	var counted, network failuresRow
	columns := slices.Concat([]any{&user, &version, &hash, &changed, &wrapped}, totp.columns(), recovery.columns(),
		[]any{&device, &created, &used, &devices}, counted.columns(), network.columns())
	if err := s.db.QueryRow(ctx, statement, append([]any{a.key, a.network, known}, who...)...).Scan(columns...); err != nil {
		return found{}, fmt.Errorf("look up who it is: %w", err)
	}
	f = found{
		user: user.UUID, factors: factors{totp: totp.factor(), recovery: recovery.factor()},
		counted: counted.failures(), network: network.failures(),
	}
	f.device.others = devices
	if device.Valid {
		f.device.id, f.device.created, f.device.used = device.UUID, *created, *used
	}
	if version != nil {
		f.version = *version
	}
	if hash != nil {
		f.hash, f.changed = password.Hash(*hash), *changed
	}
	if wrapped != nil {
		if err := s.log.Sealer().Learn(f.user, wrapped); err != nil {
			return found{}, err
		}
	}
	return f, nil
}

// checkPassword fails with ErrInvalidCredentials unless the password is that of the hash. The hash "", which is nobody's,
// costs the same.
func (s *Service) checkPassword(ctx context.Context, by password.Caller, hash password.Hash, secret password.Password) (outdated bool, err error) {
	wrong := wrongCredentials()
	match := false
	if hash == "" {
		err = s.pool.VerifyUnknown(ctx, by, secret)
	} else {
		match, outdated, err = s.pool.Verify(ctx, by, hash, secret)
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

// hashingFor is whose part of the hashing queue a computation takes: that of the client's site, in it that of the client's network,
// and in that the account's. It is the network of the address that is known, so that nobody has many parts by naming many networks.
func hashingFor(e Email, m eventstore.Metadata) password.Caller {
	return password.Caller{Site: site(m.Address), Network: Network(m.Address), Account: e.Key()}
}

// replaceHash stores the same password under a new hash, unless that was done meanwhile.
func (s *Service) replaceHash(ctx context.Context, shown proven, verified password.Hash, c Credentials) error {
	hash, err := s.pool.Hash(ctx, shown.by, c.Password)
	if err != nil {
		return err
	}
	_, err = s.changeProven(ctx, shown, c.Metadata, func(u User) (change, error) {
		present, err := s.readCredential(ctx, u.ID)
		if err != nil || present.hash != verified {
			return change{}, err
		}
		events, err := rehash(u)
		present.hash = hash
		return change{events: events, state: []eventstore.StateChange{storeCredential(u.ID, present)}}, err
	})
	return err
}
