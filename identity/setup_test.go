package identity

import (
	"context"
	"encoding/json"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/eventstore/postgres"
	"usher.example/eventstore/sqlite"
	"usher.example/identity/password"
	"usher.example/internal/devstack"
	"usher.example/internal/eventcheck"
	"usher.example/schema"
)

func TestMain(m *testing.M) { os.Exit(devstack.Main(m)) }

// onBoth runs a test on SQLite and on Postgres.
func onBoth(t *testing.T, test func(t *testing.T, d *database)) {
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		path := devstack.SQLite(t, "identity", func(ctx context.Context, path string) error {
			migrate(ctx, t, func() (*schema.Migrator, error) { return schema.SQLite(path) })
			return nil
		})
		s, err := sqlite.Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		test(t, newDatabase(t, s, s))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		dsn := devstack.Database(t, "identity", func(ctx context.Context, dsn string) error {
			migrate(ctx, t, func() (*schema.Migrator, error) { return schema.Postgres(dsn) })
			return nil
		})
		s, err := postgres.Open(t.Context(), dsn, postgres.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		test(t, newDatabase(t, s, s))
	})
}

func migrate(ctx context.Context, t *testing.T, open func() (*schema.Migrator, error)) {
	t.Helper()
	m, err := open()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Up(ctx); err != nil {
		t.Error(err)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}

// database is a migrated database that several services can use, as processes would. It has no read models at all.
type database struct {
	counted
	db     eventstore.DB
	master eventstore.MasterKey
}

func newDatabase(t *testing.T, s eventstore.Store, db eventstore.DB) *database {
	master, _ := eventstore.NewMasterKey()
	return &database{counted: counted{Store: eventcheck.Store(t, s), streams: new(atomic.Int64), read: new(atomic.Int64)}, db: db, master: master}
}

// counted counts the reads of streams, and the events that they answered with.
type counted struct {
	eventstore.Store
	streams, read *atomic.Int64
}

func (c counted) ReadStream(ctx context.Context, stream uuid.UUID, after, limit int) ([]eventstore.Event, error) {
	events, err := c.Store.ReadStream(ctx, stream, after, limit)
	c.streams.Add(1)
	c.read.Add(int64(len(events)))
	return events, err
}

// service makes a service with a log of its own, as another process has it.
func (d *database) service(t *testing.T, change func(*Config)) *Service {
	t.Helper()
	log := eventstore.New(d.counted, d.master, eventstore.Options{})
	t.Cleanup(func() {
		if err := log.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	c := Config{Log: log, Store: d.counted, DB: d.db, Rehash: true, RefreshKey: d.master.Derive("refresh-tokens"), CodeKey: d.master.Derive("codes"), ReuseGrace: 10 * time.Second}
	if change != nil {
		change(&c)
	}
	if c.Passwords == nil {
		c.Passwords = pool(t, password.MinCost)
	}
	return New(c)
}

func pool(t *testing.T, cost int) *password.Pool {
	t.Helper()
	p, err := password.NewPool(password.PoolConfig{Cost: cost})
	if err != nil {
		t.Fatal(err)
	}
	devstack.Background(t, p.Run)
	return p
}

// events reads the whole log.
func (d *database) events(t *testing.T, s *Service) []eventstore.Event {
	t.Helper()
	events, err := s.log.ReadAll(t.Context(), 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	return events
}

func types(events []eventstore.Event) []string {
	list := make([]string, len(events))
	for i, e := range events {
		list[i] = e.Type
	}
	return list
}

func mustRegister(t *testing.T, s *Service, email string) *User {
	t.Helper()
	r, err := s.Register(t.Context(), Registration{Email: email, Password: secret, Name: "Ada"})
	if err != nil {
		t.Fatal(err)
	}
	return r.User
}

// appendTo appends to a user's stream as another process would: this service's memory is not told.
func (d *database) appendTo(t *testing.T, s *Service, id uuid.UUID, p Payload) {
	t.Helper()
	_, err := s.log.Append(t.Context(), eventstore.Append{
		Stream: eventstore.UserStream(id), Expected: eventstore.AnyVersion, Events: []eventstore.NewEvent{NewEvent(p)},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// forgive has the throttle forget everything.
func (d *database) forgive(t *testing.T) {
	t.Helper()
	if _, err := d.db.Exec(t.Context(), `DELETE FROM throttle`); err != nil {
		t.Fatal(err)
	}
}

const secret password.Password = "correct horse battery staple"

func encoded(t *testing.T, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}
