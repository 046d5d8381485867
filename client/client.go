// Package client is the clients of OAuth: programs that log users in, and services that act for themselves. Each is a stream of
// events; what is secret of one is state beside it.
//
// A client is decided on by its own state, which the append of each event changes with it. What is needed at every request is kept in
// memory, as identity.Service keeps users there: as long as the log is followed, and no longer than until a client's next event.
package client

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity"
)

// Client is a client of OAuth, as of a version of its stream.
type Client struct {
	ID uuid.UUID `json:"client_id"`
	identity.ClientSettings
	Credentials []Credential `json:"credentials"` // the oldest first
	CreatedAt   time.Time    `json:"created_at"`
	ChangedAt   time.Time    `json:"changed_at"`

	version int
}

// May says whether a client may use a grant.
func (c Client) May(grant string) bool { return slices.Contains(c.Grants, grant) }

// IsPublic says whether a client can't keep a secret.
func (c Client) IsPublic() bool { return c.Authentication == AuthenticationNone }

// Allowed is what a client may have of the scopes that it wants, in their order.
func (c Client) Allowed(scopes []string) []string { return within(scopes, c.Scopes) }

var (
	// ErrUnknown: there is no such client, or what it proves with who it is is not its own.
	ErrUnknown = errors.New("no such client, or a wrong secret")
	// ErrName: another client has the name.
	ErrName = &identity.Error{Code: identity.CodeConflict, Detail: "another client has the name"}
)

// Config is what a Registry stands on.
type Config struct {
	Log *eventstore.Log
	DB  eventstore.DB // of the same database
	// Current says whether what is in memory may be answered from: see identity.Service.Current. When nil it never may.
	Current func() bool
	// HTTP makes the requests for keys that clients publish, wherever a client says: it has to guard where that leads. None are made
	// when nil. It must not follow redirects.
	HTTP   http.RoundTripper
	Logger *slog.Logger     // nothing is logged when nil
	Now    func() time.Time // time.Now when nil
}

// Registry has the clients of a deployment. It is safe for concurrent use.
type Registry struct {
	config Config
	known  *known
	uses   *uses
	keys   *keySets
	// reading is whose turn it is to read the origins of all clients.
	reading chan struct{}
}

