package identity

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"usher/eventstore"
)

// The types of the events that exist. The name, the payload of a version and its JSON Schema in schema/events never
// change once released.
const (
	TypeUserRegistered      = "user.registered"
	TypeUserImported        = "user.imported"
	TypeUserEmailVerified   = "user.email_verified"
	TypeUserEmailChanged    = "user.email_changed"
	TypeUserProfileUpdated  = "user.profile_updated"
	TypeUserPasswordChanged = "user.password_changed"
	TypeUserRoleGranted     = "user.role_granted"
	TypeUserRoleRevoked     = "user.role_revoked"
	TypeUserLocked          = "user.locked"
	TypeUserUnlocked        = "user.unlocked"
	TypeUserDisabled        = "user.disabled"
	TypeUserEnabled         = "user.enabled"
	TypeUserErased          = "user.erased"
	TypeSessionStarted      = "session.started"
	TypeSessionEnded        = "session.ended"
	TypeKeyRotated          = "key.rotated"
)

// RoleAdmin is the role that may administer users.
const RoleAdmin = "admin"

// Why a password hash was replaced.
const (
	ReasonChange = "change" // by the user, who knew the current one
	ReasonReset  = "reset"  // by the user, with a code that was mailed
	ReasonRehash = "rehash" // the same password, hashed at the cost and in the scheme in force
	ReasonAdmin  = "admin"  // by an administrator
)

// Why a session ended.
const (
	EndedLogout          = "logout"
	EndedExpired         = "expired"
	EndedRevoked         = "revoked"
	EndedReuse           = "reuse"
	EndedPasswordChanged = "password_changed"
	EndedLocked          = "locked"
	EndedDisabled        = "disabled"
	EndedErased          = "erased"
)

// MethodPassword names the password among the methods of a login.
const MethodPassword = "password"

// Payload is the content of an event at its current schema version. The fields of a payload's Personal are stored
// sealed with the user's own key; the others are not personal.
type Payload interface {
	// EventType is the type of the events that carry the payload.
	EventType() string
}

// Registered begins a user's stream. The user is enabled, unlocked and without roles, and the address is not verified.
type Registered struct {
	Personal struct {
		Email string `json:"email"` // as it was typed
		Name  string `json:"name,omitempty"`
	} `json:"-"`
}

// Imported begins the stream of a user who was one elsewhere before. The user is enabled and unlocked.
type Imported struct {
	EmailVerified bool      `json:"email_verified"`
	Roles         []string  `json:"roles,omitempty"`
	CreatedAt     time.Time `json:"created_at,omitzero"` // elsewhere; zero where that is not known

	Personal struct {
		Email string `json:"email"` // as it was typed
		Name  string `json:"name,omitempty"`
	} `json:"-"`
}

// EmailVerified says that the user reads mail at an address.
type EmailVerified struct {
	Personal struct {
		Email string `json:"email"`
	} `json:"-"`
}

// EmailChanged gives the user another address, which the user has shown to read mail at.
type EmailChanged struct {
	Personal struct {
		Email string `json:"email"` // as it was typed
	} `json:"-"`
}

// ProfileUpdated changes what the user tells of themselves. A field that is nil did not change.
type ProfileUpdated struct {
	Personal struct {
		Name *string `json:"name,omitempty"` // may be empty: the user took the name away
	} `json:"-"`
}

// PasswordChanged says that the stored hash was replaced, and why.
type PasswordChanged struct {
	Reason string `json:"reason"` // ReasonChange, ReasonReset, ReasonRehash or ReasonAdmin
}

// RoleGranted gives the user a role that the user did not have.
type RoleGranted struct {
	Role string `json:"role"`
}

// RoleRevoked takes a role from the user.
type RoleRevoked struct {
	Role string `json:"role"`
}

// Locked keeps the user from logging in until Unlocked: the account is under suspicion.
type Locked struct{}

// Unlocked ends Locked.
type Unlocked struct{}

// Disabled closes the account until Enabled: it is not to be used.
type Disabled struct{}

// Enabled ends Disabled.
type Enabled struct{}

// Erased ends a user's stream: nothing follows it, and the key to the user's personal fields is destroyed.
type Erased struct{}

// SessionStarted begins a session's stream: one login on one device. The client's address and user agent are in the
// event's metadata.
type SessionStarted struct {
	Methods   []string  `json:"methods"`    // that proved who it is, for example MethodPassword
	ExpiresAt time.Time `json:"expires_at"` // when the session ends at the latest
}

// SessionEnded ends a session, and why.
type SessionEnded struct {
	Reason string `json:"reason"` // EndedLogout, EndedExpired, …
}

// KeyRotated says which key signs access tokens from now on.
type KeyRotated struct {
	KeyID     string `json:"kid"`
	Algorithm string `json:"algorithm"`
}

