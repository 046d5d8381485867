package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"usher/eventstore"
	"usher/subscription"
)

const (
	// intakeBatch bounds the events that are taken from the stream at once. The subscription holds a few times as many.
	intakeBatch = 200
	// saveEvery is how often the checkpoint is stored while no event comes that the webhook wants. What is looked at again
	// after a crash is passed over again.
	saveEvery = time.Second
)

// take follows the stream and stores what the webhook wants as deliveries.
func (e *endpoint) take(ctx context.Context) error {
	s := subscription.Subscription{
		JetStream:  e.JetStream,
		Stream:     e.Stream,
		Name:       consumerName(e.id),
		Checkpoint: func(context.Context) (int64, error) { return e.at.Load().position, nil },
		Handle:     e.store,
		BesideLog:  true,
		Source:     e.Service.Log,
		MaxBatch:   intakeBatch,
		Logger:     e.logger(),
	}
	err := s.Run(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// store stores a batch of events, those that the webhook wants. While as many deliveries are stored as may be, it waits.
func (e *endpoint) store(ctx context.Context, events []eventstore.Event) error {
	for e.full() {
		select {
		case <-e.room:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	var rows []incoming
	first := map[uuid.UUID]bool{}
	filters := e.target.Load().filters
	for _, event := range events {
		if !wants(filters, event.Type) {
			continue
		}
		row, err := newIncoming(event)
		if err != nil {
			return err
		}
		row.First = !first[row.Subject]
		first[row.Subject] = true
		rows = append(rows, row)
	}
	last := events[len(events)-1]
	err := e.advance(ctx, place{last.Position, last.ID}, rows)
	if errors.Is(err, errFenced) {
		return subscription.Final(err)
	}
	if err == nil && len(rows) > 0 {
		signal(e.wake)
	}
	return err
}

func (e *endpoint) full() bool { return e.pending.Load() >= MaxPending || e.dead.Load() >= MaxDead }

// incoming is a row of webhook_deliveries that is to be.
type incoming struct {
	Position int64     `json:"position"`
	ID       uuid.UUID `json:"id"`
	Subject  uuid.UUID `json:"subject"`
	IsUser   bool      `json:"is_user"`
	EventID  uuid.UUID `json:"event_id"`
	Type     string    `json:"type"`
	First    bool      `json:"first"` // of its user in the batch
}

func newIncoming(event eventstore.Event) (incoming, error) {
	id, err := uuid.NewV7()
	row := incoming{Position: event.Position, ID: id, Subject: event.Stream.Subject, IsUser: true, EventID: event.ID, Type: event.Type}
	if row.Subject == uuid.Nil {
		row.Subject, row.IsUser = event.Stream.ID, false
	}
	return row, err
}

// advance moves the checkpoint to an event and stores deliveries, in one transaction. The checkpoint is only moved from
// where it was and under the epoch in force, which makes it exactly once, and only to an event of the log: after the log was
// restored from a backup, the stream has others. The commit need not wait for the disk: what a crash takes of it comes from
// the stream again. Without deliveries it may be moved in memory alone. It fails with
// errFenced, errForeign or errMoved.
func (e *endpoint) advance(ctx context.Context, to place, rows []incoming) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(rows) == 0 && time.Since(e.savedAt) < saveEvery {
		e.at.Store(&to)
		return nil
	}
	err := e.Service.DB.Transact(ctx, func(tx eventstore.DB) error {
		var pending int64
		err := tx.QueryRow(ctx, `UPDATE webhook_progress SET checkpoint = $3, pending = pending + $5
			WHERE webhook = $1 AND checkpoint = $2 AND epoch = $4 AND EXISTS (SELECT 1 FROM events WHERE position = $3 AND event_id = $6)
			RETURNING pending, `+eventstore.Relaxed(tx.Dialect()), e.id, e.saved, to.position, e.epoch, len(rows), to.event).Scan(&pending, new(string))
		if err != nil {
			return err
		}
		e.pending.Store(pending)
		return e.insert(ctx, tx, rows)
	})
	if errors.Is(err, eventstore.ErrNoRows) {
		return e.refused(ctx)
	}
	if err != nil {
		return fmt.Errorf("store deliveries up to %d: %w", to.position, err)
	}
	e.saved, e.savedAt = to.position, time.Now()
	e.at.Store(&to)
	return nil
}

// save stores the checkpoint as it is in memory.
func (e *endpoint) save(ctx context.Context) error {
	e.mu.Lock()
	to := *e.at.Load()
	stale := to.position != e.saved && time.Since(e.savedAt) >= saveEvery
	e.mu.Unlock()
	if !stale {
		return nil
	}
	return e.advance(ctx, to, nil)
}

var (
	// errMoved: the checkpoint is not where it was left, because the answer to a commit was lost.
	errMoved = errors.New("the checkpoint was moved")
	// errForeign: the event is not the log's.
	errForeign = errors.New("the JetStream stream has events that the log does not have: `usher outbox status` says why")
)

// refused finds out why the checkpoint could not be moved, and where it is.
func (e *endpoint) refused(ctx context.Context) error {
	var at, epoch int64
	err := e.Service.DB.QueryRow(ctx, "SELECT checkpoint, epoch FROM webhook_progress WHERE webhook = $1", e.id).Scan(&at, &epoch)
	switch {
	case errors.Is(err, eventstore.ErrNoRows), err == nil && epoch != e.epoch:
		return errFenced
	case err != nil:
		return fmt.Errorf("read the checkpoint: %w", err)
	case at == e.saved:
		err = errForeign
	default:
		err = errMoved
	}
	e.saved = at
	e.at.Store(&place{position: at})
	return err
}

// insert stores deliveries. One is the first that is sent of its user where no other is pending, which is looked up as in
// leadNext.
func (e *endpoint) insert(ctx context.Context, tx eventstore.DB, rows []incoming) error {
	if len(rows) == 0 {
		return nil
	}
	raw, err := json.Marshal(rows)
	if err != nil {
		return err
	}
	from, now := `jsonb_to_recordset($2::jsonb)
		AS r(position bigint, id uuid, subject uuid, is_user boolean, event_id uuid, type text, first boolean)`, "$3::timestamptz"
	if tx.Dialect() == eventstore.SQLite {
		from, now = `(SELECT value->>'position' AS position, value->>'id' AS id, value->>'subject' AS subject, value->>'is_user' AS is_user,
			value->>'event_id' AS event_id, value->>'type' AS type, value->>'first' AS first FROM json_each($2)) AS r`, "$3"
	}
	_, err = tx.Exec(ctx, `
		INSERT INTO webhook_deliveries (webhook, position, id, subject, is_user, event_id, type, status, attempts, next_attempt_at, reason, created_at)
		SELECT $1, r.position, r.id, r.subject, r.is_user, r.event_id, r.type, 'pending', 0,
		       CASE WHEN r.first AND NOT EXISTS (SELECT 1 FROM webhook_deliveries p
		                                          WHERE p.webhook = $1 AND p.subject >= r.subject AND p.subject <= r.subject AND p.status = 'pending') THEN `+now+` END,
		       '', `+now+`
		  FROM `+from, e.id, string(raw), e.Service.now())
	if err != nil {
		return fmt.Errorf("insert deliveries: %w", err)
	}
	return nil
}
