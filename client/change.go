package client

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity"
)

const (
	// maxSecrets is how many secrets of a client are good at once: two, so that the next is in use before the last one goes.
	maxSecrets = 2
	// MaxKeys is how many keys a client can have.
	MaxKeys = 50
	// maxKeyYears bounds how long a key is good.
	maxKeyYears = 5
)

// scopeName is the scope of reservations of names.
const scopeName = "client"

// Add registers a client, with a secret unless it is public or signs, which can't be read again. What is left out of the settings is
// completed. It fails with an *identity.Error, or as eventstore.Log.Append does. A command id that is known already fails with an
// *identity.Error of CodeConflict: the secret of the first time is not here any more.
func (r *Registry) Add(ctx context.Context, s identity.ClientSettings, command uuid.UUID, m eventstore.Metadata) (Client, Secret, eventstore.Result, error) {
	s = complete(s)
	if err := check(s); err != nil {
		return Client{}, "", eventstore.Result{}, err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return Client{}, "", eventstore.Result{}, err
	}
	now := r.now()
	c := Client{ID: id, ClientSettings: s, Credentials: []Credential{}, CreatedAt: now, ChangedAt: now}
	d := decision{after: c, events: []identity.Payload{identity.ClientRegistered{ClientSettings: s}}, reserve: []eventstore.Reservation{reserveName(s.Name)}}
	var secret Secret
	if c.hasSecret() {
		if secret, err = d.add(newSecret(), Credential{Kind: identity.SecretShared}, now); err != nil {
			return Client{}, "", eventstore.Result{}, err
		}
	}
	result, err := r.append(ctx, c, d, command, m)
	if err == nil && result.Repeated {
		err = &identity.Error{Code: identity.CodeConflict, Detail: "this was done already, and its secret is shown only once; give the client another one"}
	}
	if err != nil {
		return Client{}, "", eventstore.Result{}, err
	}
	d.after.version = result.Version
	return d.after, secret, result, nil
}

func (c Client) hasSecret() bool {
	return c.Authentication == AuthenticationBasic || c.Authentication == AuthenticationPost
}

// Permit says whether whoever asks may do something to a client. It is asked of the client before and after. Everybody may when nil.
type Permit func(Client) error

// Change sets what is set of a client anew. change gets what it is, and is called again where the client changed meanwhile. A client
// that signs from then on, or is public, has no secrets any more. It fails with ErrUnknown, with the error of permit, with an
// *identity.Error, or as eventstore.Log.Append does.
func (r *Registry) Change(ctx context.Context, id uuid.UUID, m eventstore.Metadata, permit Permit, change func(*identity.ClientSettings)) (Client, eventstore.Result, error) {
	return r.change(ctx, id, m, permit, func(d *decision) error {
		before := d.after.ClientSettings
		change(&d.after.ClientSettings)
		d.after.ClientSettings = complete(d.after.ClientSettings)
		if err := check(d.after.ClientSettings); err != nil {
			return err
		}
		if same(before, d.after.ClientSettings) {
			return nil
		}
		if name := d.after.Name; name != before.Name {
			d.reserve, d.release = []eventstore.Reservation{reserveName(name)}, []eventstore.Reservation{reserveName(before.Name)}
		}
		d.events = append(d.events, identity.ClientChanged{ClientSettings: d.after.ClientSettings})
		if !d.after.hasSecret() {
			d.retire(func(c Credential) bool { return !c.isKey() })
		}
		return nil
	})
}

func same(a, b identity.ClientSettings) bool {
	return string(encode(a)) == string(encode(b))
}

// Rotate gives a client another secret. The last one before it goes on to be good, until it is retired or the next comes. It fails as
// Change does.
func (r *Registry) Rotate(ctx context.Context, id uuid.UUID, m eventstore.Metadata, permit Permit) (c Client, secret Secret, result eventstore.Result, err error) {
	c, result, err = r.change(ctx, id, m, permit, func(d *decision) (err error) {
		if !d.after.hasSecret() {
			return refuse("the client has no secrets: its authentication is %s", d.after.Authentication)
		}
		secrets := slices.DeleteFunc(slices.Clone(d.after.Credentials), Credential.isKey)
		if more := len(secrets) - maxSecrets + 1; more > 0 {
			d.retire(func(c Credential) bool {
				return slices.ContainsFunc(secrets[:more], func(old Credential) bool { return old.ID == c.ID })
			})
		}
		secret, err = d.add(newSecret(), Credential{Kind: identity.SecretShared}, r.now())
		return err
	})
	return c, secret, result, err
}

// AddKey gives a client a key, of scopes that the client has, which is good until a time; for ever where that is zero. It fails as
// Change does.
func (r *Registry) AddKey(ctx context.Context, id uuid.UUID, scopes []string, until time.Time, m eventstore.Metadata, permit Permit) (c Client, key Secret, of Credential, result eventstore.Result, err error) {
	c, result, err = r.change(ctx, id, m, permit, func(d *decision) (err error) {
		now := r.now()
		of = Credential{Kind: identity.SecretKey, Scopes: scopes}
		if !until.IsZero() {
			expires := until.UTC().Truncate(time.Microsecond)
			if of.ExpiresAt = &expires; !expires.After(now) || expires.After(now.AddDate(maxKeyYears, 0, 0)) {
				return refuse("a key is good until some time of the next %d years", maxKeyYears)
			}
		}
		if err := d.after.checkKeyScopes(scopes); err != nil {
			return err
		}
		if n := len(slices.DeleteFunc(slices.Clone(d.after.Credentials), func(c Credential) bool { return !c.isKey() })); n >= MaxKeys {
			return refuse("the client has %d keys already; retire some", n)
		}
		if key, err = d.add(newKey(), of, now); err == nil {
			of = d.after.Credentials[len(d.after.Credentials)-1]
		}
		return err
	})
	return c, key, of, result, err
}

func (c Client) checkKeyScopes(scopes []string) error {
	if len(scopes) == 0 {
		return refuse("a key needs a scope; the client has %s", listed(c.Allowed(ServiceScopes)))
	}
	for _, scope := range scopes {
		if !slices.Contains(ServiceScopes, scope) || !slices.Contains(c.Scopes, scope) {
			return refuse("the scope %q is none that a key of this client can have; it can have %s", scope, listed(c.Allowed(ServiceScopes)))
		}
	}
	return nil
}

// Retire has one secret or key of a client be of no use any more. It fails as Change does; with ErrUnknown too where the client has no
// such one.
func (r *Registry) Retire(ctx context.Context, id, credential uuid.UUID, m eventstore.Metadata, permit Permit) (Client, eventstore.Result, error) {
	return r.change(ctx, id, m, permit, func(d *decision) error {
		if d.retire(func(c Credential) bool { return c.ID == credential }) == 0 {
			return ErrUnknown
		}
		return nil
	})
}

// Remove ends a client: its secrets, keys and tokens are of no use from then on. It fails as Change does.
func (r *Registry) Remove(ctx context.Context, id uuid.UUID, m eventstore.Metadata, permit Permit) (eventstore.Result, error) {
	_, result, err := r.change(ctx, id, m, permit, func(d *decision) error {
		for _, c := range d.after.Credentials {
			d.state = append(d.state, dropSecret(c.ID))
		}
		d.events = append(d.events, identity.ClientRemoved{})
		d.release = append(d.release, reserveName(d.after.Name))
		d.removed = true
		return nil
	})
	return result, err
}

// decision is what a command does to a client.
type decision struct {
	after            Client
	removed          bool
	events           []identity.Payload
	state            []eventstore.StateChange
	reserve, release []eventstore.Reservation
}

// add adds a secret or a key.
func (d *decision) add(secret Secret, c Credential, now time.Time) (Secret, error) {
	var err error
	if c.ID, err = uuid.NewV7(); err != nil {
		return "", err
	}
	c.Prefix, c.CreatedAt, c.digest = secret.prefix(), now, secret.digest()
	if c.Scopes == nil {
		c.Scopes = []string{}
	}
	e := identity.ClientSecretAdded{Secret: c.ID, Kind: c.Kind, Prefix: c.Prefix, Scopes: c.Scopes}
	if c.ExpiresAt != nil {
		e.ExpiresAt = *c.ExpiresAt
	}
	d.events = append(d.events, e)
	d.state = append(d.state, eventstore.StateChange{Table: "client_secrets", New: true, Row: encode(secretRow{
		ID: c.ID, Client: d.after.ID, Kind: c.Kind, Hash: `\x` + hex.EncodeToString(c.digest[:]), Prefix: c.Prefix, Scopes: c.Scopes,
		CreatedAt: c.CreatedAt, ExpiresAt: c.ExpiresAt,
	})})
	d.after.Credentials = append(slices.Clone(d.after.Credentials), c)
	return secret, nil
}

// retire retires some, and says how many.
func (d *decision) retire(which func(Credential) bool) (n int) {
	left := []Credential{}
	for _, c := range d.after.Credentials {
		if !which(c) {
			left = append(left, c)
			continue
		}
		d.events = append(d.events, identity.ClientSecretRetired{Secret: c.ID})
		d.state = append(d.state, dropSecret(c.ID))
		n++
	}
	d.after.Credentials = left
	return n
}

// clientRow and secretRow are rows of state tables.
type clientRow struct {
	ID        uuid.UUID               `json:"client_id"`
	Name      string                  `json:"name"`
	CreatedAt time.Time               `json:"created_at"`
	Version   int                     `json:"version"`
	Settings  identity.ClientSettings `json:"settings"`
	ChangedAt time.Time               `json:"changed_at"`
}

