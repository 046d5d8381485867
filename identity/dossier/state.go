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

// kept is what the state tables have of a user.
type kept struct {
	User     *identity.User        `json:"user"`
	Sessions []identity.Session    `json:"sessions"` // that go on
	Consents []Consent             `json:"consents"` // to clients
	Password *Password             `json:"password,omitempty"`
	Factors  []Factor              `json:"factors"`
	Devices  []Device              `json:"devices"`
	Logins   []Origin              `json:"login_origins"`
	Codes    []Code                `json:"codes"`
	Mails    []Mail                `json:"mails"`
	Throttle []identity.Throttling `json:"throttle"`
	Import   *Import               `json:"import,omitempty"`
}

// Password says that there is one.
type Password struct {
	ChangedAt time.Time `json:"changed_at"`
}

// Factor is a second factor: one-time passwords, or the recovery codes together.
type Factor struct {
	Kind        string     `json:"kind"`
	CreatedAt   time.Time  `json:"created_at"`
	ConfirmedAt *time.Time `json:"confirmed_at,omitempty"` // nil for one that was never used
}

// Device is one that is known again at a login.
type Device struct {
	ID         uuid.UUID `json:"id"`
	CreatedAt  time.Time `json:"created_at"`
	LastUsedAt time.Time `json:"last_used_at"`
}

// Origin is a user agent at an address that a login came from, by which notices of new ones are decided. Which ones they are is
// kept as a hash alone; the events say so.
type Origin struct {
	FirstAt time.Time `json:"first_at"`
	LastAt  time.Time `json:"last_at"`
}

// Code is that of a mail.
type Code struct {
	Purpose   identity.Purpose `json:"purpose"`
	CreatedAt time.Time        `json:"created_at"`
	ExpiresAt time.Time        `json:"expires_at"`
	UsedAt    *time.Time       `json:"used_at,omitempty"` // nil for one that was not used
}

// Mail is one that is still to be sent.
type Mail struct {
	Kind     string    `json:"kind"`
	Position int64     `json:"position"` // of the event that it is about
	DueAt    time.Time `json:"due_at"`
	Attempts int       `json:"attempts"`
}

// Import is what is kept of an import, to tell what another one changes.
type Import struct {
	ChangedAt *time.Time `json:"changed_at,omitempty"` // of the password
	Status    string     `json:"status"`
}

// kept reads the state tables.
func (a Archive) kept(ctx context.Context, user, current uuid.UUID) (k kept, err error) {
	if k.User, err = a.Users.ReadUser(ctx, user); err != nil {
		return k, err
	}
	if k.Consents, err = a.consents(ctx, k.User); err != nil {
		return k, err
	}
	if k.Sessions, err = a.Users.Sessions(ctx, user, current); err != nil {
		return k, err
	}
	if k.Throttle, err = a.Users.Throttled(ctx, user); err != nil {
		return k, err
	}
	if k.Password, err = one(ctx, a.DB, user, `SELECT changed_at FROM credentials WHERE user_id = $1`, func(p *Password) []any { return []any{&p.ChangedAt} }); err != nil {
		return k, err
	}
	k.Factors, err = list(ctx, a.DB, user, `SELECT kind, created_at, confirmed_at FROM factors WHERE user_id = $1 ORDER BY kind`,
		func(f *Factor) []any { return []any{&f.Kind, &f.CreatedAt, &f.ConfirmedAt} })
	if err != nil {
		return k, err
	}
	k.Devices, err = list(ctx, a.DB, user, `SELECT device_id, created_at, used_at FROM known_devices WHERE user_id = $1 ORDER BY created_at, device_id`,
		func(d *Device) []any { return []any{&d.ID, &d.CreatedAt, &d.LastUsedAt} })
	if err != nil {
		return k, err
	}
	k.Logins, err = list(ctx, a.DB, user, `SELECT first_at, last_at FROM devices WHERE user_id = $1 ORDER BY first_at, last_at`,
		func(o *Origin) []any { return []any{&o.FirstAt, &o.LastAt} })
	if err != nil {
		return k, err
	}
	k.Codes, err = list(ctx, a.DB, user, `SELECT purpose, created_at, expires_at, used_at FROM codes WHERE user_id = $1 ORDER BY created_at, purpose`,
		func(c *Code) []any { return []any{&c.Purpose, &c.CreatedAt, &c.ExpiresAt, &c.UsedAt} })
	if err != nil {
		return k, err
	}
	k.Mails, err = list(ctx, a.DB, user, `SELECT kind, position, due_at, attempts FROM mails WHERE user_id = $1 ORDER BY position`,
		func(m *Mail) []any { return []any{&m.Kind, &m.Position, &m.DueAt, &m.Attempts} })
	if err != nil {
		return k, err
	}
	k.Import, err = one(ctx, a.DB, user, `SELECT changed_at, status FROM imported_users WHERE user_id = $1`, func(i *Import) []any { return []any{&i.ChangedAt, &i.Status} })
	return k, err
}

// list reads the rows of a user, each into the columns of a T.
func list[T any](ctx context.Context, db eventstore.DB, user uuid.UUID, sql string, columns func(*T) []any) ([]T, error) {
	rows, err := db.Query(ctx, sql, user)
	if err != nil {
		return nil, fmt.Errorf("read what is kept: %w", err)
	}
	defer rows.Close()
	all := []T{}
	for rows.Next() {
		var t T
		into := columns(&t)
		if err := rows.Scan(into...); err != nil {
			return nil, fmt.Errorf("read what is kept: %w", err)
		}
		inUTC(into)
		all = append(all, t)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read what is kept: %w", err)
	}
	return all, nil
}

// one reads the row of a user; nil where there is none.
func one[T any](ctx context.Context, db eventstore.DB, user uuid.UUID, sql string, columns func(*T) []any) (*T, error) {
	var t T
	into := columns(&t)
	err := db.QueryRow(ctx, sql, user).Scan(into...)
	if errors.Is(err, eventstore.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what is kept: %w", err)
	}
	inUTC(into)
	return &t, nil
}

// inUTC has every time that was read say so in UTC, wherever the database is.
func inUTC(columns []any) {
	for _, c := range columns {
		switch t := c.(type) {
		case *time.Time:
			*t = t.UTC()
		case **time.Time:
			if *t != nil {
				utc := (*t).UTC()
				*t = &utc
			}
		}
	}
}
