// Package client is the clients of OAuth: services that may ask about tokens and revoke them. They are set up by operators and are no
// users.
package client

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/token"
)

// Client is a service that may ask about tokens and revoke them. Nothing that concerns one is an event.
type Client struct {
	ID        uuid.UUID
	Name      string // what operators call it
	CreatedAt time.Time
}

// Secret proves that a request is a client's. It can't be printed by accident.
//
// It is 256 random bits, so nothing slow is needed to store it: the database has its SHA-256.
type Secret string

func (Secret) String() string       { return "[hidden]" }
func (Secret) GoString() string     { return "[hidden]" }
func (Secret) LogValue() slog.Value { return slog.StringValue("[hidden]") }

// secretPrefix lets programs that look for leaked secrets know one.
const secretPrefix = "usher_secret_"

func newSecret() Secret {
	raw := make([]byte, 32)
	rand.Read(raw)
	return Secret(secretPrefix + base64.RawURLEncoding.EncodeToString(raw))
}

func (c Secret) hash() []byte {
	sum := sha256.Sum256([]byte(c))
	return sum[:]
}

var (
	// ErrUnknown: there is no such client, or the secret is not its own.
	ErrUnknown = errors.New("no such client, or a wrong secret")
	// ErrName: the name is not one that a client can have, or another client has it.
	ErrName = errors.New("the name can't be used")
)

var nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// Registry has the clients of a deployment. It is safe for concurrent use.
type Registry struct{ DB eventstore.DB }

// Add makes a client, and its secret, which can't be read again. It fails with ErrName.
func (r Registry) Add(ctx context.Context, name string) (Client, Secret, error) {
	if !nameForm.MatchString(name) {
		return Client{}, "", fmt.Errorf("%w: it is of at most 63 lower-case letters, digits, dots, - and _", ErrName)
	}
	if name == token.LoginClient {
		return Client{}, "", fmt.Errorf("%w: it is the client_id of usher's own login", ErrName)
	}
	id, err := uuid.NewV7()
	if err != nil {
		return Client{}, "", err
	}
	c := Client{ID: id, Name: name, CreatedAt: time.Now().UTC().Truncate(time.Microsecond)}
	secret := newSecret()
	n, err := r.DB.Exec(ctx, `
		INSERT INTO clients (client_id, name, secret_hash, created_at) VALUES ($1, $2, $3, $4) ON CONFLICT (name) DO NOTHING`,
		c.ID, c.Name, secret.hash(), c.CreatedAt)
	switch {
	case err != nil:
		return Client{}, "", fmt.Errorf("store the client: %w", err)
	case n == 0:
		return Client{}, "", fmt.Errorf("%w: another client has it", ErrName)
	}
	return c, secret, nil
}

// List lists all clients, by name.
func (r Registry) List(ctx context.Context) (list []Client, err error) {
	rows, err := r.DB.Query(ctx, `SELECT client_id, name, created_at FROM clients ORDER BY name`)
	if err != nil {
		return nil, fmt.Errorf("list clients: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var c Client
		if err := rows.Scan(&c.ID, &c.Name, &c.CreatedAt); err != nil {
			return nil, fmt.Errorf("list clients: %w", err)
		}
		c.CreatedAt = c.CreatedAt.UTC()
		list = append(list, c)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("list clients: %w", err)
	}
	return list, nil
}

// Remove removes a client by its name; from then on its secret is of no use. It fails with ErrUnknown.
func (r Registry) Remove(ctx context.Context, name string) error {
	n, err := r.DB.Exec(ctx, `DELETE FROM clients WHERE name = $1`, name)
	switch {
	case err != nil:
		return fmt.Errorf("remove the client: %w", err)
	case n == 0:
		return ErrUnknown
	}
	return nil
}

// Authenticate finds the client that a request says it is from. Whether the id or the secret is wrong does not show,
// by the answer or by the time that it takes. It fails with ErrUnknown, or as the database does.
func (r Registry) Authenticate(ctx context.Context, id string, secret Secret) (Client, error) {
	var c Client
	stored := make([]byte, sha256.Size)            // what no secret hashes to stands for that of nobody
	if parsed, err := uuid.Parse(id); err == nil { // an id of another form is looked for all the same
		c.ID = parsed
	}
	err := r.DB.QueryRow(ctx, `SELECT name, secret_hash, created_at FROM clients WHERE client_id = $1`, c.ID).Scan(&c.Name, &stored, &c.CreatedAt)
	if err != nil && !errors.Is(err, eventstore.ErrNoRows) {
		return Client{}, fmt.Errorf("look up the client: %w", err)
	}
	right := subtle.ConstantTimeCompare(secret.hash(), stored) == 1
	if err != nil || !right || id != c.ID.String() {
		return Client{}, ErrUnknown
	}
	return c, nil
}
