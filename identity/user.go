package identity

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
)

// Status says whether a user can log in.
type Status string

// The states of a user. A user who is both locked and disabled is disabled.
const (
	StatusActive   Status = "active"
	StatusLocked   Status = "locked"
	StatusDisabled Status = "disabled"
)

// User is a user's state: what the events of the user's stream amount to. A User that the service answers with is
// shared between its readers and must not be changed.
type User struct {
	ID            uuid.UUID `json:"id"`
	Email         string    `json:"email"` // as it was typed
	EmailVerified bool      `json:"email_verified"`
	Name          string    `json:"name"`
	Status        Status    `json:"status"`
	Roles         []string  `json:"roles"` // sorted
	// Attributes is a JSON object of what the application keeps about the user.
	Attributes  json.RawMessage `json:"attributes"`
	TOTPEnabled bool            `json:"totp_enabled"` // logins need a one-time password
	CreatedAt   time.Time       `json:"created_at"`
	UpdatedAt   time.Time       `json:"updated_at"`
	Version     int             `json:"version"`  // of the newest event; 0 for a user who does not exist
	Position    int64           `json:"position"` // of the same event

	newest           uuid.UUID // the id of the newest event
	locked, disabled bool
	erased           bool      // nothing of the user is left but that there was one
	wantedEmail      string    // that the user has asked for and not confirmed yet
	asks             []ask     // the mails that were asked for of late
	provenFrom       int       // version of the event that voided what was proven before
	sessionsFrom     time.Time // sessions that began before are over,
	keptSession      uuid.UUID // but for this one
	consents         []consent // to clients, the first given first, with those that were withdrawn
	document         []byte
}

// noAttributes is what a user begins with.
var noAttributes = json.RawMessage("{}")

// JSON is the user as a JSON object, encoded once for a state. It must not be changed.
func (u *User) JSON() []byte {
	if u.document != nil {
		return u.document
	}
	return u.encode()
}

func (u *User) encode() []byte {
	raw, err := json.Marshal(u)
	if err != nil { // a User holds nothing that JSON can't express
		panic(err)
	}
	return raw
}

// HasRole says whether the user has a role.
func (u *User) HasRole(role string) bool {
	_, has := slices.BinarySearch(u.Roles, role)
	return has
}

// Locale is the language that the user has chosen, in the attribute locale; "" for none.
func (u *User) Locale() string {
	var known struct {
		Locale any `json:"locale"`
	}
	if json.Unmarshal(u.Attributes, &known) != nil {
		return ""
	}
	locale, _ := known.Locale.(string)
	return locale
}

// exists says whether there is such a user: there is none before the first event, nor once erased.
func (u *User) exists() bool { return u.Version > 0 && !u.erased }

// evolve is the state after an event of the user's stream. It changes nothing of u. Personal fields that are forgotten are
// empty, and an address that is not known is not verified.
func evolve(u User, e eventstore.Event) (User, error) {
	payload, err := DecodeAny(e)
	if err != nil {
		return User{}, err
	}
	if e.Version != u.Version+1 {
		return User{}, fmt.Errorf("evolve %s: version %d after %d: %w", e.Stream, e.Version, u.Version, eventstore.ErrGap)
	}
	u.ID = e.Stream.Subject
	u = u.after(payload, e.RecordedAt)
	u.Version, u.Position, u.UpdatedAt, u.newest = e.Version, e.Position, e.RecordedAt, e.ID
	if voidsProofs(payload) {
		u.provenFrom = e.Version
	}
	return u, nil
}