// EventType implements Payload.
func (Registered) EventType() string      { return TypeUserRegistered }
func (Imported) EventType() string        { return TypeUserImported }
func (EmailVerified) EventType() string   { return TypeUserEmailVerified }
func (EmailChanged) EventType() string    { return TypeUserEmailChanged }
func (ProfileUpdated) EventType() string  { return TypeUserProfileUpdated }
func (PasswordChanged) EventType() string { return TypeUserPasswordChanged }
func (RoleGranted) EventType() string     { return TypeUserRoleGranted }
func (RoleRevoked) EventType() string     { return TypeUserRoleRevoked }
func (Locked) EventType() string          { return TypeUserLocked }
func (Unlocked) EventType() string        { return TypeUserUnlocked }
func (Disabled) EventType() string        { return TypeUserDisabled }
func (Enabled) EventType() string         { return TypeUserEnabled }
func (Erased) EventType() string          { return TypeUserErased }
func (SessionStarted) EventType() string  { return TypeSessionStarted }
func (SessionEnded) EventType() string    { return TypeSessionEnded }
func (KeyRotated) EventType() string      { return TypeKeyRotated }

// Payloads with personal fields say where they are, to be read and to be filled.
func (p Registered) personal() any            { return p.Personal }
func (p Imported) personal() any              { return p.Personal }
func (p EmailVerified) personal() any         { return p.Personal }
func (p EmailChanged) personal() any          { return p.Personal }
func (p ProfileUpdated) personal() any        { return p.Personal }
func (p *Registered) personalFields() any     { return &p.Personal }
func (p *Imported) personalFields() any       { return &p.Personal }
func (p *EmailVerified) personalFields() any  { return &p.Personal }
func (p *EmailChanged) personalFields() any   { return &p.Personal }
func (p *ProfileUpdated) personalFields() any { return &p.Personal }

// ErrUnknownEvent: an event's type, or its schema version, is not one that this usher knows.
var ErrUnknownEvent = errors.New("unknown event")

// schemaVersion is that of every payload above; older ones are upcast as they are read.
const schemaVersion = 1

// decoders holds, by event type, the function that reads its payload.
var decoders = map[string]func(eventstore.Event) (Payload, error){
	TypeUserRegistered:      decodePayload[Registered],
	TypeUserImported:        decodePayload[Imported],
	TypeUserEmailVerified:   decodePayload[EmailVerified],
	TypeUserEmailChanged:    decodePayload[EmailChanged],
	TypeUserProfileUpdated:  decodePayload[ProfileUpdated],
	TypeUserPasswordChanged: decodePayload[PasswordChanged],
	TypeUserRoleGranted:     decodePayload[RoleGranted],
	TypeUserRoleRevoked:     decodePayload[RoleRevoked],
	TypeUserLocked:          decodePayload[Locked],
	TypeUserUnlocked:        decodePayload[Unlocked],
	TypeUserDisabled:        decodePayload[Disabled],
	TypeUserEnabled:         decodePayload[Enabled],
	TypeUserErased:          decodePayload[Erased],
	TypeSessionStarted:      decodePayload[SessionStarted],
	TypeSessionEnded:        decodePayload[SessionEnded],
	TypeKeyRotated:          decodePayload[KeyRotated],
}

// Encode makes the stored form of a payload: its open fields and its personal ones, which are nil where it has none.
func Encode(payload Payload) (data, personal json.RawMessage) {
	data = marshal(payload)
	if p, ok := payload.(interface{ personal() any }); ok {
		personal = marshal(p.personal())
	}
	return data, personal
}

func marshal(v any) json.RawMessage {
	raw, err := json.Marshal(v)
	if err != nil { // payloads hold nothing that JSON can't express
		panic(err)
	}
	return raw
}

// NewEvent makes an event to be appended.
func NewEvent(payload Payload) eventstore.NewEvent {
	data, personal := Encode(payload)
	return eventstore.NewEvent{Type: payload.EventType(), SchemaVersion: schemaVersion, Data: data, Personal: personal}
}

// Decode reads the payload of an event of a known type. Personal fields are found where they are: in the event's
// Personal, as the log answers, or in its Data, as a published message has them. Where they were left out or are
// forgotten, Personal is zero. A payload of another event type than the event's fails with ErrUnknownEvent.
func Decode[T Payload](e eventstore.Event) (T, error) {
	var payload T
	if payload.EventType() != e.Type || e.SchemaVersion > schemaVersion {
		return payload, fmt.Errorf("decode %s, schema version %d, as %s: %w", e.Type, e.SchemaVersion, payload.EventType(), ErrUnknownEvent)
	}
	if len(e.Data) > 2 {
		if err := json.Unmarshal(e.Data, &payload); err != nil {
			return payload, fmt.Errorf("decode %s at %d: %w", e.Type, e.Position, err)
		}
	}
	p, ok := any(&payload).(interface{ personalFields() any })
	if !ok {
		return payload, nil
	}
	source := e.Personal
	if len(source) == 0 {
		source = e.Data
	}
	if len(source) > 2 {
		if err := json.Unmarshal(source, p.personalFields()); err != nil {
			return payload, fmt.Errorf("decode personal fields of %s at %d: %w", e.Type, e.Position, err)
		}
	}
	return payload, nil
}

// DecodeAny reads the payload of an event as the struct of its type, for example a Registered. It fails with
// ErrUnknownEvent for a type or schema version that this usher does not know.
func DecodeAny(e eventstore.Event) (Payload, error) {
	decode, ok := decoders[e.Type]
	if !ok {
		return nil, fmt.Errorf("decode %s at %d: %w", e.Type, e.Position, ErrUnknownEvent)
	}
	return decode(e)
}

func decodePayload[T Payload](e eventstore.Event) (Payload, error) { return Decode[T](e) }
