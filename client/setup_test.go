package client

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"testing"

	"usher.example/eventstore"
	"usher.example/eventstore/postgres"
	"usher.example/eventstore/sqlite"
	"usher.example/internal/devstack"
	"usher.example/internal/eventcheck"
	"usher.example/schema"
)

func TestMain(m *testing.M) { os.Exit(devstack.Main(m)) }

// onBoth runs a test on SQLite and on Postgres.
func onBoth(t *testing.T, test func(t *testing.T, r *Registry)) {
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		db, err := sqlite.Open(t.Context(), devstack.SQLite(t, "client", func(ctx context.Context, path string) error { return migrate(ctx, schema.SQLite, path) }))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(db.Close)
		test(t, registry(t, db))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		dsn := devstack.Database(t, "client", func(ctx context.Context, dsn string) error { return migrate(ctx, schema.Postgres, dsn) })
		db, err := postgres.Open(t.Context(), dsn, postgres.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(db.Close)
		test(t, registry(t, db))
	})
}

// database is what both stores are.
type database interface {
	eventstore.Store
	eventstore.DB
}

// registry is that of a process which keeps nothing in memory.
func registry(t *testing.T, db database) *Registry {
	t.Helper()
	master, _ := eventstore.NewMasterKey()
	log := eventstore.New(eventcheck.Store(t, db), master, eventstore.Options{})
	t.Cleanup(func() {
		if err := log.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return New(Config{Log: log, DB: db})
}

func migrate(ctx context.Context, open func(string) (*schema.Migrator, error), database string) error {
	m, err := open(database)
	if err != nil {
		return err
	}
	_, err = m.Up(ctx)
	return errors.Join(err, m.Close())
}

func logTo(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }
