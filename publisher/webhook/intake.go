package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/subscription"
)

// intakeBatch bounds the events that are taken from the stream at once. The subscription holds a few times as many.
const intakeBatch = 2 * maxAhead

// offer is a batch of events that the stream has for the sender.
type offer struct {
	events []eventstore.Event // that the webhook wants
	last   place              // of the last event of all
	taken  chan error         // is told once, when all are in the window, or why they can't be
}

// take follows the stream and offers the sender what the webhook wants. The sender says when there is room for more.
func (e *endpoint) take(ctx context.Context) error {
	s := subscription.Subscription{
		JetStream:  e.JetStream,
		Stream:     e.Stream,
		Name:       e.Service.ConsumerName(e.id),
		Checkpoint: func(context.Context) (int64, error) { return e.at.Load(), nil },
		Handle:     e.hand,
		BesideLog:  true,
		Source:     e.Service.Log,
		Personal:   !e.Service.OmitPersonal,
		MaxBatch:   intakeBatch,
		Logger:     e.logger(),
	}
	err := s.Run(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// hand offers a batch to the sender, if all of it is the log's, and waits until it has it.
func (e *endpoint) hand(ctx context.Context, events []eventstore.Event) error {
	if err := e.continues(ctx, events); err != nil {
		return err
	}
	last := events[len(events)-1]
	filters := e.target.Load().filters
	wanted := slices.DeleteFunc(events, func(event eventstore.Event) bool { return !wants(filters, event.Type) })
	o := offer{events: wanted, last: place{last.Position, last.ID}, taken: make(chan error, 1)}
	select {
	case e.offers <- &o:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case err := <-o.taken:
		if err == nil {
			e.taken = o.last
		}
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// continues checks that a batch is the log's, and goes on from what was taken before: after the database gave way to another, its
// log may have got further, and all of the batch be in it, while what comes before the batch there was never taken. It fails with
// eventstore.ErrForeign, or for good with errOther.
func (e *endpoint) continues(ctx context.Context, events []eventstore.Event) error {
	known := events
	if e.taken.event != uuid.Nil && e.taken.position < events[0].Position {
		known = append([]eventstore.Event{{Position: e.taken.position, ID: e.taken.event}}, events...)
	}
	err := eventstore.Confirm(ctx, e.Service.DB, known)
	if errors.Is(err, eventstore.ErrForeign) && len(known) > len(events) && eventstore.Confirm(ctx, e.Service.DB, events) == nil {
		return subscription.Final(errOther)
	}
	return err
}

func (e *endpoint) full() bool { return e.pending.Load() >= MaxPending || e.dead.Load() >= MaxDead }

// standing is what keeps a user's events from being sent as they came from the stream.
type standing struct {
	keyless bool // the user has no key: what was personal must not be sent, whatever the message has
	held    bool // the user has deliveries that are pending, which go first
}

// look asks how users stand, of whom it answers with those of whom there is something to say. The events up to the place have
// to be the log's. It fails with eventstore.ErrForeign or errFenced.
//
// Each is looked up by itself: by a join, Postgres may go through a table as a whole.
func (e *endpoint) look(ctx context.Context, users []uuid.UUID, up place) (map[uuid.UUID]standing, error) {
	db := e.Service.DB
	from, list := "unnest($2::uuid[]) AS s(subject)", any(idArray(users))
	if db.Dialect() == eventstore.SQLite {
		raw, err := json.Marshal(users)
		if err != nil { // UUIDs can be expressed in JSON
			panic(err)
		}
		from, list = "(SELECT value AS subject FROM json_each($2)) AS s", string(raw)
	}
	rows, err := db.Query(ctx, `
		SELECT subject, has_key IS NULL, pending IS NOT NULL, FALSE
		  FROM (SELECT s.subject, (SELECT 1 FROM user_keys k WHERE k.user_id = s.subject LIMIT 1) AS has_key,
		               CASE WHEN (SELECT pending FROM webhook_progress WHERE webhook = $1) > 0 THEN (SELECT 1 FROM webhook_deliveries d
		                 WHERE d.webhook = $1 AND d.status = 'pending' AND d.subject >= s.subject AND d.subject <= s.subject LIMIT 1) END AS pending
		          FROM `+from+`) AS u
		 WHERE has_key IS NULL OR pending IS NOT NULL
		UNION ALL
		SELECT NULL, FALSE, FALSE, EXISTS (SELECT 1 FROM webhook_progress WHERE webhook = $1 AND epoch = $3)
		 WHERE NOT EXISTS (SELECT 1 FROM events WHERE position = $4 AND event_id = $5)
		    OR NOT EXISTS (SELECT 1 FROM webhook_progress WHERE webhook = $1 AND epoch = $3)`, e.id, list, e.epoch, up.position, up.event)
	if err != nil {
		return nil, fmt.Errorf("look at users: %w", err)
	}
	defer rows.Close()
	found := map[uuid.UUID]standing{}
	for rows.Next() {
		var user uuid.NullUUID
		var u standing
		var mine bool
		switch err := rows.Scan(&user, &u.keyless, &u.held, &mine); {
		case err != nil:
			return nil, fmt.Errorf("look at users: %w", err)
		case user.Valid:
			found[user.UUID] = u
		case mine:
			return nil, eventstore.ErrForeign
		default:
			return nil, errFenced
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("look at users: %w", err)
	}
	return found, nil
}

// idArray is a list of ids as pgx encodes it best.
func idArray(ids []uuid.UUID) [][16]byte {
	list := make([][16]byte, len(ids))
	for i, id := range ids {
		list[i] = id
	}
	return list
}
