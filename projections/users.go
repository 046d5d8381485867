package projections

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"

	"usher.example/eventstore"
	"usher.example/identity"
)

// UserView is a user as the read model shows it.
type UserView struct {
	ID            uuid.UUID       `json:"id"`
	Email         string          `json:"email"` // as it was typed; empty once forgotten
	EmailVerified bool            `json:"email_verified"`
	Name          string          `json:"name"`
	Status        identity.Status `json:"status"`
	Roles         []string        `json:"roles"` // sorted
	Attributes    json.RawMessage `json:"attributes"`
	TOTPEnabled   bool            `json:"totp_enabled"`
	CreatedAt     time.Time       `json:"created_at"`
	UpdatedAt     time.Time       `json:"updated_at"`
	Version       int             `json:"version"`  // of the newest event of the user's stream that is in it
	Position      int64           `json:"position"` // of the same event
}

// userRow is a row of the users' table.
type userRow struct {
	UserView
	locked, disabled bool
	changed          bool // by the events that were folded
	gone             bool // erased: the row is to be deleted
	begun            bool // the user's first event is among those that were folded
	firstPosition    int64
	weight           int // of the row in userChanges
}

// userFacts are the fields of all the events that say something about a user's row. One struct for all of them is read
// at half the cost of one for each. Their meaning is that of the payloads in package identity.
type userFacts struct {
	Email         string    `json:"email"`
	Name          *string   `json:"name"`
	Role          string    `json:"role"`
	EmailVerified bool      `json:"email_verified"`
	Roles         []string  `json:"roles"`
	CreatedAt     time.Time `json:"created_at"`

	Attributes json.RawMessage `json:"attributes"`
}

// userSchema is the newest schema version of user events that this code reads.
const userSchema = 1

// readFacts reads the fields of an event wherever they are: the personal ones stand in Personal when the event comes
// from the log, and among Data when it comes from a message.
func readFacts(e eventstore.Event) (f userFacts, err error) {
	if e.SchemaVersion > userSchema {
		return f, fmt.Errorf("decode %s at %d, schema version %d: %w", e.Type, e.Position, e.SchemaVersion, identity.ErrUnknownEvent)
	}
	for _, raw := range [][]byte{e.Data, e.Personal} {
		if len(raw) == 0 || bytes.Equal(raw, []byte("{}")) {
			continue
		}
		if err := json.Unmarshal(raw, &f); err != nil {
			return f, fmt.Errorf("decode %s at %d: %w", e.Type, e.Position, err)
		}
	}
	return f, nil
}

// fold changes a user's row by an event of the user's stream. Events that say nothing about the row, and types that this
// code does not know, move its version, position and time only. It folds as identity does: see identity.User.
func (u *userRow) fold(e eventstore.Event) error {
	switch e.Type {
	case identity.TypeUserRegistered, identity.TypeUserImported, identity.TypeUserEmailVerified, identity.TypeUserEmailChanged,
		identity.TypeUserProfileUpdated, identity.TypeUserRoleGranted, identity.TypeUserRoleRevoked:
		f, err := readFacts(e)
		if err != nil {
			return err
		}
		u.foldFacts(e, f)
	case identity.TypeUserLocked:
		u.locked = true
	case identity.TypeUserUnlocked:
		u.locked = false
	case identity.TypeUserDisabled:
		u.disabled = true
	case identity.TypeUserEnabled:
		u.disabled = false
	case identity.TypeUserTOTPEnabled:
		u.TOTPEnabled = true
	case identity.TypeUserTOTPDisabled:
		u.TOTPEnabled = false
	case identity.TypeUserErased:
		*u = userRow{UserView: UserView{ID: u.ID, CreatedAt: u.CreatedAt}, gone: true, weight: u.weight}
	}
	switch {
	case u.disabled:
		u.Status = identity.StatusDisabled
	case u.locked:
		u.Status = identity.StatusLocked
	default:
		u.Status = identity.StatusActive
	}
	if u.Attributes == nil {
		u.Attributes = noAttributes
	}
	u.Version, u.Position, u.UpdatedAt, u.changed = e.Version, e.Position, e.RecordedAt, true
	return nil
}

// noAttributes is what a user begins with.
var noAttributes = json.RawMessage("{}")

func (u *userRow) foldFacts(e eventstore.Event, f userFacts) {
	switch e.Type {
	case identity.TypeUserRegistered, identity.TypeUserImported:
		*u = userRow{UserView: UserView{ID: e.Stream.ID, Email: f.Email, EmailVerified: f.EmailVerified, CreatedAt: e.RecordedAt}, begun: u.begun, firstPosition: u.firstPosition, weight: u.weight}
		if !f.CreatedAt.IsZero() {
			u.CreatedAt = f.CreatedAt.UTC().Truncate(time.Microsecond)
		}
		u.Roles = append(u.Roles, f.Roles...)
		slices.Sort(u.Roles)
		u.Roles = slices.Compact(u.Roles)
	case identity.TypeUserEmailVerified:
		u.EmailVerified = u.EmailVerified || f.Email == u.Email
	case identity.TypeUserEmailChanged:
		u.Email, u.EmailVerified = f.Email, true // it changes once the new address has confirmed
	case identity.TypeUserRoleGranted:
		if at, has := slices.BinarySearch(u.Roles, f.Role); !has {
			u.Roles = slices.Insert(u.Roles, at, f.Role)
		}
	case identity.TypeUserRoleRevoked:
		if at, has := slices.BinarySearch(u.Roles, f.Role); has {
			u.Roles = slices.Delete(u.Roles, at, at+1)
		}
	}
	if f.Name != nil {
		u.Name = *f.Name
	}
	if f.Attributes != nil {
		u.Attributes = f.Attributes
	}
	u.EmailVerified = u.EmailVerified && u.Email != "" // which it is once forgotten
}

// foldUsers changes the rows of users by events, in their order. rows has the users whose first event here is not the first
// of their stream. Events that a row has already are left out.
func foldUsers(rows map[uuid.UUID]*userRow, events []eventstore.Event) error {
	for _, e := range events {
		if e.Stream.Kind != eventstore.KindUser {
			continue
		}
		u := rows[e.Stream.ID]
		if u == nil {
			u = &userRow{UserView: UserView{ID: e.Stream.ID, CreatedAt: e.RecordedAt}, begun: e.Version == 1, firstPosition: e.Position}
			rows[u.ID] = u
		}
		if e.Version <= u.Version {
			continue
		}
		if err := u.fold(e); err != nil {
			return err
		}
	}
	return nil
}

// searchKey is the form in which texts are compared in a search: NFKC, case-folded, without surrounding white space.
func searchKey(text string) string {
	text = strings.TrimSpace(text)
	for i := range len(text) {
		if text[i] >= 0x80 {
			return norm.NFKC.String(cases.Fold().String(norm.NFKC.String(text)))
		}
	}
	return strings.ToLower(text)
}
