package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity/password"
)

// credential is what proves who a user is, as it is stored.
type credential struct {
	hash    password.Hash   // "" for a user without a password
	history []password.Hash // those before it, the newest first
	changed time.Time       // when the password changed, not when it was hashed anew
}

// readCredential reads a user's credential, the zero one where the user has none.
func (s *Service) readCredential(ctx context.Context, user uuid.UUID) (c credential, err error) {
	var hash string
	var history json.RawMessage
	err = s.db.QueryRow(ctx, `SELECT hash, history, changed_at FROM credentials WHERE user_id = $1`, user).Scan(&hash, &history, &c.changed)
	if errors.Is(err, eventstore.ErrNoRows) {
		return credential{}, nil
	}
	if err != nil {
		return credential{}, fmt.Errorf("read the credential: %w", err)
	}
	var earlier []string
	if len(history) > 0 {
		if err := json.Unmarshal(history, &earlier); err != nil {
			return credential{}, fmt.Errorf("read the history of the credential: %w", err)
		}
	}
	for _, h := range earlier {
		c.history = append(c.history, password.Hash(h))
	}
	c.hash = password.Hash(hash)
	return c, nil
}

// PasswordHashes are the stored hashes of users, of those that have one: for an export that is to bring them elsewhere.
func (s *Service) PasswordHashes(ctx context.Context, users []uuid.UUID) (map[uuid.UUID]password.Hash, error) {
	hashes := make(map[uuid.UUID]password.Hash, len(users))
	if len(users) == 0 {
		return hashes, nil
	}
	in, args := inList(users)
	rows, err := s.db.Query(ctx, "SELECT user_id, hash FROM credentials WHERE user_id IN "+in, args...)
	if err != nil {
		return nil, fmt.Errorf("read credentials: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var id uuid.UUID
		var hash string
		if err := rows.Scan(&id, &hash); err != nil {
			return nil, fmt.Errorf("read credentials: %w", err)
		}
		hashes[id] = password.Hash(hash)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read credentials: %w", err)
	}
	return hashes, nil
}

// storeCredential is the state change that stores a user's credential.
func storeCredential(user uuid.UUID, c credential) eventstore.StateChange {
	earlier := make([]string, len(c.history))
	for i, h := range c.history {
		earlier[i] = string(h)
	}
	return stateRow("credentials", struct {
		User    uuid.UUID `json:"user_id"`
		Hash    string    `json:"hash"`
		History []string  `json:"history,omitempty"`
		Changed time.Time `json:"changed_at"`
	}{user, string(c.hash), earlier, c.changed})
}

// nextCredential is what takes the place of a user's present one. It fails with ErrPasswordRefused for a password
// that the policy counts among the user's earlier ones.
func (s *Service) nextCredential(ctx context.Context, by password.Caller, present credential, secret password.Password, hash password.Hash) (credential, error) {
	c := credential{hash: hash, changed: s.now().UTC()}
	remembered := s.policy.History() // the present one is the first
	if remembered == 0 {
		return c, nil
	}
	if present.hash != "" {
		c.history = append([]password.Hash{present.hash}, present.history...)
	}
	c.history = c.history[:min(len(c.history), remembered)]
	reused, err := s.pool.Reused(ctx, by, c.history, secret)
	switch {
	case err != nil:
		return credential{}, err
	case reused:
		return credential{}, passwordRefused(&password.RefusedError{Reasons: []password.Reason{password.Reused}})
	}
	c.history = c.history[:min(len(c.history), remembered-1)]
	return c, nil
}

// ResetPassword sets another password with a code from a mail, ends every session of the user, and answers with the
// position of all that. Whoever has the code reads mail at the user's address, so the address is verified by it. Where that
// is shown for the first time, whoever set all that proved the user before may have been anybody: see firstProof.
//
// It fails with ErrInvalidCode or ErrAlreadyDone, and before that is hashed for; with ErrPasswordRefused, and then the code is still good;
// with ErrUserLocked or ErrUserDisabled, password.ErrOverloaded or password.ErrStopped, or as eventstore.Log.Append does.
func (s *Service) ResetPassword(ctx context.Context, c MailCode, secret password.Password, command uuid.UUID, m eventstore.Metadata) (PasswordSet, error) {
	if first, err := s.answered(ctx, command); err != nil || first.Repeated {
		return PasswordSet{Position: first.Position}, err
	}
	row, err := s.findCode(ctx, c)
	if err != nil {
		return PasswordSet{}, err
	}
	u, err := s.ReadUser(ctx, row.user)
	if errors.Is(err, ErrNotFound) {
		return PasswordSet{}, ErrInvalidCode
	}
	if err == nil {
		err = s.checkCode(*u, row, PurposeReset)
	}
	if err != nil {
		return PasswordSet{}, err
	}
	email, err := ParseEmail(u.Email)
	if err != nil {
		return PasswordSet{}, err
	}
	by := hashingFor(email, m)
	hash, err := s.hash(ctx, by, secret, password.Subject{Email: u.Email, Name: u.Name})
	if err != nil {
		return PasswordSet{}, err
	}
	var token DeviceToken
	result, err := s.useCode(ctx, c, command, m, func(u User, _ Purpose) (change, error) {
		var present credential
		if u.EmailVerified { // else the earlier ones are not this user's
			if present, err = s.readCredential(ctx, u.ID); err != nil {
				return change{}, err
			}
		}
		c, err := s.nextCredential(ctx, by, present, secret, hash)
		if err != nil {
			return change{}, err
		}
		done := firstProof(u)
		done.events = append(done.events, PasswordChanged{Reason: ReasonReset})
		var known []eventstore.StateChange
		if token, known, err = s.remember(ctx, u.ID, device{}, c.changed); err != nil {
			return change{}, err
		}
		done.state = append(append(done.state, known...), storeCredential(u.ID, c), dropCode(u.ID, PurposeEmail))
		return done, nil
	}, PurposeReset)
	if err != nil {
		return PasswordSet{}, err
	}
	if result.Repeated {
		return PasswordSet{Position: result.Position}, nil
	}
	m.Actor = ActorUser(u.ID)
	return PasswordSet{max(result.Position, s.endEverySession(ctx, u.ID, uuid.Nil, EndedPasswordChanged, m)), token}, nil
}

// PasswordSet is what came of another password.
type PasswordSet struct {
	Position int64 // of all that it brought about
	// Device is for the next login on the device that it was set on: those from before are not known any more. It is empty for a
	// wish that was done before.
	Device DeviceToken
}

// PasswordChange is the wish of a user who is logged in to have another password.
type PasswordChange struct {
	User, Session uuid.UUID // the session goes on, and no other
	Proof         Proof
	New           password.Password

	// CommandID makes the wish repeatable: see SecretCommandID. The nil UUID stands for none.
	CommandID uuid.UUID
	Metadata  eventstore.Metadata
}

// ChangePassword sets another password for a user who proves to be one, and ends every session of the user but the present
// one. It answers with the position of all that.
//
// It fails with ErrPasswordRefused, before anything has to be proven if the new password is no good by itself; as prove
// does; or as eventstore.Log.Append does.
func (s *Service) ChangePassword(ctx context.Context, w PasswordChange) (PasswordSet, error) {
	if first, err := s.answered(ctx, w.CommandID); err != nil || first.Repeated {
		return PasswordSet{Position: first.Position}, err
	}
	u, err := s.User(ctx, w.User)
	if err != nil {
		return PasswordSet{}, err
	}
	if err := s.policy.Check(w.New, password.Subject{Email: u.Email, Name: u.Name}); err != nil {
		return PasswordSet{}, passwordRefused(err)
	}
	shown, err := s.prove(ctx, w.User, w.Proof, w.Metadata)
	if err != nil {
		return PasswordSet{}, err
	}
	hash, err := s.pool.Hash(ctx, shown.by, w.New)
	if err != nil {
		return PasswordSet{}, err
	}
	var token DeviceToken
	result, err := s.changeProven(ctx, shown, w.Metadata, func(u User) (change, error) { // of many who prove the same one, one replaces it
		present, err := s.readCredential(ctx, u.ID)
		if err != nil {
			return change{}, err
		}
		c, err := s.nextCredential(ctx, shown.by, present, w.New, hash)
		if err != nil {
			return change{}, err
		}
		email, err := ParseEmail(u.Email)
		if err != nil {
			return change{}, err
		}
		var known []eventstore.StateChange
		if token, known, err = s.remember(ctx, u.ID, device{}, c.changed); err != nil {
			return change{}, err
		}
		return change{
			events: []Payload{PasswordChanged{Reason: ReasonChange, Session: w.Session}},
			state: append(known, storeCredential(u.ID, c), dropCode(u.ID, PurposeReset), dropCode(u.ID, PurposeEmail),
				s.throttle.pardon(email)),
			commandID: w.CommandID,
		}, nil
	})
	if err != nil {
		return PasswordSet{}, err
	}
	if result.Repeated {
		token = ""
	}
	return PasswordSet{max(result.Position, s.endEverySession(ctx, w.User, w.Session, EndedPasswordChanged, w.Metadata)), token}, nil
}

// SetPassword gives a user another password, for an administrator who knows nothing of the present one, and ends every session of
// the user. It may be one that the user had before. It fails with ErrNotFound, ErrPasswordRefused, password.ErrOverloaded or
// password.ErrStopped, or as eventstore.Log.Append does.
func (s *Service) SetPassword(ctx context.Context, id uuid.UUID, secret password.Password, m eventstore.Metadata) (eventstore.Result, error) {
	u, err := s.ReadUser(ctx, id)
	if err != nil {
		return eventstore.Result{}, err
	}
	email, err := ParseEmail(u.Email)
	if err != nil {
		return eventstore.Result{}, err
	}
	hash, err := s.hash(ctx, hashingFor(email, m), secret, password.Subject{Email: u.Email, Name: u.Name})
	if err != nil {
		return eventstore.Result{}, err
	}
	return s.closeUser(ctx, id, m, EndedPasswordChanged, func(u User) (change, error) {
		present, err := s.readCredential(ctx, u.ID)
		if err != nil {
			return change{}, err
		}
		return change{
			events: []Payload{PasswordChanged{Reason: ReasonAdmin}},
			state: []eventstore.StateChange{storeCredential(u.ID, s.replacing(present, hash, s.now().UTC())),
				dropCode(u.ID, PurposeReset), dropCode(u.ID, PurposeEmail), s.throttle.pardon(email)},
		}, nil
	})
}

// replacing is a credential of a hash that nobody has a password at hand for, in the place of the present one: it takes that
// into the history unseen.
func (s *Service) replacing(present credential, hash password.Hash, at time.Time) credential {
	c := credential{hash: hash, changed: at}
	if earlier := s.policy.History() - 1; earlier > 0 && present.hash != "" { // the new one is the first of those remembered
		c.history = append([]password.Hash{present.hash}, present.history...)
		c.history = c.history[:min(len(c.history), earlier)]
	}
	return c
}
