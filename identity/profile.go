package identity

import (
	"bytes"
	"context"
	"encoding/json"

	"github.com/google/uuid"
	"golang.org/x/text/language"

	"usher.example/eventstore"
)

// ProfileChange is what is to change of what a user's profile says. Fields that are nil stay as they are.
type ProfileChange struct {
	Name       *string         // empty takes the name away
	Attributes json.RawMessage // a JSON merge patch: see MergeAttributes
	Locale     *string         // the attribute locale, a language tag (BCP 47), which every user may set; empty takes it away
}

// UpdateOwnProfile changes the profile of the user who asks for it. What changes nothing is no event. It fails with
// ErrNotFound, ErrInvalidName or ErrInvalidAttributes, with CodeForbidden for an attribute that users may not set (see
// ParseAttributes), or as eventstore.Log.Append does. What administrators may change, ChangeUser does.
func (s *Service) UpdateOwnProfile(ctx context.Context, id uuid.UUID, p ProfileChange, m eventstore.Metadata) (eventstore.Result, error) {
	return s.change(ctx, id, m, func(u User) (change, error) {
		events, err := updateProfile(u, p)
		if err == nil && p.Attributes != nil {
			err = s.maySetAttributes(p.Attributes)
		}
		return change{events: events}, err
	})
}

// updateProfile decides on a change of a user's profile.
func updateProfile(u User, c ProfileChange) ([]Payload, error) {
	var p ProfileUpdated
	changed := false
	if c.Name != nil {
		name, err := ParseName(*c.Name)
		if err != nil {
			return nil, err
		}
		if name != u.Name {
			p.Personal.Name, changed = &name, true
		}
	}
	patches := []json.RawMessage{}
	if c.Attributes != nil {
		patches = append(patches, c.Attributes)
	}
	if c.Locale != nil {
		patch, err := localePatch(*c.Locale)
		if err != nil {
			return nil, err
		}
		patches = append(patches, patch)
	}
	attributes := json.RawMessage(marshal(decodeNumbers(u.Attributes)))
	for _, patch := range patches {
		merged, err := MergeAttributes(attributes, patch)
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(attributes, merged) {
			attributes, changed = merged, true
			p.Personal.Attributes = merged
		}
	}
	if !changed {
		return nil, nil
	}
	return []Payload{p}, nil
}

// localePatch is the merge patch that sets the attribute locale to a language, or takes it away.
func localePatch(locale string) (json.RawMessage, error) {
	if locale == "" {
		return json.RawMessage(`{"locale":null}`), nil
	}
	if _, err := language.Parse(locale); err != nil || len(locale) > maxLocale {
		return nil, refuse(CodeInvalidAttributes, "the locale is a language tag such as de or pt-BR")
	}
	return marshal(map[string]string{"locale": locale}), nil
}

// maxLocale bounds a language tag, in bytes: RFC 5646 asks for room for 35 (section 4.4.1).
const maxLocale = 64