// New makes a registry.
func New(c Config) *Registry {
	if c.Current == nil {
		c.Current = func() bool { return false }
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Registry{config: c, known: newKnown(), uses: &uses{}, keys: newKeySets(c), reading: make(chan struct{}, 1)}
}

// Changed drops what is kept of a client that has changed; of all of them for the nil UUID.
func (r *Registry) Changed(id uuid.UUID) { r.known.drop(id) }

// Get is a client as of now, or within milliseconds of that. It fails with ErrUnknown, or as the database does.
func (r *Registry) Get(ctx context.Context, id uuid.UUID) (Client, error) {
	if !r.config.Current() {
		return r.Read(ctx, id)
	}
	return r.known.get(id, func() (Client, error) { return r.Read(ctx, id) })
}

// Read is a client, read from the database. It fails with ErrUnknown, or as the database does.
func (r *Registry) Read(ctx context.Context, id uuid.UUID) (Client, error) {
	return r.one(ctx, `WHERE client_id = $1`, id)
}

// Named is the client of a name, read from the database. It fails with ErrUnknown, or as the database does.
func (r *Registry) Named(ctx context.Context, name string) (Client, error) {
	return r.one(ctx, `WHERE name = $1`, name)
}

func (r *Registry) one(ctx context.Context, where string, arg any) (Client, error) {
	list, err := r.list(ctx, where, arg)
	if err == nil && len(list) == 0 {
		err = ErrUnknown
	}
	if err != nil {
		return Client{}, err
	}
	return list[0], nil
}

// List lists at most so many clients that were registered after another, the nil UUID for none, in the order in which they were.
func (r *Registry) List(ctx context.Context, after uuid.UUID, limit int) ([]Client, error) {
	return r.list(ctx, `WHERE client_id > $1 ORDER BY client_id LIMIT $2`, after, limit)
}

// list reads clients with what they prove with who they are: the clients first, so that of one that changes in between nothing is
// taken for good that is not any more. An append goes by the version, and so notices.
func (r *Registry) list(ctx context.Context, rest string, args ...any) (list []Client, err error) {
	rows, err := r.config.DB.Query(ctx, `SELECT client_id, name, version, settings, created_at, changed_at FROM clients `+rest, args...)
	if err != nil {
		return nil, fmt.Errorf("read clients: %w", err)
	}
	defer rows.Close()
	at := map[uuid.UUID]int{}
	for rows.Next() {
		var c Client
		var settings []byte
		if err := rows.Scan(&c.ID, &c.Name, &c.version, &settings, &c.CreatedAt, &c.ChangedAt); err != nil {
			return nil, fmt.Errorf("read clients: %w", err)
		}
		name := c.Name
		if err := json.Unmarshal(settings, &c.ClientSettings); err != nil {
			return nil, fmt.Errorf("read the settings of client %s: %w", c.ID, err)
		}
		if c.version == 0 {
			c.ClientSettings = complete(identity.ClientSettings{Name: name})
		}
		c.Credentials, c.CreatedAt, c.ChangedAt = []Credential{}, c.CreatedAt.UTC(), c.ChangedAt.UTC()
		at[c.ID] = len(list)
		list = append(list, c)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read clients: %w", err)
	}
	rows.Close()
	if len(list) == 0 {
		return nil, nil
	}
	return list, r.readCredentials(ctx, list, at)
}

func (r *Registry) readCredentials(ctx context.Context, list []Client, at map[uuid.UUID]int) error {
	places, args := make([]string, len(list)), make([]any, len(list))
	for i, c := range list {
		places[i], args[i] = fmt.Sprintf("$%d", i+1), c.ID
	}
	rows, err := r.config.DB.Query(ctx, `SELECT secret_id, client_id, kind, hash, prefix, scopes, created_at, expires_at, used_at
		FROM client_secrets WHERE client_id IN (`+strings.Join(places, ", ")+`) ORDER BY created_at, secret_id`, args...)
	if err != nil {
		return fmt.Errorf("read what clients prove with who they are: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var s Credential
		var client uuid.UUID
		var hash, scopes []byte
		if err := rows.Scan(&s.ID, &client, &s.Kind, &hash, &s.Prefix, &scopes, &s.CreatedAt, &s.ExpiresAt, &s.UsedAt); err != nil {
			return fmt.Errorf("read what clients prove with who they are: %w", err)
		}
		if err := json.Unmarshal(scopes, &s.Scopes); err != nil {
			return fmt.Errorf("read the scopes of key %s: %w", s.ID, err)
		}
		copy(s.digest[:], hash)
		s.CreatedAt = s.CreatedAt.UTC()
		for _, t := range []*time.Time{s.ExpiresAt, s.UsedAt} {
			if t != nil {
				*t = t.UTC()
			}
		}
		list[at[client]].Credentials = append(list[at[client]].Credentials, s)
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read what clients prove with who they are: %w", err)
	}
	return nil
}

// Authenticate finds the client that a request says it is from. Whether the id or the secret is wrong does not show, by the answer
// or by the time that it takes. It fails with ErrUnknown, or as the database does.
func (r *Registry) Authenticate(ctx context.Context, id string, secret Secret) (Client, error) {
	parsed, err := uuid.Parse(id)
	if err != nil {
		parsed = uuid.Nil // an id of another form is looked for all the same
	}
	c, err := r.Get(ctx, parsed)
	if err != nil && !errors.Is(err, ErrUnknown) {
		return Client{}, err
	}
	sum, now := secret.digest(), r.config.Now()
	right := -1
	for i := range max(maxSecrets, len(c.Credentials)) {
		var of digest // what no secret hashes to stands for that of nobody
		if i < len(c.Credentials) {
			of = c.Credentials[i].digest
		}
		if subtle.ConstantTimeCompare(sum[:], of[:]) == 1 && !c.Credentials[i].isKey() && c.Credentials[i].good(now) {
			right = i
		}
	}
	if err != nil || right < 0 || id != c.ID.String() {
		return Client{}, ErrUnknown
	}
	r.used(ctx, c.Credentials[right])
	return c, nil
}

// ByKey finds the client that a key stands for, and which of its keys it is. It fails with ErrUnknown, or as the database does.
func (r *Registry) ByKey(ctx context.Context, key Secret) (Client, Credential, error) {
	sum := key.digest()
	id, known := r.known.holder(sum)
	if !known {
		err := r.config.DB.QueryRow(ctx, `SELECT client_id FROM client_secrets WHERE hash = $1 AND kind = 'key'`, sum[:]).Scan(&id)
		if errors.Is(err, eventstore.ErrNoRows) {
			return Client{}, Credential{}, ErrUnknown
		}
		if err != nil {
			return Client{}, Credential{}, fmt.Errorf("look for a key: %w", err)
		}
	}
	c, err := r.Get(ctx, id)
	if err != nil {
		return Client{}, Credential{}, err
	}
	i := slices.IndexFunc(c.Credentials, func(k Credential) bool { return k.digest == sum && k.isKey() })
	if i < 0 || !c.Credentials[i].good(r.config.Now()) {
		return Client{}, Credential{}, ErrUnknown
	}
	k := c.Credentials[i]
	k.Scopes = c.Allowed(k.Scopes)
	r.known.hold(sum, id)
	r.used(ctx, k)
	return c, k, nil
}
