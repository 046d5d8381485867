package postgres_test

import (
	"context"
	"errors"
	"os"
	"testing"

	"usher.example/eventstore"
	"usher.example/eventstore/postgres"
	"usher.example/eventstore/storetest"
	"usher.example/internal/devstack"
	"usher.example/schema"
)

var backend = storetest.Backend{
	Fresh: migrated,
	Open: func(ctx context.Context, dsn string) (storetest.Database, error) {
		return postgres.Open(ctx, dsn, postgres.Options{})
	},
}

func TestMain(m *testing.M) {
	storetest.Child(backend)
	os.Exit(devstack.Main(m))
}

func TestStore(t *testing.T)      { storetest.Run(t, backend) }
func BenchmarkStore(b *testing.B) { storetest.Bench(b, backend) }

// migrated makes a migrated database and answers with its DSN.
func migrated(tb testing.TB) string {
	tb.Helper()
	return devstack.Database(tb, "log", migrate)
}

func migrate(ctx context.Context, dsn string) error {
	m, err := schema.Postgres(dsn)
	if err != nil {
		return err
	}
	_, err = m.Up(ctx)
	return errors.Join(err, m.Close())
}

func open(tb testing.TB, dsn string, o postgres.Options) *postgres.Store {
	tb.Helper()
	s, err := postgres.Open(tb.Context(), dsn, o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Close)
	return s
}

func newLog(s eventstore.Store) *eventstore.Log {
	master, _ := eventstore.NewMasterKey()
	return eventstore.New(s, master, eventstore.Options{})
}
