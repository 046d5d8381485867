package identity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity/password"
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
// one. Where the service is enumeration-safe, who has a taken address is mailed.
//
// It fails with ErrInvalidEmail, ErrInvalidName, ErrPasswordRefused, ErrEmailTaken (unless the service is
// enumeration-safe), ErrKeyReused for a command id of another registration (ErrThrottled for too many of those),
// password.ErrOverloaded or password.ErrStopped, or as eventstore.Log.Append does. After eventstore.ErrOutcomeUnknown,
// repeating it with the same command id tells.
func (s *Service) Register(ctx context.Context, r Registration) (RegisterResult, error) {
	email, err := ParseEmail(r.Email)
	if err != nil {
		return RegisterResult{}, err
	}
	name, err := ParseName(r.Name)
	if err != nil {
		return RegisterResult{}, err
	}
	a, payloads, err := s.newUser(ctx, email, name, r.Password, r.Metadata)
	if err != nil {
		return RegisterResult{}, err
	}
	a.CommandID = s.registrationID(r.CommandID, email)
	if !s.safe { // where it may be told that the address was free
		a.State = append(a.State, s.throttle.pardon(email)) // of what was tried while nobody had it
	}
	result, err := s.append(ctx, a)
	if s.safe {
		taken := errors.Is(err, eventstore.ErrReserved)
		if err != nil && !taken {
			return RegisterResult{}, err
		}
		if taken {
			s.handOver(ctx, failure{reason: reasonTaken, email: email, metadata: r.Metadata})
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
		u, err := s.registeredBefore(ctx, email, result, payloads, r)
		return RegisterResult{User: u, Email: email, Name: name, Position: result.Position}, err
	}
	u, err := s.User(ctx, a.Stream.ID)
	if err != nil {
		return RegisterResult{}, fmt.Errorf("read the new user: %w", err)
	}
	return RegisterResult{User: u, Email: email, Name: name, Position: result.Position}, nil
}

// registrationID is the command id of the registration of an address. Where the service is enumeration-safe each address has ids
// of its own: else whoever registers an address of their own under the same one as another address would be told by the mail that
// comes, or does not come, whether the other was free.
func (s *Service) registrationID(command uuid.UUID, e Email) uuid.UUID {
	if !s.safe || command == uuid.Nil {
		return command
	}
	return s.SecretCommandID("registration", command.String(), e.Key())
}

// newUser is the append that makes a user with a password. It lacks a command id.
func (s *Service) newUser(ctx context.Context, email Email, name string, secret password.Password, m eventstore.Metadata, roles ...string) (eventstore.Append, []Payload, error) {
	hash, err := s.hash(ctx, hashingFor(email, m), secret, password.Subject{Email: email.String(), Name: name})
	if err != nil {
		return eventstore.Append{}, nil, err
	}
	payloads, err := register(User{}, email, name, roles...)
	if err != nil {
		return eventstore.Append{}, nil, err
	}
	a, err := s.firstAppend(email, payloads, credential{hash: hash, changed: s.now().UTC()})
	a.Metadata = m
	return a, payloads, err
}

// hash hashes a password that the policy accepts.
func (s *Service) hash(ctx context.Context, by password.Caller, secret password.Password, about password.Subject) (password.Hash, error) {
	if err := s.policy.Check(secret, about); err != nil {
		return "", passwordRefused(err)
	}
	hash, err := s.pool.Hash(ctx, by, secret)
	if err != nil {
		return "", passwordRefused(err)
	}
	return hash, nil
}

// firstAppend is the append that begins a user's stream. It lacks command id and metadata. A credential without a hash is that
// of a user who has no password.
func (s *Service) firstAppend(email Email, payloads []Payload, c credential) (eventstore.Append, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return eventstore.Append{}, err
	}
	state := s.adminChange(id, User{}, payloads)
	if c.hash != "" {
		stored := storeCredential(id, c)
		stored.New = true
		state = append(state, stored)
	}
	return eventstore.Append{
		Stream:    eventstore.UserStream(id),
		Expected:  eventstore.NoStream,
		Events:    newEvents(payloads),
		Reserve:   []eventstore.Reservation{reserveEmail(email)},
		State:     state,
		CreateKey: true,
	}, nil
}

// passwordRefused gives a refused password its code; other errors stay as they are.
func passwordRefused(err error) error {
	var refused *password.RefusedError
	if errors.As(err, &refused) {
		return refusedPassword{&Error{Code: CodePasswordRefused, Detail: "the password can't be used: " + refused.Advice()}, refused}
	}
	return err
}

// refusedPassword is a refusal with the reasons for it, a *password.RefusedError, for those who tell them in other words.
type refusedPassword struct{ told, reasons error }

func (r refusedPassword) Error() string   { return r.told.Error() }
func (r refusedPassword) Unwrap() []error { return []error{r.told, r.reasons} }

// registeredBefore answers a registration whose command id is known, if it is the same one. It says whether a password is
// that of the user, and so it is throttled as a login is.
func (s *Service) registeredBefore(ctx context.Context, email Email, first eventstore.Result, payloads []Payload, r Registration) (*User, error) {
	a := s.throttle.begin(email, networkOf(r.Metadata))
	if err := a.enter(ctx); err != nil {
		return nil, err
	}
	defer a.leave()
	u, err := s.madeBefore(ctx, hashingFor(email, r.Metadata), first, payloads, r.Password)
	if errors.Is(err, ErrKeyReused) {
		err = s.failed(ctx, a, uuid.Nil, MethodPassword, r.Metadata, err)
	}
	return u, err
}

// madeBefore answers a command that made a user and whose command id is known with the user as the first time, if it is
// the same command.
func (s *Service) madeBefore(ctx context.Context, by password.Caller, first eventstore.Result, payloads []Payload, secret password.Password) (*User, error) {
	other := refuse(CodeKeyReused, "the idempotency key was used for another request")
	events, err := s.log.ReadAll(ctx, first.Position-int64(first.Version), first.Version)
	if err != nil {
		return nil, fmt.Errorf("read the first answer: %w", err)
	}
	if !slices.EqualFunc(events, payloads, says) {
		return nil, other
	}
	id := events[0].Stream.ID
	// The password too has to be that of the first request, or whoever guesses the key would be told about the user.
	present, err := s.readCredential(ctx, id)
	if err != nil {
		return nil, err
	}
	same := present.hash == "" && secret == ""
	if present.hash != "" && secret != "" {
		if same, _, err = s.pool.Verify(ctx, by, present.hash, secret); err != nil {
			return nil, err
		}
	}
	if !same {
		return nil, other
	}
	return s.UserAt(ctx, id, first.Position)
}

// says whether an event has a payload.
func says(e eventstore.Event, p Payload) bool {
	stored, err := DecodeAny(e)
	if err != nil {
		return false
	}
	data, personal := Encode(stored)
	wantData, wantPersonal := Encode(p)
	return e.Type == p.EventType() && bytes.Equal(data, wantData) && bytes.Equal(personal, wantPersonal)
}
