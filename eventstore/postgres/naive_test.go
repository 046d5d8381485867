package postgres_test

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"usher.example/eventstore"
	"usher.example/eventstore/storetest"
	"usher.example/internal/devstack"
)

// naive is the customary event table: a sequence gives the positions, every append is a transaction of its own, and the
// reader goes on from the last position that it saw.
type naive struct{ pool *pgxpool.Pool }

const writers = 64

func openNaive(t *testing.T) naive {
	t.Helper()
	config, err := pgxpool.ParseConfig(devstack.Database(t, "naive", func(ctx context.Context, dsn string) error {
		pool, err := pgxpool.New(ctx, dsn)
		if err != nil {
			return err
		}
		defer pool.Close()
		_, err = pool.Exec(ctx, `
			CREATE TABLE events (position bigserial PRIMARY KEY, stream uuid, version int, event_id uuid, data jsonb);
			CREATE TABLE beside (id uuid)`)
		return err
	}))
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = writers + 1
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return naive{pool}
}

// moment waits for at most a duration.
func moment(ctx context.Context, longest time.Duration) {
	select {
	case <-time.After(rand.N(longest)):
	case <-ctx.Done():
	}
}

func (n naive) append(ctx context.Context, a eventstore.Append) (r eventstore.Result, err error) {
	tx, err := n.pool.Begin(ctx)
	if err != nil {
		return r, err
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	for _, e := range a.Events {
		if err := tx.QueryRow(ctx, `
			INSERT INTO events (stream, version, event_id, data)
			SELECT $1, coalesce(max(version), 0) + 1, $2, $3 FROM events WHERE stream = $1
			RETURNING position, version`, a.Stream.ID, e.ID, string(e.Data)).Scan(&r.Position, &r.Version); err != nil {
			return r, err
		}
	}
	moment(ctx, 3*time.Millisecond) // what else the transaction has to do
	return r, tx.Commit(ctx)
}

func (n naive) read(ctx context.Context, after int64, limit int) (events []eventstore.Event, err error) {
	rows, err := n.pool.Query(ctx, "SELECT position, stream, version, event_id FROM events WHERE position > $1 ORDER BY position LIMIT $2", after, limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var e eventstore.Event
		if err := rows.Scan(&e.Position, &e.Stream.ID, &e.Version, &e.ID); err != nil {
			return nil, err
		}
		events = append(events, e)
	}
	return events, rows.Err()
}

func (n naive) abort(ctx context.Context, hold time.Duration) error {
	tx, err := n.pool.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	_, err = tx.Exec(ctx, "INSERT INTO beside VALUES ($1)", uuid.New())
	moment(ctx, hold)
	return err
}

// The race of the conformance suite bites: a reader behind a sequence skips events, and the race says so.
func TestNaiveSequenceSkips(t *testing.T) {
	t.Parallel()
	n := openNaive(t)
	f, err := storetest.Race(t.Context(), []storetest.Source{{Append: n.append, Read: n.read, Abort: n.abort}}, writers, 12)
	if err != nil {
		t.Fatal(err)
	}
	if f.Skipped == 0 || f.Gaps == 0 || f.Disordered == 0 {
		t.Errorf("%+v, want skipped events, gaps and disorder", f)
	}
	t.Logf("of %d events %d skipped, %d gaps, %d out of order", f.Events+f.Skipped, f.Skipped, f.Gaps, f.Disordered)
}
