package main

import (
	"context"
	"encoding/binary"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"
)

// floor is the least that can be between a commit and a read model: a row and a NOTIFY in one transaction, a listener
// that publishes to JetStream, a consumer that upserts. It guarantees nothing.
type floor struct {
	*journeys
	pool *pgxpool.Pool
	js   jetstream.JetStream
}

const (
	floorStream  = "FLOOR"
	floorSubject = "floor.users"
)

func openFloor(s *stage) (*floor, error) {
	f := &floor{journeys: newJourneys()}
	dsn, err := s.database()
	if err != nil {
		return nil, err
	}
	if f.pool, err = s.pool(dsn, 3); err != nil {
		return nil, err
	}
	for _, statement := range []string{
		"CREATE TABLE floor_log (position bigserial PRIMARY KEY, data jsonb NOT NULL)",
		"CREATE TABLE floor_users (id uuid PRIMARY KEY, position bigint NOT NULL)",
	} {
		if _, err := f.pool.Exec(s.ctx, statement); err != nil {
			return nil, err
		}
	}
	b, err := s.broker()
	if err != nil {
		return nil, err
	}
	if f.js, err = jetstream.New(b.conn); err != nil {
		return nil, err
	}
	stream, err := f.js.CreateStream(s.ctx, jetstream.StreamConfig{Name: floorStream, Subjects: []string{floorSubject}, Storage: jetstream.FileStorage})
	if err != nil {
		return nil, err
	}
	consumer, err := stream.CreateConsumer(s.ctx, jetstream.ConsumerConfig{Durable: "floor", AckPolicy: jetstream.AckExplicitPolicy})
	if err != nil {
		return nil, err
	}
	listener, err := f.pool.Acquire(s.ctx)
	if err != nil {
		return nil, err
	}
	if _, err := listener.Exec(s.ctx, "LISTEN floor"); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(s.ctx)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return f.publish(ctx, listener.Conn()) })
	group.Go(func() error { return f.consume(ctx, consumer) })
	s.after(func() error {
		stop()
		err := group.Wait()
		listener.Release()
		return err
	})
	return f, nil
}

// publish publishes what it is notified of, until ctx ends.
func (f *floor) publish(ctx context.Context, listener *pgx.Conn) error {
	for {
		n, err := listener.WaitForNotification(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		position, err := strconv.ParseInt(n.Payload, 10, 64)
		if err != nil {
			return err
		}
		_, err = f.js.Publish(ctx, floorSubject, binary.BigEndian.AppendUint64(nil, uint64(position)))
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// consume upserts what is published, until ctx ends.
func (f *floor) consume(ctx context.Context, consumer jetstream.Consumer) error {
	failed := make(chan error, 1)
	c, err := consumer.Consume(func(m jetstream.Msg) {
		position := int64(binary.BigEndian.Uint64(m.Data()))
		f.arrive(toSubscriber, position)
		_, err := f.pool.Exec(ctx, `INSERT INTO floor_users (id, position) VALUES ($1, $2)
			ON CONFLICT (id) DO UPDATE SET position = excluded.position`, uuid.NewSHA1(uuid.Nil, m.Data()), position)
		if err == nil {
			f.arrive(toReadModel, position)
			err = m.Ack()
		}
		if err != nil {
			select {
			case failed <- err:
			default:
			}
		}
	})
	if err != nil {
		return err
	}
	defer func() {
		c.Stop()
		<-c.Closed()
	}()
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (f *floor) run(ctx context.Context, length time.Duration) (tally, error) {
	n, err := steadily(ctx, lasting(length), func() error {
		var position int64
		err := f.pool.QueryRow(ctx, `WITH logged AS (INSERT INTO floor_log (data) VALUES ('{"email": "somebody@example.org"}') RETURNING position)
			SELECT position, pg_notify('floor', position::text)::text FROM logged`).Scan(&position, new(string))
		f.commit(position, time.Now())
		return err
	})
	if err != nil {
		return tally{}, err
	}
	return f.finish(ctx, n)
}
