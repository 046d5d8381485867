package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/eventstore"
	"usher.example/identity"
	"usher.example/projections"
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
				{name: bare, prepare: c.plain.truncate, run: c.plain.run},
			}, nil
		},
	}}
}

// catchingUp is a log with the same events in the clear beside it.
type catchingUp struct {
	*logOn
	js    jetstream.JetStream
	plain *plainLog
	head  int64
}

func setupCatchUp(s *stage) (*catchingUp, error) {
	return openCatchingUp(s, func(l *logOn) error { return l.appendMany(s.ctx, s.flags.events, registration) })
}

// openCatchingUp opens a log, fills it and copies it.
func openCatchingUp(s *stage, fill func(*logOn) error) (*catchingUp, error) {
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
	if err := fill(l); err != nil {
		return nil, err
	}
	if c.head, err = l.log.Head(s.ctx); err != nil {
		return nil, err
	}
	c.plain, err = copyPlain(s, l.dsn, c.head)
	return c, err
}

// forget removes the read model.
func (c *catchingUp) forget(ctx context.Context) error {
	for _, statement := range []string{
		"DELETE FROM projections",
		"DROP VIEW IF EXISTS " + projections.ViewName(c.store.Dialect(), projections.UsersName),
		"DROP TABLE IF EXISTS " + projections.TableName(c.store.Dialect(), projections.UsersName, 1),
	} {
		if _, err := c.store.Exec(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// fresh is the log as a process has it that has just started: it has seen no data key yet.
func (c *catchingUp) fresh() *eventstore.Log {
	return eventstore.New(c.store, c.master, eventstore.Options{})
}

func (c *catchingUp) usher(ctx context.Context, _ time.Duration) (tally, error) {
	return tally{ops: int(c.head)}, c.catchUp(ctx, projections.UserProjection{})
}

// catchUp runs a projection until it has reached the head.
func (c *catchingUp) catchUp(ctx context.Context, p projections.Projection) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	checkpoints := projections.NewCheckpoints(c.store)
	runner := projections.Runner{Projection: p, DB: c.store, Log: c.fresh(), Checkpoints: checkpoints, JetStream: c.js, Logger: quiet}
	ended := make(chan error, 1)
	go func() { ended <- runner.Run(ctx) }()
	for {
		err := checkpoints.Await(ctx, p.Name(), c.head)
		if errors.Is(err, projections.ErrUnknownProjection) {
			continue // the runner has not made it yet
		}
		stop()
		return errors.Join(err, <-ended)
	}
}

// plainLog is a copy of a log with nothing sealed, and the least that a projection of users from it can be.
type plainLog struct {
	pool *pgxpool.Pool
	head int64
}

// copyPlain makes the copy. Personal fields are those that the events of these benches have.
func copyPlain(s *stage, dsn string, head int64) (*plainLog, error) {
	pool, err := s.pool(dsn, 1)
	if err != nil {
		return nil, err
	}
	for _, statement := range []string{
		`CREATE TABLE plain AS SELECT position, stream, kind, version, type, recorded_at, CASE type
			WHEN '` + identity.TypeUserRegistered + `' THEN jsonb_build_object('email', 'somebody-' || right(stream::text, 12) || '@example.org', 'name', 'Some Body')
			WHEN '` + identity.TypeUserProfileUpdated + `' THEN jsonb_build_object('name', '` + changedName + `')
			ELSE data END AS data FROM events`,
		`ALTER TABLE plain ADD PRIMARY KEY (position)`,
		`CREATE TABLE bare_users (id uuid PRIMARY KEY, email text, name text, verified boolean, role text, created_at timestamptz, version int, position bigint)`,
		`CREATE TABLE bare_checkpoint (at bigint)`,
		`INSERT INTO bare_checkpoint VALUES (0)`,
		`VACUUM ANALYZE`,
	} {
		if _, err := pool.Exec(s.ctx, statement); err != nil {
			return nil, err
		}
	}
	return &plainLog{pool, head}, nil
}

func (l *plainLog) truncate(ctx context.Context) error {
	_, err := l.pool.Exec(ctx, "TRUNCATE bare_users")
	if err == nil {
		_, err = l.pool.Exec(ctx, "UPDATE bare_checkpoint SET at = 0")
	}
	return err
}

// run reads a page, upserts what it says of users and commits, over and over.
func (l *plainLog) run(ctx context.Context, _ time.Duration) (tally, error) {
	for after := int64(0); after < l.head; {
		p, err := l.read(ctx, after)
		if err == nil {
			err = l.write(ctx, after, p)
		}
		if err != nil {
			return tally{}, err
		}
		after = p.last
	}
	return tally{ops: int(l.head)}, nil
}

// plainPage is what a page of events says of users, a column each, with one row for a user.
type plainPage struct {
	last      int64
	rows      map[uuid.UUID]int
	ids       []uuid.UUID
	emails    []*string
	names     []*string
	verified  []*bool
	roles     []*string
	created   []time.Time
	versions  []int32
	positions []int64
}

func (l *plainLog) read(ctx context.Context, after int64) (*plainPage, error) {
	rows, err := l.pool.Query(ctx, `SELECT position, stream, kind, version, type, recorded_at, data FROM plain WHERE position > $1 ORDER BY position LIMIT $2`, after, page)
	if err != nil {
		return nil, err
	}
	p := &plainPage{rows: make(map[uuid.UUID]int, page)}
	var (
		id         uuid.UUID
		kind, name string
		version    int32
		at         time.Time
		data       []byte
	)
	_, err = pgx.ForEachRow(rows, []any{&p.last, &id, &kind, &version, &name, &at, &data}, func() error {
		if kind != string(eventstore.KindUser) {
			return nil
		}
		return p.add(id, name, version, at, data)
	})
	return p, err
}

func (p *plainPage) add(id uuid.UUID, eventType string, version int32, at time.Time, data []byte) error {
	var fields struct{ Email, Name, Role *string }
	if err := json.Unmarshal(data, &fields); err != nil {
		return err
	}
	i, known := p.rows[id]
	if !known {
		i = len(p.ids)
		p.rows[id] = i
		p.ids, p.created = append(p.ids, id), append(p.created, at)
		p.emails, p.names, p.verified, p.roles = append(p.emails, nil), append(p.names, nil), append(p.verified, nil), append(p.roles, nil)
		p.versions, p.positions = append(p.versions, 0), append(p.positions, 0)
	}
	p.emails[i], p.names[i], p.roles[i] = cmp.Or(fields.Email, p.emails[i]), cmp.Or(fields.Name, p.names[i]), cmp.Or(fields.Role, p.roles[i])
	if eventType == identity.TypeUserEmailVerified {
		yes := true
		p.verified[i] = &yes
	}
	p.versions[i], p.positions[i] = version, p.last
	return nil
}

func (l *plainLog) write(ctx context.Context, after int64, p *plainPage) error {
	return pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `INSERT INTO bare_users AS t
			SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::boolean[], $5::text[], $6::timestamptz[], $7::int[], $8::bigint[])
			    ON CONFLICT (id) DO UPDATE SET email = coalesce(excluded.email, t.email), name = coalesce(excluded.name, t.name),
			       verified = coalesce(excluded.verified, t.verified), role = coalesce(excluded.role, t.role),
			       version = excluded.version, position = excluded.position WHERE t.version < excluded.version`,
			p.ids, p.emails, p.names, p.verified, p.roles, p.created, p.versions, p.positions); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, "UPDATE bare_checkpoint SET at = $1 WHERE at = $2", p.last, after)
		if err == nil && tag.RowsAffected() != 1 {
			err = fmt.Errorf("the checkpoint is not at %d", after)
		}
		return err
	})
}