type secretRow struct {
	ID        uuid.UUID  `json:"secret_id"`
	Client    uuid.UUID  `json:"client_id"`
	Kind      string     `json:"kind"`
	Hash      string     `json:"hash"`
	Prefix    string     `json:"prefix"`
	Scopes    []string   `json:"scopes"`
	CreatedAt time.Time  `json:"created_at"`
	ExpiresAt *time.Time `json:"expires_at"`
	UsedAt    *time.Time `json:"used_at"`
}

func dropSecret(id uuid.UUID) eventstore.StateChange {
	return eventstore.StateChange{Table: "client_secrets", Delete: true, Row: encode(map[string]any{"secret_id": id})}
}

func encode(v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil { // rows hold nothing that JSON can't express
		panic(err)
	}
	return raw
}

func reserveName(name string) eventstore.Reservation {
	return eventstore.Reservation{Scope: scopeName, Value: name}
}

// changeTries bounds how often a command is decided again after it lost a race.
const changeTries = 16

// change decides on what a client is and appends what was decided, again where the client changed meanwhile. A decision without
// events is done already.
func (r *Registry) change(ctx context.Context, id uuid.UUID, m eventstore.Metadata, permit Permit, decide func(*decision) error) (Client, eventstore.Result, error) {
	if permit == nil {
		permit = func(Client) error { return nil }
	}
	for try := 1; ; try++ {
		c, err := r.Read(ctx, id)
		if err != nil {
			return Client{}, eventstore.Result{}, err
		}
		if c.version == 0 {
			if err := r.adopt(ctx, c); err != nil || try == changeTries {
				return Client{}, eventstore.Result{}, err
			}
			continue
		}
		d := decision{after: c}
		if err = permit(c); err == nil {
			err = decide(&d)
		}
		if err == nil && len(d.events) > 0 {
			err = permit(d.after)
		}
		if err != nil {
			return Client{}, eventstore.Result{}, err
		}
		if len(d.events) == 0 {
			return c, eventstore.Result{Version: c.version, Unchanged: true}, nil
		}
		d.after.ChangedAt = r.now()
		result, err := r.append(ctx, c, d, uuid.Nil, m)
		if errors.Is(err, eventstore.ErrWrongExpectedVersion) && try < changeTries {
			continue
		}
		d.after.version = result.Version
		return d.after, result, err
	}
}

// append appends what was decided on a client.
func (r *Registry) append(ctx context.Context, before Client, d decision, command uuid.UUID, m eventstore.Metadata) (eventstore.Result, error) {
	// Whatever the answer is, the events may have been written.
	defer r.known.drop(before.ID)
	m.Address, m.UserAgent = "", "" // of whom there is no key to seal them with
	version := before.version + len(d.events)
	row := clientRow{ID: d.after.ID, Name: d.after.Name, CreatedAt: d.after.CreatedAt, Version: version, Settings: d.after.ClientSettings, ChangedAt: d.after.ChangedAt}
	change := eventstore.StateChange{Table: "clients", Row: encode(row)}
	if d.removed {
		change = eventstore.StateChange{Table: "clients", Delete: true, Row: encode(map[string]any{"client_id": d.after.ID})}
	}
	events := make([]eventstore.NewEvent, len(d.events))
	for i, payload := range d.events {
		events[i] = identity.NewEvent(payload)
	}
	result, err := r.config.Log.Append(ctx, eventstore.Append{
		Stream: eventstore.ClientStream(d.after.ID), Expected: eventstore.Expected(before.version), Events: events, Metadata: m,
		CommandID: command, Reserve: d.reserve, Release: d.release, State: append(d.state, change),
	})
	if errors.Is(err, eventstore.ErrReserved) {
		err = ErrName
	}
	return result, err
}

// Adopt begins the streams of the clients that are from before clients were streams. Several processes may do so at once. It fails as
// the database or eventstore.Log.Append does.
func (r *Registry) Adopt(ctx context.Context) error {
	list, err := r.list(ctx, `WHERE version = 0 ORDER BY name`)
	for _, c := range list {
		err = errors.Join(err, r.adopt(ctx, c))
	}
	return err
}

func (r *Registry) adopt(ctx context.Context, c Client) error {
	d := decision{after: c, events: []identity.Payload{identity.ClientRegistered{ClientSettings: c.ClientSettings}}, reserve: []eventstore.Reservation{reserveName(c.Name)}}
	for _, s := range c.Credentials {
		d.events = append(d.events, identity.ClientSecretAdded{Secret: s.ID, Kind: s.Kind, Prefix: s.Prefix, Scopes: s.Scopes})
	}
	_, err := r.append(ctx, c, d, uuid.Nil, eventstore.Metadata{Correlation: c.ID, Actor: identity.ActorSystem})
	if err != nil && !errors.Is(err, eventstore.ErrWrongExpectedVersion) { // which is that another process did
		return fmt.Errorf("begin the stream of client %s: %w", c.Name, err)
	}
	return nil
}

func (r *Registry) now() time.Time { return r.config.Now().UTC().Truncate(time.Microsecond) }

// listed is scopes as an error names them.
func listed(scopes []string) string { return cmp.Or(strings.Join(scopes, ", "), "none") }
