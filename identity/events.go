package identity

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
)

// The types of the events that exist. The name, the payload of a version and its JSON Schema in schema/events never
// change once released.
const (
	TypeUserRegistered                 = "user.registered"
	TypeUserImported                   = "user.imported"
	TypeUserRegisteredAgain            = "user.registered_again"
	TypeUserEmailVerificationRequested = "user.email_verification_requested"
	TypeUserEmailVerified              = "user.email_verified"
	TypeUserEmailChangeRequested       = "user.email_change_requested"
	TypeUserEmailChanged               = "user.email_changed"
	TypeUserProfileUpdated             = "user.profile_updated"
	TypeUserPasswordResetRequested     = "user.password_reset_requested"
	TypeUserPasswordChanged            = "user.password_changed"
	TypeUserRoleGranted                = "user.role_granted"
	TypeUserRoleRevoked                = "user.role_revoked"
	TypeUserLocked                     = "user.locked"
	TypeUserUnlocked                   = "user.unlocked"
	TypeUserDisabled                   = "user.disabled"
	TypeUserEnabled                    = "user.enabled"
	TypeUserTOTPEnabled                = "user.totp_enabled"
	TypeUserTOTPDisabled               = "user.totp_disabled"
	TypeUserRecoveryCodesGenerated     = "user.recovery_codes_generated"
	TypeUserLoginFailed                = "user.login_failed"
	TypeUserConsentGiven               = "user.consent_given"
	TypeUserConsentWithdrawn           = "user.consent_withdrawn"
	TypeUserErased                     = eventstore.TypeErased
	TypeSessionStarted                 = "session.started"
	TypeSessionGranted                 = "session.granted"
	TypeSessionReuseDetected           = "session.reuse_detected"
	TypeSessionEnded                   = "session.ended"
	TypeKeyRotated                     = "key.rotated"
	TypeWebhookDisabled                = "webhook.disabled"

	TypeProjectionRebuilt      = "projection.rebuilt"
	TypeProjectionRolledBack   = "projection.rolled_back"
	TypeProjectionEventSkipped = "projection.event_skipped"

	TypeLogRestored = eventstore.TypeRestored
)

// The roles that usher itself knows. Any other is for the services that follow it to give a meaning to.
const (
	RoleAdmin    = "admin"    // may everything
	RoleAuditor  = "auditor"  // may read everything
	RoleOperator = "operator" // may run the service, and read nothing personal
)

// Why a password hash was replaced.
const (
	ReasonChange = "change" // by the user, who knew the current one
	ReasonReset  = "reset"  // by the user, with a code that was mailed
	ReasonRehash = "rehash" // the same password, hashed at the cost and in the scheme in force
	ReasonAdmin  = "admin"  // by an administrator
	ReasonImport = "import" // by another import of a user who was imported before
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

// Why a webhook was disabled.
const (
	WebhookGone     = "gone"     // the endpoint answered 410 Gone
	WebhookFailing  = "failing"  // nothing but failure for days
	WebhookOperator = "operator" // by an administrator
)

// The methods that a login can prove with who it is.
const (
	MethodPassword     = "password"
	MethodTOTP         = "totp"
	MethodRecoveryCode = "recovery_code"
)

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
		Email      string          `json:"email"` // as it was typed
		Name       string          `json:"name,omitempty"`
		Attributes json.RawMessage `json:"attributes,omitempty"` // an object
	} `json:"-"`
}

// RegisteredAgain says that somebody registered the user's address once more, and was not told that it is taken.
type RegisteredAgain struct{}

// EmailVerificationRequested asks for another code to verify the user's address with. The first is asked for by
// Registered itself.
type EmailVerificationRequested struct{}

// EmailVerified says that the user reads mail at an address.
type EmailVerified struct {
	Personal struct {
		Email string `json:"email"`
	} `json:"-"`
}

