package projections_test

import (
	"context"
	"encoding/json"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"usher.example/eventstore"
	"usher.example/eventstore/postgres"
	"usher.example/identity"
	"usher.example/internal/devstack"
	"usher.example/projections"
	"usher.example/schema"
)

// BenchmarkCatchUp fills the read model of users from a log of registrations, on a durable Postgres, and in turn does
// the same by a bare loop: read 1,000 events in which nothing is sealed, upsert them with unnest, commit.
func BenchmarkCatchUp(b *testing.B) {
	const events = 200_000
	dsn := devstack.OwnPostgres(b, devstack.PostgresOptions{Durable: true}).DSN("postgres")
	m, err := schema.Postgres(dsn)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := m.Up(b.Context()); err != nil {
		b.Fatal(err)
	}
	m.Close()
	store, err := postgres.Open(b.Context(), dsn, postgres.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(store.Close)
	pool, err := pgxpool.New(b.Context(), dsn)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(pool.Close)
	s := newStack(b, store)
	registerMany(b, s.log, events)
	exec := func(sql string) {
		b.Helper()
		if _, err := pool.Exec(b.Context(), sql); err != nil {
			b.Fatal(err)
		}
	}
	exec(`CREATE TABLE plain AS SELECT position, stream, version, recorded_at, jsonb_build_object('email', 'user' || position || '@example.org',
		'name', 'Name ' || position) AS data FROM events`)
	exec("ALTER TABLE plain ADD PRIMARY KEY (position)")
	exec("CREATE TABLE bare_checkpoint (at bigint)")
	exec("INSERT INTO bare_checkpoint VALUES (0)")
	exec("VACUUM ANALYZE")

	var ours, bare, indexed time.Duration
	b.ResetTimer()
	for range b.N {
		exec("DROP TABLE IF EXISTS bare; CREATE TABLE bare (id uuid PRIMARY KEY, email text, name text, created_at timestamptz, version int, position bigint)")
		exec("DELETE FROM projections; DROP VIEW IF EXISTS users_live; DROP TABLE IF EXISTS users_1; CHECKPOINT")
		began := time.Now()
		bareLoop(b, pool)
		bare += time.Since(began)

		exec("CHECKPOINT")
		r := s.runner()
		r.Poll, r.Checkpoints = time.Second, projections.NewCheckpoints(store)
		s.checkpoints = r.Checkpoints
		// A process that comes up sees the keys for the first time.
		log := eventstore.New(store, s.master, eventstore.Options{})
		r.Log = log
		began = time.Now()
		stop := start(b, r)
		s.await(b)
		ours += time.Since(began)
		devstack.Eventually(b, "the indexes are there", func() bool {
			list, err := s.checkpoints.List(b.Context())
			return err == nil && list[0].State == projections.StateRunning
		})
		indexed += time.Since(began)
		stop()
	}
	b.ReportMetric(float64(b.N)*events/ours.Seconds(), "events/s")
	b.ReportMetric(float64(b.N)*events/indexed.Seconds(), "events/s-with-indexes")
	b.ReportMetric(float64(b.N)*events/bare.Seconds(), "bare-events/s")
	b.ReportMetric(bare.Seconds()/ours.Seconds(), "ratio")
	b.ReportMetric(0, "ns/op")
}

func registerMany(tb testing.TB, log *eventstore.Log, n int) {
	tb.Helper()
	var group sync.WaitGroup
	var taken atomic.Int64
	for range 256 {
		group.Go(func() {
			for taken.Add(1) <= int64(n) {
				var p identity.Registered
				id := uuid.Must(uuid.NewV7())
				p.Personal.Email, p.Personal.Name = "user"+id.String()[24:]+"@example.org", "Name "+id.String()[30:]
				_, err := log.Append(context.Background(), eventstore.Append{Stream: eventstore.UserStream(id), CreateKey: true,
					Events: []eventstore.NewEvent{identity.NewEvent(p)}})
				if err != nil {
					tb.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
}

func bareLoop(b *testing.B, pool *pgxpool.Pool) {
	ctx := b.Context()
	for after := int64(0); ; {
		rows, err := pool.Query(ctx, "SELECT position, stream, version, recorded_at, data FROM plain WHERE position > $1 ORDER BY position LIMIT 1000", after)
		if err != nil {
			b.Fatal(err)
		}
		var (
			ids           [][16]byte
			emails, names []string
			created       []time.Time
			versions      []int32
			positions     []int64
		)
		for rows.Next() {
			var position int64
			var id uuid.UUID
			var version int32
			var at time.Time
			var data []byte
			var fields struct{ Email, Name string }
			if err := rows.Scan(&position, &id, &version, &at, &data); err != nil {
				b.Fatal(err)
			}
			if err := json.Unmarshal(data, &fields); err != nil {
				b.Fatal(err)
			}
			ids, emails, names, created = append(ids, id), append(emails, fields.Email), append(names, fields.Name), append(created, at)
			versions, positions = append(versions, version), append(positions, position)
		}
		if len(ids) == 0 {
			return
		}
		err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, `INSERT INTO bare SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[], $5::int[], $6::bigint[])
				ON CONFLICT (id) DO UPDATE SET email = excluded.email, name = excluded.name, version = excluded.version, position = excluded.position`,
				ids, emails, names, created, versions, positions); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, "UPDATE bare_checkpoint SET at = $1 WHERE at = $2", positions[len(positions)-1], after%200_000)
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
		after = positions[len(positions)-1]
	}
}
