package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/eventstore"
	"usher.example/eventstore/cloudevent"
	"usher.example/identity"
	"usher.example/publisher"
)

func relayBenches() []bench {
	const single = "one at a time"
	return []bench{{
		about: "relay 400-byte events from Postgres to a JetStream file store",
		lines: []line{
			{
				name: "relay", subject: usher, yardstick: bare, against: "read 1,000 rows, PublishMsgAsync, wait for all", show: rate,
				targets: []target{rateAtLeast(0.8)},
			},
			{
				name: "relay-single", subject: usher, yardstick: single, against: "a relay that publishes one at a time", show: rate,
				targets: []target{waitingRateAtLeast(5)},
			},
		},
		setup: func(s *stage) ([]side, error) {
			r, err := setupRelay(s)
			if err != nil {
				return nil, err
			}
			return []side{
				{name: usher, prepare: r.empty, run: r.usher},
				{name: bare, prepare: r.fresh, run: r.async},
				{name: single, prepare: r.fresh, run: r.single},
			}, nil
		},
	}}
}

const (
	relaySource = "https://users.example.org"
	eventBytes  = 400
	page        = 1000 // events that the yardsticks read at once
)

// relaying is a log of plain events and a broker to publish them to.
type relaying struct {
	*logOn
	broker *broker
	js     jetstream.JetStream
	pool   *pgxpool.Pool // of the yardsticks
	events int
}

func setupRelay(s *stage) (*relaying, error) {
	l, err := s.openLog(eventstore.Options{})
	if err != nil {
		return nil, err
	}
	r := &relaying{logOn: l, events: s.flags.events / 4 * 4}
	if r.broker, err = s.broker(); err != nil {
		return nil, err
	}
	if r.js, err = jetstream.New(r.broker.conn, jetstream.WithPublishAsyncMaxPending(2*page)); err != nil {
		return nil, err
	}
	if r.pool, err = s.pool(l.dsn, 1); err != nil {
		return nil, err
	}
	if err := r.fill(s.ctx); err != nil {
		return nil, err
	}
	_, err = r.pool.Exec(s.ctx, "VACUUM ANALYZE")
	return r, err
}

// fill appends the events, four to a user.
func (r *relaying) fill(ctx context.Context) error {
	role := strings.Repeat("x", eventBytes-len(`{"role": ""}`))
	event := identity.NewEvent(identity.RoleGranted{Role: role})
	events := []eventstore.NewEvent{event, event, event, event}
	return r.appendMany(ctx, r.events/len(events), func() (eventstore.Append, error) {
		id, err := uuid.NewV7()
		return eventstore.Append{
			Stream: eventstore.UserStream(id), Events: events,
			Metadata: eventstore.Metadata{Correlation: id, Actor: identity.ActorOperator},
		}, err
	})
}

// empty removes the JetStream stream and all that the relay remembers of it.
func (r *relaying) empty(ctx context.Context) error {
	if err := r.js.DeleteStream(ctx, publisher.DefaultStream); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return err
	}
	_, err := r.store.Exec(ctx, "DELETE FROM relay")
	return err
}

// fresh makes the JetStream stream as the relay does.
func (r *relaying) fresh(ctx context.Context) error {
	if err := r.empty(ctx); err != nil {
		return err
	}
	_, err := r.js.CreateStream(ctx, jetstream.StreamConfig{
		Name: publisher.DefaultStream, Subjects: []string{cloudevent.SubjectPrefix + ">"}, Storage: jetstream.FileStorage,
		AllowDirect: true, AllowAtomicPublish: true, Duplicates: 100 * time.Millisecond,
	})
	return err
}

// usher publishes the whole log.
func (r *relaying) usher(ctx context.Context, _ time.Duration) (tally, error) {
	relay, err := r.relay(r.broker.conn)
	if err != nil {
		return tally{}, err
	}
	if err := relay.Flush(ctx); err != nil {
		return tally{}, err
	}
	return r.published(ctx)
}

// published counts what is in the stream.
func (r *relaying) published(ctx context.Context) (tally, error) {
	stream, err := r.js.Stream(ctx, publisher.DefaultStream)
	if err != nil {
		return tally{}, err
	}
	return tally{ops: int(stream.CachedInfo().State.Msgs)}, nil
}

// async reads a page, publishes it and waits for all of it, over and over.
func (r *relaying) async(ctx context.Context, _ time.Duration) (tally, error) {
	for after := int64(0); after < int64(r.events); {
		messages, err := r.read(ctx, after)
		if err != nil {
			return tally{}, err
		}
		futures := make([]jetstream.PubAckFuture, len(messages))
		for i, m := range messages {
			if futures[i], err = r.js.PublishMsgAsync(m, jetstream.WithStallWait(time.Minute)); err != nil {
				return tally{}, err
			}
		}
		for _, f := range futures {
			select {
			case <-f.Ok():
			case err := <-f.Err():
				return tally{}, err
			case <-ctx.Done():
				return tally{}, context.Cause(ctx)
			}
		}
		after += int64(len(messages))
	}
	return r.published(ctx)
}

// single waits for each message before the next, until the time is over.
func (r *relaying) single(ctx context.Context, length time.Duration) (tally, error) {
	end := time.Now().Add(length)
	for after := int64(0); after < int64(r.events) && time.Now().Before(end); {
		messages, err := r.read(ctx, after)
		if err != nil {
			return tally{}, err
		}
		for _, m := range messages {
			if _, err := r.js.PublishMsg(ctx, m); err != nil {
				return tally{}, err
			}
		}
		after += int64(len(messages))
	}
	return r.published(ctx)
}

// read reads a page as messages, with the subject and the headers that the relay gives them.
func (r *relaying) read(ctx context.Context, after int64) ([]*nats.Msg, error) {
	rows, err := r.pool.Query(ctx, `SELECT position, stream, kind, subject, version, event_id, type, schema_version, data, metadata, recorded_at
		FROM events WHERE position > $1 ORDER BY position LIMIT $2`, after, page)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	messages := make([]*nats.Msg, 0, page)
	for rows.Next() {
		var e eventstore.Event
		var data, meta []byte
		if err := rows.Scan(&e.Position, &e.Stream.ID, &e.Stream.Kind, &e.Stream.Subject, &e.Version, &e.ID, &e.Type,
			&e.SchemaVersion, &data, &meta, &e.RecordedAt); err != nil {
			return nil, err
		}
		if e.Metadata, err = eventstore.ParseMetadata(meta); err != nil {
			return nil, err
		}
		e.Data = data
		header, body := cloudevent.Encode(e, cloudevent.Options{Source: relaySource})
		header.Set(jetstream.ExpectedStreamHeader, publisher.DefaultStream)
		header.Set(jetstream.ExpectedLastSeqHeader, strconv.FormatInt(e.Position-1, 10))
		messages = append(messages, &nats.Msg{Subject: cloudevent.Subject(e), Header: header, Data: body})
	}
	if len(messages) == 0 && rows.Err() == nil {
		return nil, fmt.Errorf("no events after %d", after)
	}
	return messages, rows.Err()
}
