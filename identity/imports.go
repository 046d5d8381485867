package identity

import (
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

// ImportUser makes a user of one who was one elsewhere, with the password that the user has there, and says whether that
// was done now. It was done before, and changes nothing, where the same user was imported once, whatever has become of the
// user since; and where somebody has the address who began with the same content. So an import that was interrupted can be
// done again from the beginning.
//
// It fails with ErrInvalidEmail, ErrInvalidName, ErrInvalidAttributes, CodeInvalidRequest or ErrPasswordRefused for what
// can't be, with ErrEmailTaken where somebody else has the address, or as eventstore.Log.Append does.
func (s *Service) ImportUser(ctx context.Context, u ImportedUser, m eventstore.Metadata) (imported bool, err error) {
	b, err := beginImported(u, s.now())
	if err != nil {
		return false, err
	}
	a, err := s.firstAppend(b.email, b.payloads, b.hash)
	if err != nil {
		return false, err
	}
	a.CommandID, a.Metadata = s.importCommand(a.Events, b.hash), m
	var result eventstore.Result
	for try := 1; try <= importTries; try++ {
		if result, err = s.log.Append(ctx, a); !errors.Is(err, eventstore.ErrOutcomeUnknown) || ctx.Err() != nil {
			break // nobody could have read the new user's state, so there is nothing to forget
		}
	}
	if errors.Is(err, eventstore.ErrReserved) {
		return false, s.importedAs(ctx, b)
	}
	return err == nil && !result.Repeated, err
}

// importTries bounds how often an append is repeated whose outcome is not known.
const importTries = 3

// CheckImport says what ImportUser would do, and does nothing.
func (s *Service) CheckImport(ctx context.Context, u ImportedUser) (imports bool, err error) {
	b, err := beginImported(u, s.now())
	if err != nil {
		return false, err
	}
	if before, err := s.answered(ctx, s.importCommand(newEvents(b.payloads), b.hash)); err != nil || before.Repeated {
		return false, err
	}
	switch holder, err := s.reservedBy(ctx, reserveEmail(b.email)); {
	case err != nil:
		return false, err
	case holder != uuid.Nil:
		return false, s.importedAs(ctx, b)
	}
	return true, nil
}

// importedAs fails with ErrEmailTaken unless whoever has the address began with this content.
func (s *Service) importedAs(ctx context.Context, b beginning) error {
	holder, err := s.reservedBy(ctx, reserveEmail(b.email))
	if err != nil {
		return err
	}
	events, err := s.log.ReadStream(ctx, holder, 0, len(b.payloads))
	if err != nil {
		return fmt.Errorf("read who has the address: %w", err)
	}
	if !slices.EqualFunc(events, b.payloads, says) {
		return emailTaken()
	}
	return nil
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
	switch u.Status {
	case "", StatusActive:
	case StatusLocked:
		b.payloads = append(b.payloads, Locked{})
	case StatusDisabled:
		b.payloads = append(b.payloads, Disabled{})
	default:
		return b, refuse(CodeInvalidRequest, "the status is active, locked or disabled")
	}
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
