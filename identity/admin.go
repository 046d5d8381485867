package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity/password"
)

// NewUser is the wish of an administrator that somebody be a user.
type NewUser struct {
	Email         string
	Password      password.Password // empty for a user who can't log in before a reset of the password
	Name          string            // may be empty
	Roles         []string
	EmailVerified bool
	Attributes    json.RawMessage // see ParseAttributes; nil for none

	// CommandID makes the command repeatable: see CommandID. The nil UUID stands for none.
	CommandID uuid.UUID
	Metadata  eventstore.Metadata
}

// CreateUser makes a user. Repeated with the same command id it answers as it did the first time.
//
// It fails as Register does, whether or not the service is enumeration-safe: administrators are told of a taken address.
// It fails with ErrInvalidAttributes or CodeInvalidRequest for attributes or roles that can't be.
func (s *Service) CreateUser(ctx context.Context, n NewUser) (*User, eventstore.Result, error) {
	email, err := ParseEmail(n.Email)
	if err != nil {
		return nil, eventstore.Result{}, err
	}
	payloads, err := create(User{}, email, n)
	if err != nil {
		return nil, eventstore.Result{}, err
	}
	var hash password.Hash
	if n.Password != "" {
		if hash, err = s.hash(ctx, hashingFor(email, n.Metadata), n.Password, password.Subject{Email: email.String(), Name: n.Name}); err != nil {
			return nil, eventstore.Result{}, err
		}
	}
	a, err := s.firstAppend(email, payloads, credential{hash: hash, changed: s.now().UTC()})
	if err != nil {
		return nil, eventstore.Result{}, err
	}
	a.CommandID, a.Metadata = n.CommandID, n.Metadata
	result, err := s.append(ctx, a)
	switch {
	case errors.Is(err, eventstore.ErrReserved):
		return nil, eventstore.Result{}, emailTaken()
	case err != nil:
		return nil, eventstore.Result{}, err
	case result.Repeated:
		u, err := s.madeBefore(ctx, hashingFor(email, n.Metadata), result, payloads, n.Password)
		return u, result, err
	}
	u, err := s.UserAt(ctx, a.Stream.ID, result.Position)
	if err != nil {
		return nil, eventstore.Result{}, fmt.Errorf("read the new user: %w", err)
	}
	return u, result, nil
}

// create decides on a user whom an administrator makes.
func create(u User, email Email, n NewUser) ([]Payload, error) {
	name, err := ParseName(n.Name)
	if err != nil {
		return nil, err
	}
	roles := slices.Compact(slices.Sorted(slices.Values(n.Roles)))
	events, err := register(u, email, name, roles...)
	if err != nil {
		return nil, err
	}
	if n.EmailVerified {
		events = append(events, verifyEmail(User{Email: email.String()})...)
	}
	if n.Attributes != nil {
		attributes, err := ParseAttributes(n.Attributes)
		if err != nil {
			return nil, err
		}
		if string(attributes) != string(noAttributes) {
			var p ProfileUpdated
			p.Personal.Attributes = attributes
			events = append(events, p)
		}
	}
	return events, nil
}

// UserChange is what of a user is to change. Fields that are nil stay as they are.
type UserChange struct {
	ProfileChange
	Email         *string // another address, which counts as verified
	EmailVerified *bool   // that the address counts as verified; once it does it stays so
}

// ChangeUser changes what an administrator may change of a user, in one append. What changes nothing is no event. It fails
// with ErrNotFound, ErrInvalidEmail, ErrEmailTaken, ErrInvalidName, ErrInvalidAttributes or CodeInvalidRequest, or as
// eventstore.Log.Append does.
func (s *Service) ChangeUser(ctx context.Context, id uuid.UUID, c UserChange, m eventstore.Metadata) (eventstore.Result, error) {
	result, err := s.change(ctx, id, m, func(u User) (change, error) { return changeUser(u, c) })
	if errors.Is(err, eventstore.ErrReserved) {
		err = emailTaken()
	}
	return result, err
}

func changeUser(u User, c UserChange) (change, error) {
	profile, err := updateProfile(u, c.ProfileChange)
	if err != nil {
		return change{}, err
	}
	done := change{events: profile}
	verified := u.EmailVerified
	if c.Email != nil && *c.Email != u.Email {
		email, err := ParseEmail(*c.Email)
		if err != nil {
			return change{}, err
		}
		given, err := giveEmail(u, email)
		if err != nil {
			return change{}, err
		}
		given.events = append(profile, given.events...)
		done, verified = given, true
	}
	switch {
	case c.EmailVerified == nil || *c.EmailVerified == verified:
	case verified:
		return change{}, refuse(CodeInvalidRequest, "an address that is verified stays so; one that an administrator sets is")
	default:
		done.events = append(done.events, verifyEmail(u)...)
	}
	return done, nil
}

// The commands that follow are done already, and no event, where the user is as they ask. They fail with ErrNotFound, or as
// eventstore.Log.Append does; those that can take an administrator away fail with ErrLastAdmin for the last one.

// LockUser keeps a user from logging in, and ends every session of the user.
func (s *Service) LockUser(ctx context.Context, id uuid.UUID, m eventstore.Metadata) (eventstore.Result, error) {
	return s.closeUser(ctx, id, m, EndedLocked, func(u User) (change, error) {
		return when(!u.locked, Locked{})
	})
}

// UnlockUser ends what LockUser began, and has what was failed at on the account forgotten. A user who is not locked and is kept
// out by the failures of others is unlocked as well.
func (s *Service) UnlockUser(ctx context.Context, id uuid.UUID, m eventstore.Metadata) (eventstore.Result, error) {
	return s.admit(ctx, id, m, func(u User, kept bool) (change, error) { return when(u.locked || kept, Unlocked{}) })
}

