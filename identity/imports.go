package identity

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity/password"
)

// ImportedUser is a user who was one elsewhere before.
type ImportedUser struct {
	Email         string
	Name          string        // may be empty
	Hash          password.Hash // that password.Check accepts; for a user without a password empty, or "!…" as Django writes it
	EmailVerified bool
	Status        Status // active when empty
	Roles         []string
	Attributes    json.RawMessage // see ParseAttributes; nil for none
	CreatedAt     time.Time       // elsewhere; zero where that is not known
}

// ImportOutcome is what an import did with a user.
type ImportOutcome string

// What an import does.
const (
	ImportMade    ImportOutcome = "imported" // there is a user now
	ImportUpdated ImportOutcome = "updated"  // who was imported before, with another password hash or status
	ImportKnown   ImportOutcome = "already"  // all of it was imported before
)

// ImportUser makes a user of one who was one elsewhere, with the password that the user has there. A user who was imported
// before is given another password hash and another status, where they are given and differ from those of that import, so
// the last import counts, and an import that was interrupted can be done again from the beginning. What was changed here
// since that import stays, and another import of it is refused.
//
// It fails with ErrInvalidEmail, ErrInvalidName, ErrInvalidAttributes, CodeInvalidRequest or ErrPasswordRefused for what
// can't be; with ErrEmailTaken where somebody else has the address, or the same user with other content; with CodeConflict
// where it was changed here; with ErrLastAdmin; or as eventstore.Log.Append does.
func (s *Service) ImportUser(ctx context.Context, u ImportedUser, m eventstore.Metadata) (ImportOutcome, error) {
	b, err := beginImported(u, s.now())
	if err != nil {
		return "", err
	}
	for try := 1; ; try++ {
		outcome, err := s.importOnce(ctx, b, m)
		again := errors.Is(err, eventstore.ErrOutcomeUnknown) || errors.Is(err, errAddressFreed)
		if !again || try == importTries || ctx.Err() != nil {
			return outcome, err // nobody could have read a new user's state, so there is nothing to forget
		}
	}
}

// importTries bounds how often an import is begun anew whose outcome is not known.
const importTries = 3

// errAddressFreed: whoever had the address let go of it while it was looked at.
var errAddressFreed = errors.New("the address was let go of meanwhile")

func (s *Service) importOnce(ctx context.Context, b beginning, m eventstore.Metadata) (ImportOutcome, error) {
	left := importRow{mac: s.importMAC(b.hash), status: b.status}
	if b.hash != "" {
		left.changed = s.now().UTC()
	}
	a, err := s.firstAppend(b.email, b.payloads, credential{hash: b.hash, changed: left.changed})
	if err != nil {
		return "", err
	}
	stored := left.store(a.Stream.ID)
	stored.New = true
	a.State = append(a.State, stored)
	a.CommandID, a.Metadata = s.importCommand(a.Events, b.hash), m
	result, err := s.log.Append(ctx, a)
	switch {
	case errors.Is(err, eventstore.ErrReserved):
		return s.importOver(ctx, b, eventstore.Result{}, m)
	case err != nil:
		return "", err
	case result.Repeated:
		return s.importOver(ctx, b, result, m)
	}
	return ImportMade, nil
}

// importOver imports somebody who is there already: who was made by the command that was answered with first, or else whoever
// has the address.
func (s *Service) importOver(ctx context.Context, b beginning, first eventstore.Result, m eventstore.Metadata) (ImportOutcome, error) {
	id, err := s.importedBefore(ctx, b, first)
	if err != nil || id == uuid.Nil {
		return "", cmp.Or(err, errAddressFreed)
	}
	var reason string
	result, err := s.change(ctx, id, m, func(u User) (c change, err error) {
		c, reason, err = s.importAgain(ctx, u, b)
		return c, err
	})
	switch {
	case first.Repeated && errors.Is(err, ErrNotFound): // erased since: that stays so
		return ImportKnown, nil
	case errors.Is(err, ErrNotFound):
		return "", errAddressFreed
	case err != nil:
		return "", err
	case result.Unchanged:
		return ImportKnown, nil
	}
	if reason != "" {
		s.endEverySession(ctx, id, uuid.Nil, reason, m)
	}
	return ImportUpdated, nil
}

