package postgres_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"usher/eventstore"
	"usher/eventstore/postgres"
)

// turns counts the round trips of connections: how often one is written to after it was last read from.
type turns struct{ n atomic.Int64 }

func (t *turns) configure(c *pgxpool.Config) {
	dial := c.ConnConfig.DialFunc
	c.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		return &countingConn{Conn: conn, turns: t}, err
	}
}

type countingConn struct {
	net.Conn
	turns   *turns
	mu      sync.Mutex
	writing bool
}

func (c *countingConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	if !c.writing {
		c.writing = true
		c.turns.n.Add(1)
	}
	c.mu.Unlock()
	return c.Conn.Write(b)
}

func (c *countingConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.mu.Lock()
	c.writing = false
	c.mu.Unlock()
	return n, err
}

// registration is an append with everything that one can have.
func registration() eventstore.Append {
	user := uuid.Must(uuid.NewV7())
	return eventstore.Append{
		Stream:    eventstore.UserStream(user),
		Events:    []eventstore.NewEvent{{Type: "user.registered", Personal: []byte(`{"email":"a@example.org"}`)}},
		Metadata:  eventstore.Metadata{Correlation: user, Address: "192.0.2.1"},
		Reserve:   []eventstore.Reservation{{Scope: "email", Value: user.String()}},
		CommandID: uuid.New(),
		CreateKey: true,
		State: []eventstore.StateChange{{Table: "credentials", New: true,
			Row: fmt.Appendf(nil, `{"user_id":"%s","hash":"h","changed_at":"2026-01-01T00:00:00Z"}`, user)}},
	}
}

func TestOneRoundTripAnAppend(t *testing.T) {
	t.Parallel()
	var count turns
	s := open(t, migrated(t), postgres.Options{Configure: count.configure})
	log := newLog(s)
	if _, err := log.Append(t.Context(), registration()); err != nil { // connects, and prepares the statement
		t.Fatal(err)
	}
	const appends = 20
	before := count.n.Load()
	for range appends {
		if _, err := log.Append(t.Context(), registration()); err != nil {
			t.Fatal(err)
		}
	}
	if got := count.n.Load() - before; got != appends {
		t.Errorf("%d appends took %d round trips, want %d", appends, got, appends)
	}
}

// Appends that wait while a commit is on its way share the next one, in one transaction.
func TestAppendsShareACommit(t *testing.T) {
	t.Parallel()
	dsn := migrated(t)
	var count turns
	s := open(t, dsn, postgres.Options{Configure: count.configure})
	log := newLog(s)
	if _, err := log.Append(t.Context(), registration()); err != nil {
		t.Fatal(err)
	}
	// Another session holds the lock of the log: the first append waits for it in the server, the others here.
	other := open(t, dsn, postgres.Options{})
	const appends = 100
	var group sync.WaitGroup
	errs := make(chan error, appends)
	var before int64
	err := other.Transact(t.Context(), func(tx eventstore.DB) error {
		if _, err := tx.Exec(t.Context(), "SELECT pg_advisory_xact_lock(7236001)"); err != nil {
			return err
		}
		before = count.n.Load()
		for range appends {
			group.Go(func() {
				_, err := log.Append(t.Context(), registration())
				errs <- err
			})
		}
		for log.Waiting() < appends-1 {
			if t.Context().Err() != nil {
				return t.Context().Err()
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	group.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
	if got := count.n.Load() - before; got != 2 {
		t.Errorf("%d appends at once took %d round trips, want 2: the first alone, the others together", appends, got)
	}
}
