package test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/eventstore"
	"usher.example/internal/devstack"
	"usher.example/subscription"
)

// copyOf is a service's copy of the events, with its checkpoint.
type copyOf struct {
	mu     sync.Mutex
	events []uuid.UUID // ids, by position from 1
}

func (c *copyOf) checkpoint(context.Context) (int64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return int64(len(c.events)), nil
}

func (c *copyOf) handle(_ context.Context, events []eventstore.Event) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range events {
		if e.Position != int64(len(c.events))+1 {
			return subscription.Final(fmt.Errorf("position %d after %d", e.Position, len(c.events)))
		}
		c.events = append(c.events, e.ID)
	}
	return nil
}

// follow runs a service's subscription until it has a position, and answers with what Run came to.
func (c *copyOf) follow(t *testing.T, url string, position int64) error {
	t.Helper()
	conn, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s := subscription.Subscription{JetStream: js, Name: "billing", Checkpoint: c.checkpoint, Handle: func(ctx context.Context, events []eventstore.Event) error {
		err := c.handle(ctx, events)
		if at, _ := c.checkpoint(ctx); at >= position {
			time.AfterFunc(200*time.Millisecond, cancel) // the acknowledgement goes out first
		}
		return err
	}}
	return s.Run(ctx)
}

// The database is restored to an earlier point. The relay refuses to go on, `usher outbox reset` mends it, and a service
// that had read further is told.
func TestRestore(t *testing.T) {
	t.Parallel()
	server := devstack.OwnPostgres(t, devstack.PostgresOptions{})
	admin := func(sql string) {
		t.Helper()
		conn, err := pgx.Connect(t.Context(), server.DSN("postgres"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err = conn.Exec(t.Context(), sql); errors.Join(err, conn.Close(t.Context())) != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	admin("CREATE DATABASE usher")
	if err := migrate(t.Context(), server.DSN("usher")); err != nil {
		t.Fatal(err)
	}
	d := newServeDeployment(t, server.DSN("usher"), devstack.NATSProcess(t, t.TempDir(), 0).URL())
	billing := &copyOf{}

	p, c := d.startServe("--with", "publisher,projections")
	for i := range 5 {
		c.mustRegister(t, fmt.Sprintf("before-%d@example.org", i))
	}
	p.stop(t)
	admin("CREATE DATABASE backup TEMPLATE usher")
	backedUp := int64(len(d.history()))

	p, c = d.startServe("--with", "publisher,projections")
	var lost registration
	for i := range 5 {
		lost = c.mustRegister(t, fmt.Sprintf("lost-%d@example.org", i))
	}
	if err := billing.follow(t, d.natsURL, lost.position); err != nil {
		t.Fatal(err)
	}
	p.stop(t)

	admin("DROP DATABASE usher")
	admin("ALTER DATABASE backup RENAME TO usher")
	p, c = d.startServe("--with", "publisher,projections")
	after := c.mustRegister(t, "after@example.org") // at a position at which the stream has another event
	if after.position > lost.position {
		t.Fatalf("registered at %d, which tests nothing: the stream is at %d", after.position, lost.position)
	}
	eventually(t, "the relay has halted", func() error {
		var status struct{ State, Error string }
		if err := json.Unmarshal([]byte(d.command("outbox", "status", "--json")), &status); err != nil {
			return err
		}
		if status.State != "halted" || !strings.Contains(status.Error, "ahead of the log") {
			return fmt.Errorf("it is %+v", status)
		}
		return nil
	})
	if out, _, err := d.try("check", "--component", "outbox"); err == nil || !strings.Contains(out, "usher outbox reset") {
		t.Errorf("usher check: %v\n%s", err, out)
	}

	d.command("outbox", "reset", "--yes")
	eventually(t, "the relay goes on", func() error { return d.caughtUp(after.position) })
	var restored *subscription.RestoredError
	if err := billing.follow(t, d.natsURL, after.position); !errors.As(err, &restored) || restored.After < backedUp || restored.After >= after.position {
		t.Fatalf("the service's subscription: %v, want it told that the log was restored to %d or a little more", err, backedUp)
	}
	// It takes back what it made of the events after that, and goes on.
	billing.events = billing.events[:restored.After]
	if err := billing.follow(t, d.natsURL, after.position); err != nil {
		t.Fatal(err)
	}
	var ids []uuid.UUID
	for _, e := range d.history() {
		ids = append(ids, uuid.MustParse(e.ID))
	}
	if got := billing.events; !slices.Equal(got, ids[:len(got)]) || int64(len(got)) < after.position {
		t.Errorf("the service's copy has %d events, which are not those of the log", len(got))
	}
	p.stop(t)
}