// after is the state after what a payload says, which came about at a moment. Payloads that are not about the state, such
// as a KeyRotated, change nothing.
func (u User) after(payload Payload, at time.Time) User {
	switch p := payload.(type) {
	case Registered:
		u = User{ID: u.ID, Email: p.Personal.Email, Name: p.Personal.Name, Roles: []string{}, Attributes: noAttributes, CreatedAt: at}
	case Imported:
		u = User{ID: u.ID, Email: p.Personal.Email, EmailVerified: p.EmailVerified, Name: p.Personal.Name,
			Attributes: noAttributes, CreatedAt: at}
		if p.Personal.Attributes != nil {
			u.Attributes = p.Personal.Attributes
		}
		if !p.CreatedAt.IsZero() {
			u.CreatedAt = p.CreatedAt.UTC().Truncate(time.Microsecond) // which is what databases keep
		}
		u.Roles = append([]string{}, p.Roles...)
		slices.Sort(u.Roles)
		u.Roles = slices.Compact(u.Roles)
	case EmailVerified:
		u.EmailVerified = u.EmailVerified || p.Personal.Email == u.Email
	case RegisteredAgain:
		u.asked(purposeTold, at)
	case EmailVerificationRequested:
		u.asked(PurposeVerify, at)
	case PasswordResetRequested:
		u.asked(PurposeReset, at)
	case EmailChangeRequested:
		u.asked(PurposeEmail, at)
		u.wantedEmail = p.Personal.Email
	case EmailChanged:
		u.Email, u.EmailVerified, u.wantedEmail = p.Personal.Email, true, ""
	case ProfileUpdated:
		if p.Personal.Name != nil {
			u.Name = *p.Personal.Name
		}
		if p.Personal.Attributes != nil {
			u.Attributes = p.Personal.Attributes
		}
	case PasswordChanged:
		if p.Reason != ReasonRehash {
			u.distrust(at, p.Session)
		}
	case RoleGranted:
		if at, has := slices.BinarySearch(u.Roles, p.Role); !has {
			u.Roles = slices.Insert(slices.Clone(u.Roles), at, p.Role)
		}
	case RoleRevoked:
		if at, has := slices.BinarySearch(u.Roles, p.Role); has {
			u.Roles = slices.Delete(slices.Clone(u.Roles), at, at+1)
		}
	case Locked:
		u.locked = true
		u.distrust(at, uuid.Nil)
	case Unlocked:
		u.locked = false
	case Disabled:
		u.disabled = true
		u.distrust(at, uuid.Nil)
	case Enabled:
		u.disabled = false
	case TOTPEnabled:
		u.TOTPEnabled = true
	case TOTPDisabled:
		u.TOTPEnabled = false
	case ConsentGiven:
		u.consent(p, at)
	case ConsentWithdrawn:
		u.withdraw(p.Client, at)
	case Erased:
		u = User{ID: u.ID, erased: true}
	}
	u.EmailVerified = u.EmailVerified && u.Email != ""
	switch {
	case u.erased:
		u.Status = ""
	case u.disabled:
		u.Status = StatusDisabled
	case u.locked:
		u.Status = StatusLocked
	default:
		u.Status = StatusActive
	}
	u.document = nil
	return u
}

// distrust puts an end to what somebody else may have begun who knew the password: every session that began before a
// moment, but for one, and a change of the address.
func (u *User) distrust(before time.Time, except uuid.UUID) {
	u.sessionsFrom, u.keptSession, u.wantedEmail = before, except, ""
}

// hasSession says whether a session that began at a time can still go on, as far as the user's own stream tells.
func (u *User) hasSession(id uuid.UUID, started time.Time) bool {
	return u.Status == StatusActive && (!started.Before(u.sessionsFrom) || id == u.keptSession)
}

// What follows decides: from a user's state and a wish to the events that fulfil it, or an *Error. Nothing here reads
// or writes anything.

// register decides on a new user, with the roles that the user begins with.
func register(u User, email Email, name string, roles ...string) ([]Payload, error) {
	if u.Version > 0 {
		return nil, refuse(CodeEmailTaken, "the user exists already")
	}
	var p Registered
	p.Personal.Email, p.Personal.Name = email.String(), name
	if err := checkRoles(roles); err != nil {
		return nil, err
	}
	events := []Payload{p}
	for _, role := range roles {
		events = append(events, RoleGranted{Role: role})
	}
	return events, nil
}

// rehash decides on storing the same password under another hash.
func rehash(u User) ([]Payload, error) {
	if err := mayLogIn(u); err != nil {
		return nil, err
	}
	return []Payload{PasswordChanged{Reason: ReasonRehash}}, nil
}

// startSession decides on a login whose credentials were right.
func startSession(u User, methods []string, expires time.Time) ([]Payload, error) {
	if err := mayLogIn(u); err != nil {
		return nil, err
	}
	return []Payload{SessionStarted{Methods: methods, ExpiresAt: expires}}, nil
}

// wrongCredentials is the one answer to a login of nobody, with an unknown address or with a wrong password.
func wrongCredentials() error {
	return refuse(CodeInvalidCredentials, "the email or the password is wrong")
}

// mayUsePassword decides on a login with a right password that is of a certain time. 0 is no greatest age.
func mayUsePassword(u User, changed, now time.Time, maxAge time.Duration) error {
	if err := mayLogIn(u); err != nil {
		return err
	}
	if maxAge > 0 && now.Sub(changed) > maxAge {
		return refuse(CodePasswordExpired, "the password is too old; POST /v1/auth/password/forgot asks for a code to set another")
	}
	return nil
}

func mayLogIn(u User) error {
	switch {
	case !u.exists():
		return wrongCredentials()
	case u.disabled:
		return refuse(CodeUserDisabled, "the account is disabled")
	case u.locked:
		return refuse(CodeUserLocked, "the account is locked")
	}
	return nil
}

// newEvents makes the events to append of payloads.
func newEvents(payloads []Payload) []eventstore.NewEvent {
	events := make([]eventstore.NewEvent, len(payloads))
	for i, p := range payloads {
		events[i] = NewEvent(p)
	}
	return events
}