// admit lets a user in again, in one append with the failures on the account being forgotten. decide is told whether there are
// any.
func (s *Service) admit(ctx context.Context, id uuid.UUID, m eventstore.Metadata, decide func(u User, kept bool) (change, error)) (eventstore.Result, error) {
	return s.change(ctx, id, m, func(u User) (change, error) {
		email, err := ParseEmail(u.Email)
		if err != nil {
			return change{}, err
		}
		list, err := s.Throttled(ctx, id)
		if err != nil {
			return change{}, err
		}
		done, err := decide(u, slices.ContainsFunc(list, func(t Throttling) bool { return t.Counted == scopeLogin }))
		if len(done.events) > 0 {
			done.state = append(done.state, s.throttle.pardon(email))
		}
		return done, err
	})
}

// DisableUser closes a user's account, and ends every session of the user.
func (s *Service) DisableUser(ctx context.Context, id uuid.UUID, m eventstore.Metadata) (eventstore.Result, error) {
	return s.closeUser(ctx, id, m, EndedDisabled, func(u User) (change, error) {
		return when(!u.disabled, Disabled{})
	})
}

// EnableUser ends what DisableUser began. A user who is locked stays locked.
func (s *Service) EnableUser(ctx context.Context, id uuid.UUID, m eventstore.Metadata) (eventstore.Result, error) {
	return s.admit(ctx, id, m, func(u User, _ bool) (change, error) { return when(u.disabled, Enabled{}) })
}

// closeUser does what ends a user's sessions, and tells of each of them. The position is that of the last event.
func (s *Service) closeUser(ctx context.Context, id uuid.UUID, m eventstore.Metadata, reason string, decide func(User) (change, error)) (eventstore.Result, error) {
	result, err := s.change(ctx, id, m, decide)
	if err != nil {
		return result, err
	}
	if err := s.forgetDevices(ctx, id); err != nil {
		return result, err
	}
	result.Position = max(result.Position, s.endEverySession(ctx, id, uuid.Nil, reason, m))
	return result, nil
}

func when(needed bool, p Payload) (change, error) {
	if !needed {
		return change{}, nil
	}
	return change{events: []Payload{p}}, nil
}

// RevokeSessions ends every session of a user. The position is that of the last event.
func (s *Service) RevokeSessions(ctx context.Context, id uuid.UUID, m eventstore.Metadata) (eventstore.Result, error) {
	u, err := s.ReadUser(ctx, id)
	if err != nil {
		return eventstore.Result{}, err
	}
	if err := s.forgetDevices(ctx, id); err != nil {
		return eventstore.Result{}, err
	}
	last, err := s.EndSessions(ctx, id, uuid.Nil, EndedRevoked, m)
	return eventstore.Result{Position: max(last, u.Position), Version: u.Version}, err
}

// SendPasswordReset has a code mailed to a user to set another password with. The command id makes it repeatable; the nil
// UUID stands for none. It fails with ErrUserLocked, ErrUserDisabled or ErrThrottled where a code would be of no use or one
// was mailed a short while ago.
func (s *Service) SendPasswordReset(ctx context.Context, id, command uuid.UUID, m eventstore.Metadata) (eventstore.Result, error) {
	return s.askFor(ctx, id, command, m, requestPasswordReset)
}

// GrantRole gives a user a role, which is in the user's access tokens from the next one on. It fails with
// CodeInvalidRequest for what can't be a role, and where the user has too many.
func (s *Service) GrantRole(ctx context.Context, id uuid.UUID, role string, m eventstore.Metadata) (eventstore.Result, error) {
	return s.change(ctx, id, m, func(u User) (change, error) {
		if u.HasRole(role) {
			return change{}, nil
		}
		if err := checkRoles(append(slices.Clone(u.Roles), role)); err != nil {
			return change{}, err
		}
		return change{events: []Payload{RoleGranted{Role: role}}}, nil
	})
}

// RevokeRole takes a role from a user. Access tokens that were issued with it keep it until they expire, but usher itself
// asks the user's own state.
func (s *Service) RevokeRole(ctx context.Context, id uuid.UUID, role string, m eventstore.Metadata) (eventstore.Result, error) {
	return s.change(ctx, id, m, func(u User) (change, error) {
		return when(u.HasRole(role), RoleRevoked{Role: role})
	})
}

var roleForm = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,62}$`)

// maxRoles bounds the roles of a user: all of them are in every access token.
const maxRoles = 50

func checkRoles(roles []string) error {
	for _, role := range roles {
		if !roleForm.MatchString(role) {
			return refuse(CodeInvalidRequest, "a role is a lower-case word of at most 63 letters, digits, - and _")
		}
	}
	if len(roles) > maxRoles {
		return refuse(CodeInvalidRequest, "a user has at most %d roles", maxRoles)
	}
	return nil
}

// administers says whether the user can act as an administrator.
func (u *User) administers() bool { return u.Status == StatusActive && u.HasRole(RoleAdmin) }

// adminChange is what a user's next events change of the state table of those who can act as administrators. The table lets
// nobody take the last of them away, in any process: see schema/postgres/00005_admin.sql.
func (s *Service) adminChange(id uuid.UUID, before User, payloads []Payload) []eventstore.StateChange {
	after := before
	for _, p := range payloads {
		after = after.after(p, s.now())
	}
	if before.administers() == after.administers() {
		return nil
	}
	change := stateRow
	if before.administers() {
		change = dropRow
	}
	return []eventstore.StateChange{change("admins", map[string]any{"user_id": id})}
}
