package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"usher.example/eventstore"
	"usher.example/identity"
)

// The names of sides that most benches have.
const (
	usher = "usher"
	bare  = "yardstick"
)

// maxPool is how many connections the yardsticks have at most. With fewer or more of them they are slower.
const maxPool = 32

func appendBenches() []bench {
	list := []bench{
		registrations(1, waitingRateAtLeast(0.75)),
		registrations(64, cpuAtMost(0.35), rateAtLeast(1.5)),
		registrations(256, cpuAtMost(0.3), rateAtLeast(2.5)),
		plain("plain-32", "append plain events, 32 callers, each to a stream of its own", 0),
		plain("plain-grown", "the same, to a log that has just grown by 100,000 streams", 100_000),
		sqliteBench(),
	}
	return list
}

func registrations(callers int, targets ...target) bench {
	return bench{
		about: fmt.Sprintf("append registrations, sealed, %d callers", callers),
		lines: []line{{
			name: fmt.Sprintf("append-%d", callers), subject: usher, yardstick: bare,
			against: "the same rows, one pipelined transaction each, pgxpool", show: rate, targets: targets,
		}},
		setup: func(s *stage) ([]side, error) { return registrationSides(s, callers) },
	}
}

// plain is appends of events without anything sealed, in a log that got a number of other streams since its first
// appends: what was planned for small tables is then run on large ones.
func plain(name, about string, others int) bench {
	return bench{
		about: about,
		lines: []line{{
			name: name, subject: usher, yardstick: bare, against: "one INSERT a transaction, pgxpool", show: rate,
			targets: []target{cpuAtMost(0.35), rateAtLeast(1.8)},
		}},
		setup: func(s *stage) ([]side, error) { return plainSides(s, others) },
	}
}

func registrationSides(s *stage, callers int) ([]side, error) {
	l, err := s.openLog(eventstore.Options{})
	if err != nil {
		return nil, err
	}
	pool, err := bareLog(s, callers)
	if err != nil {
		return nil, err
	}
	return []side{
		{name: usher, run: func(ctx context.Context, length time.Duration) (tally, error) {
			return hammer(ctx, callers, length, func(ctx context.Context, _ int) error {
				a, err := registration()
				if err == nil {
					_, err = l.log.Append(ctx, a)
				}
				return err
			})
		}},
		{name: bare, run: func(ctx context.Context, length time.Duration) (tally, error) {
			return hammer(ctx, callers, length, func(ctx context.Context, _ int) error {
				return registerBare(ctx, pool, l.log.Sealer())
			})
		}},
	}, nil
}

// bareLog is a second database with the same tables, whose positions come from a sequence.
func bareLog(s *stage, callers int) (*pgxpool.Pool, error) {
	dsn, err := s.database()
	if err != nil {
		return nil, err
	}
	pool, err := s.pool(dsn, min(callers, maxPool))
	if err != nil {
		return nil, err
	}
	_, err = pool.Exec(s.ctx, "CREATE SEQUENCE bare_position")
	return pool, err
}

// plainStream is the stream of one caller, as far as it has got.
type plainStream struct {
	id      uuid.UUID
	version int
}

func plainStreams(n int) []plainStream {
	list := make([]plainStream, n)
	for i := range list {
		list[i].id = uuid.Must(uuid.NewV7())
	}
	return list
}

func plainSides(s *stage, others int) ([]side, error) {
	const callers = 32
	l, err := s.openLog(eventstore.Options{})
	if err != nil {
		return nil, err
	}
	pool, err := bareLog(s, callers)
	if err != nil {
		return nil, err
	}
	ours, theirs := plainStreams(callers), plainStreams(callers)
	for i := range ours {
		for range 2 { // a new stream, and one that is known
			if err := ours[i].append(s.ctx, l.log); err != nil {
				return nil, err
			}
		}
	}
	if err := l.appendMany(s.ctx, others, registration); err != nil {
		return nil, err
	}
	return []side{
		{name: usher, run: func(ctx context.Context, length time.Duration) (tally, error) {
			return hammer(ctx, callers, length, func(ctx context.Context, caller int) error {
				return ours[caller].append(ctx, l.log)
			})
		}},
		{name: bare, run: func(ctx context.Context, length time.Duration) (tally, error) {
			return hammer(ctx, callers, length, func(ctx context.Context, caller int) error {
				return theirs[caller].insert(ctx, pool)
			})
		}},
	}, nil
}

func plainEvent() identity.Payload { return identity.RoleGranted{Role: "editor"} }

func (p *plainStream) metadata() eventstore.Metadata {
	return eventstore.Metadata{Correlation: p.id, Actor: identity.ActorOperator}
}

func (p *plainStream) append(ctx context.Context, log *eventstore.Log) error {
	_, err := log.Append(ctx, eventstore.Append{
		Stream:   eventstore.UserStream(p.id),
		Expected: eventstore.Expected(p.version),
		Events:   []eventstore.NewEvent{identity.NewEvent(plainEvent())},
		Metadata: p.metadata(),
	})
	p.version++
	return err
}

// encoded is what a yardstick stores of the next event.
func (p *plainStream) encoded() (event uuid.UUID, data, meta []byte, err error) {
	p.version++
	if event, err = uuid.NewV7(); err != nil {
		return event, nil, nil, err
	}
	data, _ = identity.Encode(plainEvent())
	meta, err = json.Marshal(p.metadata())
	return event, data, meta, err
}

func (p *plainStream) insert(ctx context.Context, pool *pgxpool.Pool) error {
	event, data, meta, err := p.encoded()
	if err != nil {
		return err
	}
	_, err = pool.Exec(ctx, `INSERT INTO events (position, stream, kind, subject, version, event_id, type, schema_version, data, metadata, recorded_at)
		VALUES (nextval('bare_position'), $1, 'user', $1, $2, $3, $4, 1, $5, $6, now())`,
		p.id, p.version, event, plainEvent().EventType(), string(data), string(meta))
	return err
}
