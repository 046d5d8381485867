package dossier

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity"
)

// Consent is what the user lets a client do.
type Consent struct {
	Client    string    `json:"client_id"`
	Name      string    `json:"name,omitempty"` // "" for a client that is not there any more
	Scopes    []string  `json:"scopes"`
	GivenAt   time.Time `json:"given_at"`
	ChangedAt time.Time `json:"changed_at"`
}

func (a Archive) consents(ctx context.Context, u *identity.User) ([]Consent, error) {
	list := []Consent{}
	for _, c := range u.Consents() {
		name, err := a.clientName(ctx, c.Client)
		if err != nil {
			return nil, err
		}
		list = append(list, Consent{Client: c.Client, Name: name, Scopes: c.Scopes, GivenAt: c.GivenAt.UTC(), ChangedAt: c.ChangedAt.UTC()})
	}
	return list, nil
}

func (a Archive) clientName(ctx context.Context, client string) (name string, err error) {
	id, err := uuid.Parse(client)
	if err != nil {
		return "", nil
	}
	err = a.DB.QueryRow(ctx, `SELECT name FROM clients WHERE client_id = $1`, id).Scan(&name)
	if err != nil && !errors.Is(err, eventstore.ErrNoRows) {
		return "", fmt.Errorf("read what clients are called: %w", err)
	}
	return name, nil
}