// CheckImport says what ImportUser would do, and does nothing.
func (s *Service) CheckImport(ctx context.Context, u ImportedUser) (ImportOutcome, error) {
	b, err := beginImported(u, s.now())
	if err != nil {
		return "", err
	}
	first, err := s.answered(ctx, s.importCommand(newEvents(b.payloads), b.hash))
	if err != nil {
		return "", err
	}
	id, err := s.importedBefore(ctx, b, first)
	if err != nil {
		return "", err
	}
	if id == uuid.Nil {
		return ImportMade, nil
	}
	present, err := s.ReadUser(ctx, id)
	if first.Repeated && errors.Is(err, ErrNotFound) {
		return ImportKnown, nil
	}
	if err != nil {
		return "", err
	}
	c, _, err := s.importAgain(ctx, *present, b)
	switch {
	case err != nil:
		return "", err
	case len(c.events) == 0:
		return ImportKnown, nil
	}
	return ImportUpdated, s.checkLastAdmin(ctx, id, *present, c)
}

// checkLastAdmin fails with ErrLastAdmin where a change would be refused for that.
func (s *Service) checkLastAdmin(ctx context.Context, id uuid.UUID, u User, c change) error {
	for _, row := range s.adminChange(id, u, c.events) {
		var admins int
		if !row.Delete {
			continue
		}
		if err := s.db.QueryRow(ctx, "SELECT count(*) FROM admins").Scan(&admins); err != nil {
			return fmt.Errorf("count the administrators: %w", err)
		}
		if admins == 1 {
			return lastAdmin()
		}
	}
	return nil
}

// importedBefore is who was made by the command that was answered with first, where it is known, and else whoever has the
// address; the nil UUID for nobody.
func (s *Service) importedBefore(ctx context.Context, b beginning, first eventstore.Result) (uuid.UUID, error) {
	if !first.Repeated {
		return s.reservedBy(ctx, reserveEmail(b.email))
	}
	events, err := s.log.ReadAt(ctx, []int64{first.Position})
	if err != nil {
		return uuid.Nil, fmt.Errorf("read who was imported: %w", err)
	}
	return events[0].Stream.ID, nil
}

// importAgain decides on an import of somebody who is there already, and for what reason sessions end with it, "" if they
// don't.
func (s *Service) importAgain(ctx context.Context, u User, b beginning) (c change, reason string, err error) {
	events, err := s.log.ReadStream(ctx, u.ID, 0, 1)
	if err != nil {
		return change{}, "", fmt.Errorf("read who has the address: %w", err)
	}
	began, err := DecodeAny(events[0])
	if err != nil {
		return change{}, "", err
	}
	was, imported := began.(Imported)
	if !imported {
		return change{}, "", emailTaken()
	}
	if other := was.otherThan(b.payloads[0].(Imported)); other != "" {
		return change{}, "", refuse(CodeEmailTaken, "the address is taken by a user who was imported with another %s; of an earlier import only the password hash and the status are updated", other)
	}
	left, err := s.readImport(ctx, u.ID)
	if err != nil {
		return change{}, "", err
	}
	now := left
	if b.statusGiven && b.status != left.status && b.status != u.Status {
		if u.Status != left.status {
			return change{}, "", refuse(CodeConflict, "the status was changed here since it was imported, and stays %s", u.Status)
		}
		c.events = toStatus(u, b.status)
		now.status = b.status
		switch b.status {
		case StatusLocked:
			reason = EndedLocked
		case StatusDisabled:
			reason = EndedDisabled
		}
	}
	if mac := s.importMAC(b.hash); b.hashGiven && !bytes.Equal(mac, left.mac) {
		present, err := s.readCredential(ctx, u.ID)
		if err != nil {
			return change{}, "", err
		}
		if !present.changed.Equal(left.changed) {
			return change{}, "", refuse(CodeConflict, "the password was changed here since it was imported, and stays")
		}
		now.mac, now.changed = mac, time.Time{}
		stored := dropRow("credentials", map[string]any{"user_id": u.ID})
		if b.hash != "" {
			now.changed = s.now().UTC()
			stored = storeCredential(u.ID, s.replacing(present, b.hash, now.changed))
		}
		c.events = append(c.events, PasswordChanged{Reason: ReasonImport})
		c.state = append(c.state, stored, dropCode(u.ID, PurposeReset), dropCode(u.ID, PurposeEmail), s.throttle.pardon(b.email))
		reason = cmp.Or(reason, EndedPasswordChanged)
	}
	if len(c.events) > 0 {
		c.state = append(c.state, now.store(u.ID))
	}
	return c, reason, nil
}

// otherThan is the first field, beside the address, in which two imports of a user differ; "" for none.
func (p Imported) otherThan(o Imported) string {
	switch {
	case p.Personal.Name != o.Personal.Name:
		return "name"
	case p.EmailVerified != o.EmailVerified:
		return "email_verified"
	case !slices.Equal(p.Roles, o.Roles):
		return "list of roles"
	case !bytes.Equal(p.Personal.Attributes, o.Personal.Attributes):
		return "set of attributes"
	case !p.CreatedAt.Equal(o.CreatedAt):
		return "created_at"
	}
	return ""
}

