package client

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity"
)

// reads counts the statements that are sent to a database.
type reads struct {
	eventstore.DB
	n atomic.Int64
}

func (r *reads) Query(ctx context.Context, sql string, args ...any) (eventstore.Rows, error) {
	r.n.Add(1)
	return r.DB.Query(ctx, sql, args...)
}

// The origins of all clients are allowed as long as there is a client that names them, and asking for them costs one statement until
// a client changes.
func TestAllowsOrigin(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, r *Registry) {
		db := &reads{DB: r.config.DB}
		current := true
		kept := New(Config{Log: r.config.Log, DB: db, Current: func() bool { return current }})
		want := func(when, origin string, want bool, statements int64) {
			t.Helper()
			before := db.n.Load()
			got, err := kept.AllowsOrigin(t.Context(), origin)
			if err != nil || got != want || db.n.Load()-before != statements {
				t.Errorf("%s: AllowsOrigin(%s) = %v, %v with %d statements, want %v with %d", when, origin, got, err, db.n.Load()-before, want, statements)
			}
		}
		const app, other = "https://app.example", "https://other.example"
		want("without a client", app, false, 1)
		want("once more", other, false, 0)

		settings := identity.ClientSettings{Name: "app", RedirectURIs: []string{app + "/cb"}, AllowedOrigins: []string{app}}
		c, _ := add(t, kept, settings)
		want("with a client", app, true, 1)
		want("of nobody", other, false, 0)
		// As another process does, of which the log tells.
		if _, _, err := r.Change(t.Context(), c.ID, by(), nil, func(s *identity.ClientSettings) { s.AllowedOrigins = []string{other} }); err != nil {
			t.Fatal(err)
		}
		kept.Changed(c.ID)
		want("after a change", app, false, 1)
		want("after a change", other, true, 0)
		kept.Changed(uuid.Nil)
		want("where any may have changed", other, true, 1)

		current = false
		want("while the log is not followed", other, true, 1)
		if _, err := r.Remove(t.Context(), c.ID, by(), nil); err != nil {
			t.Fatal(err)
		}
		want("removed, while the log is not followed", other, false, 1)

		cancelled, cancel := context.WithCancel(t.Context())
		cancel()
		kept.reading <- struct{}{} // somebody reads
		if _, err := kept.AllowsOrigin(cancelled, other); !errors.Is(err, context.Canceled) {
			t.Errorf("a caller that is gone waits: %v", err)
		}
	})
}
