package client

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"usher.example/identity"
)

// Consent is what a user lets a client do, as whoever is asked about it is told.
type Consent struct {
	Client    string    `json:"client_id"`
	Name      string    `json:"name"`
	Scopes    []string  `json:"scopes"`     // sorted
	GivenAt   time.Time `json:"given_at"`   // the first of them
	ChangedAt time.Time `json:"changed_at"` // the last of them
}

// Consents lists what a user lets clients do, in the order in which the user first agreed. What was let a client do that is not there
// any more is not among it: nobody can make use of that. It fails as the database does.
func (r *Registry) Consents(ctx context.Context, u *identity.User) ([]Consent, error) {
	list := []Consent{}
	for _, c := range u.Consents() {
		name, err := r.NameOf(ctx, c.Client)
		if errors.Is(err, ErrUnknown) {
			continue
		}
		if err != nil {
			return nil, err
		}
		list = append(list, Consent{Client: c.Client, Name: name, Scopes: c.Scopes, GivenAt: c.GivenAt.UTC(), ChangedAt: c.ChangedAt.UTC()})
	}
	return list, nil
}

// NameOf is what the client of an id is called. It fails with ErrUnknown, or as the database does.
func (r *Registry) NameOf(ctx context.Context, id string) (string, error) {
	parsed, err := uuid.Parse(id)
	if err != nil {
		return "", ErrUnknown
	}
	c, err := r.Get(ctx, parsed)
	return c.Name, err
}
