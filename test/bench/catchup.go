package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go/jetstream"

	"usher/eventstore"
	"usher/projections"
)

func catchUpBenches() []bench {
	return []bench{{
		about: "fill the read model users from the log, opening sealed fields",
		lines: []line{{
			name: "catch-up", subject: usher, yardstick: bare, against: "read 1,000 rows, unnest upsert, commit; nothing sealed", show: rate,
			targets: []target{rateAtLeast(0.5)},
		}},
		setup: func(s *stage) ([]side, error) {
			c, err := setupCatchUp(s)
			if err != nil {
				return nil, err
			}
			return []side{
				{name: usher, prepare: c.forget, run: c.usher},
				{name: bare, prepare: c.truncate, run: c.bare},
			}, nil
		},
	}}
}

// catchingUp is a log of registrations, and the same events without anything sealed in a table of their own.
type catchingUp struct {
	*logOn
	js   jetstream.JetStream
	pool *pgxpool.Pool // of the yardstick
	head int64
}

func setupCatchUp(s *stage) (*catchingUp, error) {
	l, err := s.openLog(eventstore.Options{})
	if err != nil {
		return nil, err
	}
	c := &catchingUp{logOn: l}
	b, err := s.broker()
	if err != nil {
		return nil, err
	}
	if c.js, err = jetstream.New(b.conn); err != nil {
		return nil, err
	}
	if c.pool, err = s.pool(l.dsn, 1); err != nil {
		return nil, err
	}
	if err := l.appendMany(s.ctx, s.flags.events, registration); err != nil {
		return nil, err
	}
	c.head = int64(s.flags.events)
	for _, statement := range []string{
		`CREATE TABLE plain AS SELECT position, stream, version, recorded_at,
			jsonb_build_object('email', 'somebody-' || right(stream::text, 12) || '@example.org', 'name', 'Some Body') AS data FROM events`,
		`ALTER TABLE plain ADD PRIMARY KEY (position)`,
		`CREATE TABLE bare_users (id uuid PRIMARY KEY, email text, name text, created_at timestamptz, version int, position bigint)`,
		`CREATE TABLE bare_checkpoint (at bigint)`,
		`INSERT INTO bare_checkpoint VALUES (0)`,
		`VACUUM ANALYZE`,
	} {
		if _, err := c.pool.Exec(s.ctx, statement); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// forget removes the read model.
func (c *catchingUp) forget(ctx context.Context) error {
	for _, statement := range []string{
		"DELETE FROM projections",
		"DROP VIEW IF EXISTS " + projections.ViewName(projections.UsersName),
		"DROP TABLE IF EXISTS " + projections.TableName(projections.UsersName, 1),
	} {
		if _, err := c.store.Exec(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

func (c *catchingUp) truncate(ctx context.Context) error {
	_, err := c.pool.Exec(ctx, "TRUNCATE bare_users")
	if err == nil {
		_, err = c.pool.Exec(ctx, "UPDATE bare_checkpoint SET at = 0")
	}
	return err
}

// usher catches up as a process does that has just started: it has seen no data key yet.
func (c *catchingUp) usher(ctx context.Context, _ time.Duration) (tally, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	checkpoints := projections.NewCheckpoints(c.store)
	runner := projections.Runner{
		Projection: projections.UserProjection{}, DB: c.store, Log: eventstore.New(c.store, c.master, eventstore.Options{}),
		Checkpoints: checkpoints, JetStream: c.js, Logger: quiet,
	}
	ended := make(chan error, 1)
	go func() { ended <- runner.Run(ctx) }()
	for {
		err := checkpoints.Await(ctx, projections.UsersName, c.head)
		if errors.Is(err, projections.ErrUnknownProjection) {
			continue // the runner has not made it yet
		}
		stop()
		return tally{ops: int(c.head)}, errors.Join(err, <-ended)
	}
}

// bare reads a page, upserts it and commits, over and over.
func (c *catchingUp) bare(ctx context.Context, _ time.Duration) (tally, error) {
	for after := int64(0); after < c.head; {
		next, err := c.barePage(ctx, after)
		if err != nil {
			return tally{}, err
		}
		after = next
	}
	return tally{ops: int(c.head)}, nil
}

func (c *catchingUp) barePage(ctx context.Context, after int64) (last int64, err error) {
	rows, err := c.pool.Query(ctx, "SELECT position, stream, version, recorded_at, data FROM plain WHERE position > $1 ORDER BY position LIMIT $2", after, page)
	if err != nil {
		return 0, err
	}
	var (
		ids           = make([]uuid.UUID, 0, page)
		emails, names = make([]string, 0, page), make([]string, 0, page)
		created       = make([]time.Time, 0, page)
		versions      = make([]int32, 0, page)
		positions     = make([]int64, 0, page)

		id      uuid.UUID
		version int32
		at      time.Time
		data    []byte
	)
	_, err = pgx.ForEachRow(rows, []any{&last, &id, &version, &at, &data}, func() error {
		var fields struct{ Email, Name string }
		if err := json.Unmarshal(data, &fields); err != nil {
			return err
		}
		ids, emails, names = append(ids, id), append(emails, fields.Email), append(names, fields.Name)
		created, versions, positions = append(created, at), append(versions, version), append(positions, last)
		return nil
	})
	if err != nil {
		return 0, err
	}
	return last, pgx.BeginFunc(ctx, c.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `INSERT INTO bare_users
			SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[], $5::int[], $6::bigint[])
			    ON CONFLICT (id) DO UPDATE SET email = excluded.email, name = excluded.name, version = excluded.version,
			       position = excluded.position WHERE bare_users.version < excluded.version`,
			ids, emails, names, created, versions, positions); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, "UPDATE bare_checkpoint SET at = $1 WHERE at = $2", last, after)
		if err == nil && tag.RowsAffected() != 1 {
			err = fmt.Errorf("the checkpoint is not at %d", after)
		}
		return err
	})
}
