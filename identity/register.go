package identity

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"usher/eventstore"
	"usher/identity/password"
)

// Registration is the wish of somebody to become a user.
type Registration struct {
	Email    string
	Password password.Password
	Name     string // may be empty

	// CommandID makes the registration repeatable: see CommandID. The nil UUID stands for none.
	CommandID uuid.UUID
	Metadata  eventstore.Metadata
}

// RegisterResult is the answer to a registration.
type RegisterResult struct {
	// User is who registered. Where the service is enumeration-safe it is nil: the answer is the same for a taken
	// address, and so has nothing in it that only a new user has.
	User     *User
	Email    Email
	Name     string
	Position int64 // of the last event; 0 where the service is enumeration-safe
}

// Register makes a user. The password is hashed before anything is decided, so a taken address takes as long as a free
// one.
//
// It fails with ErrInvalidEmail, ErrInvalidName, ErrPasswordRefused, ErrEmailTaken (unless the service is
// enumeration-safe), ErrKeyReused for a command id of another registration, password.ErrOverloaded or
// password.ErrStopped, or as eventstore.Log.Append does. After eventstore.ErrOutcomeUnknown, repeating it with the same
// command id tells.
func (s *Service) Register(ctx context.Context, r Registration) (RegisterResult, error) {
	email, err := ParseEmail(r.Email)
	if err != nil {
		return RegisterResult{}, err
	}
	name, err := ParseName(r.Name)
	if err != nil {
		return RegisterResult{}, err
	}
	a, err := s.newUser(ctx, email, name, r.Password)
	if err != nil {
		return RegisterResult{}, err
	}
	a.CommandID, a.Metadata = r.CommandID, r.Metadata
	result, err := s.append(ctx, a)
	if s.safe {
		if err != nil && !errors.Is(err, eventstore.ErrReserved) {
			return RegisterResult{}, err
		}
		// A repeated command id with another content is not told either: it would tell that the first registered.
		return RegisterResult{Email: email, Name: name}, nil
	}
	switch {
	case errors.Is(err, eventstore.ErrReserved):
		return RegisterResult{}, emailTaken()
	case err != nil:
		return RegisterResult{}, err
	case result.Repeated:
		return s.registeredBefore(ctx, result, r, email, name)
	}
	u, err := s.User(ctx, a.Stream.ID)
	if err != nil {
		return RegisterResult{}, fmt.Errorf("read the new user: %w", err)
	}
	return RegisterResult{User: u, Email: email, Name: name, Position: result.Position}, nil
}

// newUser is the append that makes a user. It lacks command id and metadata.
func (s *Service) newUser(ctx context.Context, email Email, name string, secret password.Password, roles ...string) (eventstore.Append, error) {
	hash, err := s.hash(ctx, secret, password.Subject{Email: email.String(), Name: name})
	if err != nil {
		return eventstore.Append{}, err
	}
	payloads, err := register(User{}, email, name, roles...)
	if err != nil {
		return eventstore.Append{}, err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return eventstore.Append{}, err
	}
	stored := storeCredential(id, credential{hash: hash, changed: s.now().UTC()})
	stored.New = true
	return eventstore.Append{
		Stream:    eventstore.UserStream(id),
		Expected:  eventstore.NoStream,
		Events:    newEvents(payloads),
		Reserve:   []eventstore.Reservation{reserveEmail(email)},
		State:     []eventstore.StateChange{stored},
		CreateKey: true,
	}, nil
}

// hash hashes a password that the policy accepts.
func (s *Service) hash(ctx context.Context, secret password.Password, about password.Subject) (password.Hash, error) {
	if err := s.policy.Check(secret, about); err != nil {
		return "", passwordRefused(err)
	}
	hash, err := s.pool.Hash(ctx, secret)
	if err != nil {
		return "", passwordRefused(err)
	}
	return hash, nil
}

// passwordRefused gives a refused password its code; other errors stay as they are.
func passwordRefused(err error) error {
	var refused *password.RefusedError
	if errors.As(err, &refused) {
		return &Error{Code: CodePasswordRefused, Detail: "the password can't be used: " + refused.Advice()}
	}
	return err
}

// registeredBefore answers a registration whose command id is known as the first time, if it is the same registration.
func (s *Service) registeredBefore(ctx context.Context, first eventstore.Result, r Registration, email Email, name string) (RegisterResult, error) {
	other := refuse(CodeKeyReused, "the idempotency key was used for another request")
	events, err := s.log.ReadAll(ctx, first.Position-1, 1)
	if err != nil {
		return RegisterResult{}, fmt.Errorf("read the first answer: %w", err)
	}
	if len(events) == 0 || events[0].Type != TypeUserRegistered || events[0].Forgotten {
		return RegisterResult{}, other
	}
	p, err := Decode[Registered](events[0])
	if err != nil {
		return RegisterResult{}, err
	}
	if p.Personal.Email != email.String() || p.Personal.Name != name {
		return RegisterResult{}, other
	}
	id := events[0].Stream.ID
	// The password too has to be that of the first request, or whoever guesses the key would be told about the user.
	var hash string
	err = s.db.QueryRow(ctx, `SELECT hash FROM credentials WHERE user_id = $1`, id).Scan(&hash)
	if errors.Is(err, eventstore.ErrNoRows) {
		return RegisterResult{}, other
	}
	if err != nil {
		return RegisterResult{}, fmt.Errorf("read the credential: %w", err)
	}
	same, _, err := s.pool.Verify(ctx, password.Hash(hash), r.Password)
	if err != nil {
		return RegisterResult{}, err
	}
	if !same {
		return RegisterResult{}, other
	}
	u, err := s.User(ctx, id)
	if err != nil {
		return RegisterResult{}, err
	}
	return RegisterResult{User: u, Email: email, Name: name, Position: first.Position}, nil
}

// stateRow is a row of a state table, with a value for each of its columns.
func stateRow(table string, row map[string]any) eventstore.StateChange {
	return eventstore.StateChange{Table: table, Row: marshal(row)}
}
