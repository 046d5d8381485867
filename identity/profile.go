package identity

import (
	"bytes"
	"context"
	"encoding/json"

	"github.com/google/uuid"

	"usher.example/eventstore"
)

// ProfileChange is what is to change of what a user's profile says. Fields that are nil stay as they are.
type ProfileChange struct {
	Name       *string         // empty takes the name away
	Attributes json.RawMessage // a JSON merge patch: see MergeAttributes
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
	if c.Attributes != nil {
		merged, err := MergeAttributes(u.Attributes, c.Attributes)
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(marshal(decodeNumbers(u.Attributes)), merged) {
			p.Personal.Attributes, changed = merged, true
		}
	}
	if !changed {
		return nil, nil
	}
	return []Payload{p}, nil
}