// EmailChangeRequested says which address the user wants to have. It counts once the user has shown to read mail there.
type EmailChangeRequested struct {
	Personal struct {
		Email string `json:"email"` // as it was typed
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
		Name       *string         `json:"name,omitempty"`       // may be empty: the user took the name away
		Attributes json.RawMessage `json:"attributes,omitempty"` // an object: all of them from now on
	} `json:"-"`
}

// PasswordResetRequested asks for a code to set another password with.
type PasswordResetRequested struct{}

// PasswordChanged says that the stored hash was replaced, and why. Unless it was a rehash, every session of the user ends
// with it, but for the one that the user did it in.
type PasswordChanged struct {
	Reason  string    `json:"reason"`           // ReasonChange, ReasonReset, ReasonRehash, ReasonAdmin or ReasonImport
	Session uuid.UUID `json:"session,omitzero"` // that goes on
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

// TOTPEnabled says that logins of the user need a time-based one-time password from now on.
type TOTPEnabled struct{}

// TOTPDisabled says that they need none any more.
type TOTPDisabled struct {
	Reason string `json:"reason"` // ReasonChange, ReasonReset or ReasonAdmin
}

// RecoveryCodesGenerated says that the user has new recovery codes, and that earlier ones count no longer.
type RecoveryCodesGenerated struct {
	Count int `json:"count"`
}

// LoginFailed says that a login of the user failed, and what was wrong. It stands in a stream of its own, of the kind of a
// session that never began, so that guesses don't lengthen the user's.
type LoginFailed struct {
	Reason string `json:"reason"` // MethodPassword or MethodTOTP
}

// ConsentGiven says what the user lets a client do in the user's name from now on.
type ConsentGiven struct {
	Client string   `json:"client"` // its client_id
	Scopes []string `json:"scopes"` // all that it has by now, sorted
}

// ConsentWithdrawn says that the user lets a client do nothing any more: its tokens are refused from now on.
type ConsentWithdrawn struct {
	Client string `json:"client"`
}

// Erased ends a user's stream: nothing follows it, and the key to the user's personal fields is destroyed.
type Erased struct{}

// SessionStarted begins a session's stream: one login on one device. The client's address and user agent are in the
// event's metadata.
type SessionStarted struct {
	Methods   []string  `json:"methods"`    // that proved who it is, for example MethodPassword
	ExpiresAt time.Time `json:"expires_at"` // when the session ends at the latest
}

// SessionGranted begins a session's stream as well: one that a user gives a client, in the session that the user is logged in to.
type SessionGranted struct {
	Client    string    `json:"client"` // its client_id
	Scopes    []string  `json:"scopes"`
	Parent    uuid.UUID `json:"parent,omitzero"` // the session that it ends with
	ExpiresAt time.Time `json:"expires_at"`      // when it ends at the latest
}

// SessionReuseDetected says that a refresh token was presented which had been replaced: somebody has a copy. The session
// ends.
type SessionReuseDetected struct{}

// SessionEnded ends a session, and why.
type SessionEnded struct {
	Reason string `json:"reason"` // EndedLogout, EndedExpired, …
}

// KeyRotated says which key signs access tokens, or ID tokens, from a moment on, which may be yet to come. The keys before it go on to
// verify until their tokens have expired.
type KeyRotated struct {
	KeyID     string    `json:"kid"`
	Algorithm string    `json:"algorithm"`
	IDTokens  bool      `json:"id_tokens,omitempty"` // and not access tokens
	SignsFrom time.Time `json:"signs_from"`
}

// WebhookDisabled says that a webhook gets no events until it is enabled again, and why.
type WebhookDisabled struct {
	Webhook uuid.UUID `json:"webhook"`
	Reason  string    `json:"reason"` // WebhookGone, WebhookFailing or WebhookOperator
}

// ProjectionRebuilt says that a read model was filled anew from the log, and is read from the new tables from now on.
type ProjectionRebuilt struct {
	Name        string                 `json:"name"`
	Generation  int                    `json:"generation"`   // of the tables that are live now
	CodeVersion int                    `json:"code_version"` // of the code that filled them
	Position    int64                  `json:"position"`     // up to which both were compared
	Events      int64                  `json:"events"`       // that were applied
	Differences []ProjectionDifference `json:"differences"`  // from the tables that were live before; empty for none
	Duration    float64                `json:"duration"`     // in seconds
}

// ProjectionDifference is how the rows of one table of two generations differ.
type ProjectionDifference struct {
	Table   string `json:"table"`
	Missing int64  `json:"missing"` // that the generation which was live lacked
	Extra   int64  `json:"extra"`   // that it had and should not have had
	Changed int64  `json:"changed"` // that both have, with other content
}

// ProjectionRolledBack says that a read model is read from the tables again that were live before its last rebuild.
type ProjectionRolledBack struct {
	Name        string `json:"name"`
	Generation  int    `json:"generation"`
	CodeVersion int    `json:"code_version"`
	Position    int64  `json:"position"`
}

// ProjectionEventSkipped says that an operator gave up an event that a projection can't apply.
type ProjectionEventSkipped struct {
	Name     string    `json:"name"`
	Position int64     `json:"position"` // of the event
	Type     string    `json:"type"`     // of the event
	User     uuid.UUID `json:"user"`     // whom it is about, or its system stream
}

// EventType implements Payload.
func (Registered) EventType() string                 { return TypeUserRegistered }
func (Imported) EventType() string                   { return TypeUserImported }
func (RegisteredAgain) EventType() string            { return TypeUserRegisteredAgain }
func (EmailVerificationRequested) EventType() string { return TypeUserEmailVerificationRequested }
func (EmailVerified) EventType() string              { return TypeUserEmailVerified }
func (EmailChangeRequested) EventType() string       { return TypeUserEmailChangeRequested }
func (EmailChanged) EventType() string               { return TypeUserEmailChanged }
func (ProfileUpdated) EventType() string             { return TypeUserProfileUpdated }
func (PasswordResetRequested) EventType() string     { return TypeUserPasswordResetRequested }
func (PasswordChanged) EventType() string            { return TypeUserPasswordChanged }
func (RoleGranted) EventType() string                { return TypeUserRoleGranted }
func (RoleRevoked) EventType() string                { return TypeUserRoleRevoked }
func (Locked) EventType() string                     { return TypeUserLocked }
func (Unlocked) EventType() string                   { return TypeUserUnlocked }
func (Disabled) EventType() string                   { return TypeUserDisabled }
func (Enabled) EventType() string                    { return TypeUserEnabled }
func (TOTPEnabled) EventType() string                { return TypeUserTOTPEnabled }
func (TOTPDisabled) EventType() string               { return TypeUserTOTPDisabled }
func (RecoveryCodesGenerated) EventType() string     { return TypeUserRecoveryCodesGenerated }
func (LoginFailed) EventType() string                { return TypeUserLoginFailed }
func (ConsentGiven) EventType() string               { return TypeUserConsentGiven }
func (ConsentWithdrawn) EventType() string           { return TypeUserConsentWithdrawn }
func (Erased) EventType() string                     { return TypeUserErased }
func (SessionStarted) EventType() string             { return TypeSessionStarted }
func (SessionGranted) EventType() string             { return TypeSessionGranted }
func (SessionReuseDetected) EventType() string       { return TypeSessionReuseDetected }
func (SessionEnded) EventType() string               { return TypeSessionEnded }
func (KeyRotated) EventType() string                 { return TypeKeyRotated }
func (WebhookDisabled) EventType() string            { return TypeWebhookDisabled }

func (ProjectionRebuilt) EventType() string      { return TypeProjectionRebuilt }
func (ProjectionRolledBack) EventType() string   { return TypeProjectionRolledBack }
func (ProjectionEventSkipped) EventType() string { return TypeProjectionEventSkipped }

// Payloads with personal fields say where they are, to be read and to be filled.
func (p Registered) personal() any                  { return p.Personal }
func (p Imported) personal() any                    { return p.Personal }
func (p EmailVerified) personal() any               { return p.Personal }
func (p EmailChangeRequested) personal() any        { return p.Personal }
func (p EmailChanged) personal() any                { return p.Personal }
func (p ProfileUpdated) personal() any              { return p.Personal }
func (p *Registered) personalFields() any           { return &p.Personal }
func (p *Imported) personalFields() any             { return &p.Personal }
func (p *EmailVerified) personalFields() any        { return &p.Personal }
func (p *EmailChangeRequested) personalFields() any { return &p.Personal }
func (p *EmailChanged) personalFields() any         { return &p.Personal }
func (p *ProfileUpdated) personalFields() any       { return &p.Personal }

// ErrUnknownEvent: an event's type, or its schema version, is not one that this usher knows.
var ErrUnknownEvent = errors.New("unknown event")

// schemaVersion is that of every payload above; older ones are upcast as they are read.
const schemaVersion = 1

// decoders holds, by event type, the function that reads its payload.
var decoders = map[string]func(eventstore.Event) (Payload, error){
	TypeUserRegistered:                 decodePayload[Registered],
	TypeUserImported:                   decodePayload[Imported],
	TypeUserRegisteredAgain:            decodePayload[RegisteredAgain],
	TypeUserEmailVerificationRequested: decodePayload[EmailVerificationRequested],
	TypeUserEmailVerified:              decodePayload[EmailVerified],
	TypeUserEmailChangeRequested:       decodePayload[EmailChangeRequested],
	TypeUserEmailChanged:               decodePayload[EmailChanged],
	TypeUserProfileUpdated:             decodePayload[ProfileUpdated],
	TypeUserPasswordResetRequested:     decodePayload[PasswordResetRequested],
	TypeUserPasswordChanged:            decodePayload[PasswordChanged],
	TypeUserRoleGranted:                decodePayload[RoleGranted],
	TypeUserRoleRevoked:                decodePayload[RoleRevoked],
	TypeUserLocked:                     decodePayload[Locked],
	TypeUserUnlocked:                   decodePayload[Unlocked],
	TypeUserDisabled:                   decodePayload[Disabled],
	TypeUserEnabled:                    decodePayload[Enabled],
	TypeUserTOTPEnabled:                decodePayload[TOTPEnabled],
	TypeUserTOTPDisabled:               decodePayload[TOTPDisabled],
	TypeUserRecoveryCodesGenerated:     decodePayload[RecoveryCodesGenerated],
	TypeUserLoginFailed:                decodePayload[LoginFailed],
	TypeUserConsentGiven:               decodePayload[ConsentGiven],
	TypeUserConsentWithdrawn:           decodePayload[ConsentWithdrawn],
	TypeUserErased:                     decodePayload[Erased],
	TypeSessionStarted:                 decodePayload[SessionStarted],
	TypeSessionGranted:                 decodePayload[SessionGranted],
	TypeSessionReuseDetected:           decodePayload[SessionReuseDetected],
	TypeSessionEnded:                   decodePayload[SessionEnded],
	TypeKeyRotated:                     decodePayload[KeyRotated],
	TypeWebhookDisabled:                decodePayload[WebhookDisabled],

	TypeClientRegistered:    decodePayload[ClientRegistered],
	TypeClientChanged:       decodePayload[ClientChanged],
	TypeClientSecretAdded:   decodePayload[ClientSecretAdded],
	TypeClientSecretRetired: decodePayload[ClientSecretRetired],
	TypeClientRemoved:       decodePayload[ClientRemoved],

	TypeProjectionRebuilt:      decodePayload[ProjectionRebuilt],
	TypeProjectionRolledBack:   decodePayload[ProjectionRolledBack],
	TypeLogRestored:            decodePayload[eventstore.Restored],
	TypeProjectionEventSkipped: decodePayload[ProjectionEventSkipped],
}

// EventTypes lists the type of every event that there is, sorted.
func EventTypes() []string { return slices.Sorted(maps.Keys(decoders)) }

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