// toStatus is what makes a user be of another status, and of none beside it.
func toStatus(u User, to Status) (payloads []Payload) {
	if u.locked && to != StatusLocked {
		payloads = append(payloads, Unlocked{})
	}
	if u.disabled && to != StatusDisabled {
		payloads = append(payloads, Enabled{})
	}
	switch {
	case to == StatusLocked && !u.locked:
		payloads = append(payloads, Locked{})
	case to == StatusDisabled && !u.disabled:
		payloads = append(payloads, Disabled{})
	}
	return payloads
}

// importRow is what an import left of a user.
type importRow struct {
	mac     []byte    // of the hash; nil for none
	changed time.Time // of the credential; zero for none
	status  Status
}

func (r importRow) store(user uuid.UUID) eventstore.StateChange {
	row := map[string]any{"user_id": user, "hash_mac": nil, "changed_at": nil, "status": r.status}
	if r.mac != nil {
		row["hash_mac"] = bytea(r.mac)
	}
	if !r.changed.IsZero() {
		row["changed_at"] = r.changed
	}
	return stateRow("imported_users", row)
}

func (s *Service) readImport(ctx context.Context, user uuid.UUID) (r importRow, err error) {
	var changed *time.Time
	err = s.db.QueryRow(ctx, "SELECT hash_mac, changed_at, status FROM imported_users WHERE user_id = $1", user).Scan(&r.mac, &changed, &r.status)
	if err != nil {
		return importRow{}, fmt.Errorf("read what was imported: %w", err)
	}
	if changed != nil {
		r.changed = *changed
	}
	return r, nil
}

// importMAC tells imported hashes apart, and nothing of them.
func (s *Service) importMAC(hash password.Hash) []byte {
	if hash == "" {
		return nil
	}
	return s.codeMAC("import", string(hash))
}

// importCommand is the command id of an import, which all that it says goes into.
func (s *Service) importCommand(events []eventstore.NewEvent, hash password.Hash) uuid.UUID {
	var content strings.Builder
	for _, e := range events {
		content.WriteString(e.Type)
		content.Write(e.Data)
		content.Write(e.Personal)
	}
	content.WriteString(string(hash))
	return s.SecretCommandID("import", "", content.String())
}

// beginning is how the stream of an imported user begins.
type beginning struct {
	email    Email
	payloads []Payload
	hash     password.Hash // "" for none
	status   Status

	hashGiven, statusGiven bool // else they are what a user has who is new
}

// beginImported decides on a user who is imported.
func beginImported(u ImportedUser, now time.Time) (b beginning, err error) {
	if b.email, err = ParseEmail(u.Email); err != nil {
		return b, err
	}
	p := Imported{EmailVerified: u.EmailVerified, Roles: slices.Compact(slices.Sorted(slices.Values(u.Roles)))}
	p.Personal.Email = b.email.String()
	if p.Personal.Name, err = ParseName(u.Name); err != nil {
		return b, err
	}
	if err := checkRoles(p.Roles); err != nil {
		return b, err
	}
	if u.Attributes != nil {
		if p.Personal.Attributes, err = ParseAttributes(u.Attributes); err != nil {
			return b, err
		}
	}
	if !u.CreatedAt.IsZero() {
		p.CreatedAt = u.CreatedAt.UTC().Truncate(time.Microsecond)
		if p.CreatedAt.Year() < 1970 || p.CreatedAt.After(now) {
			return b, refuse(CodeInvalidRequest, "the user began before 1970, or is still to begin")
		}
	}
	b.payloads = []Payload{p}
	b.status, b.statusGiven = cmp.Or(u.Status, StatusActive), u.Status != ""
	switch u.Status {
	case "", StatusActive:
	case StatusLocked:
		b.payloads = append(b.payloads, Locked{})
	case StatusDisabled:
		b.payloads = append(b.payloads, Disabled{})
	default:
		return b, refuse(CodeInvalidRequest, "the status is active, locked or disabled")
	}
	b.hashGiven = u.Hash != ""
	if strings.HasPrefix(string(u.Hash), unusableHash) {
		return b, nil
	}
	b.hash = u.Hash
	return b, checkHash(u.Hash)
}

// unusableHash is how Django begins the hash of a user who has no password.
const unusableHash = "!"

func checkHash(hash password.Hash) error {
	if hash == "" {
		return nil
	}
	switch err := password.Check(hash); {
	case errors.Is(err, password.ErrCost):
		return refuse(CodePasswordRefused, "the password hash has a cost, or lengths, that are not accepted")
	case err != nil:
		return refuse(CodePasswordRefused, "the password hash is of no scheme that usher knows")
	}
	return nil
}
