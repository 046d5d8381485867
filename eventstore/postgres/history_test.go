package postgres_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"usher.example/eventstore"
	"usher.example/eventstore/postgres"
	"usher.example/internal/devstack"
)

// A lease does not outlive the history of the database that it was acquired in: its holder is told so once, and may acquire it anew.
func TestLeaseOfAnotherHistory(t *testing.T) {
	t.Parallel()
	s := open(t, migrated(t), postgres.Options{})
	lease := &eventstore.Lease{DB: s, Name: "work", Holder: "ada", TTL: time.Minute}
	acquire := func(l *eventstore.Lease, want bool) {
		t.Helper()
		if held, err := l.Acquire(t.Context()); held != want || err != nil {
			t.Errorf("Acquire() = %v, %v, want %v", held, err, want)
		}
	}
	acquire(lease, true)
	acquire(lease, true)
	history := func(text string) {
		t.Helper()
		if _, err := s.Exec(t.Context(), "CREATE OR REPLACE FUNCTION log_history() RETURNS text LANGUAGE sql AS $$ SELECT '"+text+"' $$"); err != nil {
			t.Fatal(err)
		}
	}
	history("") // a server that does not tell is taken for the same
	acquire(lease, true)
	history("7/5/00000002")
	acquire(lease, false)
	acquire(lease, true)
	acquire(lease, true)
	history("7/5/00000003")
	acquire(lease, false)
	acquire(&eventstore.Lease{DB: s, Name: "work", Holder: "ada", TTL: time.Minute}, true)
}

// The history names the timeline that a promoted standby writes on from the moment on at which it was promoted.
func TestHistoryOfAPromotedStandby(t *testing.T) {
	t.Parallel()
	primary := devstack.OwnPostgres(t, devstack.PostgresOptions{})
	if err := migrate(t.Context(), primary.DSN("postgres")); err != nil {
		t.Fatal(err)
	}
	standby, err := primary.StartStandby(t.Context(), "standby", 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := standby.Stop(); err != nil {
			t.Log(err)
		}
	})
	history := func(server *devstack.Postgres) (text string) {
		t.Helper()
		s := open(t, server.DSN("postgres"), postgres.Options{})
		if err := s.QueryRow(t.Context(), "SELECT log_history()").Scan(&text); err != nil {
			t.Fatal(err)
		}
		return text
	}
	before := history(primary)
	if err := primary.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := standby.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := history(standby); before == "" || after == "" || after == before {
		t.Errorf("the history is %q after %q", after, before)
	}
}

// Connections that are made anew are told of: those that everything shares, and that of commits.
func TestNewConnectionsAreTold(t *testing.T) {
	t.Parallel()
	dsn := migrated(t)
	s, other := open(t, dsn, postgres.Options{}), open(t, dsn, postgres.Options{})
	log := newLog(s)
	made, stop := log.WatchConnections()
	defer stop()
	cut := func() {
		t.Helper()
		if _, err := other.Exec(t.Context(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"); err != nil {
			t.Fatal(err)
		}
	}
	for name, use := range map[string]func(context.Context) error{
		"an append": func(ctx context.Context) error { _, err := log.Append(ctx, registration()); return err },
		"reads":     func(ctx context.Context) error { _, err := log.Head(ctx); return err },
	} {
		cut()
		devstack.Eventually(t, name+" makes a connection", func() bool {
			_ = use(t.Context()) // the first may find out that the connection is gone
			select {
			case <-made:
				return true
			default:
				return false
			}
		})
	}
}

// Whoever works under a lease ends with it, also where the database does not answer any more: others may reach it, and take it.
func TestLeaseOfADatabaseThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	s := open(t, migrated(t), postgres.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	lease := &eventstore.Lease{DB: s, Name: "work", Holder: "ada", TTL: time.Second}
	err := lease.Hold(ctx, func(working context.Context) error {
		// Whoever has the row locked keeps the answer to the renewal back.
		return s.Transact(ctx, func(tx eventstore.DB) error {
			if _, err := tx.Exec(ctx, "UPDATE leases SET epoch = epoch WHERE name = 'work'"); err != nil {
				return err
			}
			select {
			case <-working.Done():
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
	})
	if !errors.Is(err, eventstore.ErrLeaseLost) {
		t.Errorf("Hold() = %v, want %v", err, eventstore.ErrLeaseLost)
	}
}
