package webhook

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
)

// batch is what is written down together.
type batch struct {
	to    place     // of the checkpoint, once the others are written
	fresh []*parcel // from the beginning of the window: they get a row
	known []*parcel // have one
}

// verdict is what the outcome of deliveries means for the webhook.
type verdict struct {
	hopeless bool // a delivery died, and the endpoint has done nothing but fail for days
}

// record writes down a batch and moves the checkpoint, in one transaction, and lets the next of each user go whose delivery is
// finished. Once begun it is not cut off by the end of ctx. The commit need not wait for the disk: what a crash takes of it
// is taken from the stream, or sent, again, under the same ids. What was recorded already, by a commit whose answer was lost,
// is not recorded twice. It fails with errFenced, eventstore.ErrForeign or errMoved.
func (s *sender) record(ctx context.Context, b batch) (verdict, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWait)
	defer cancel()
	for _, list := range [][]*parcel{b.fresh, b.known} {
		for _, p := range list {
			if err := s.sealResponse(ctx, p); err != nil {
				return verdict{}, err
			}
		}
	}
	var v verdict
	var p progress
	err := s.Service.DB.Transact(ctx, func(tx eventstore.DB) (err error) {
		if p, err = s.move(ctx, tx, b.to); err != nil || len(b.fresh)+len(b.known) == 0 {
			return err
		}
		now, died := s.Service.now(), p.dead
		finished, err := s.rewrite(ctx, tx, b.known, &p, now)
		if err != nil {
			return err
		}
		if err := s.insert(ctx, tx, b.fresh, now); err != nil {
			return err
		}
		for _, one := range b.fresh {
			p.count(one, now)
		}
		if err := leadNext(ctx, tx, s.id, finished, now); err != nil {
			return err
		}
		v.hopeless = p.dead > died && p.failingSince != nil && now.Sub(*p.failingSince) >= failingLimit
		_, err = tx.Exec(ctx, "UPDATE webhook_progress SET pending = $2, dead = $3, dead_in_a_row = $4, failing_since = $5 WHERE webhook = $1",
			s.id, p.pending, p.dead, p.deadInARow, p.failingSince)
		return err
	})
	if errors.Is(err, eventstore.ErrNoRows) {
		p, err = s.refused(ctx, b.to)
	}
	if err != nil {
		return verdict{}, fmt.Errorf("record deliveries up to %d: %w", b.to.position, err)
	}
	s.saved, s.savedAt = b.to, time.Now()
	s.count(p.pending, p.dead, p.deadInARow)
	for _, list := range [][]*parcel{b.fresh, b.known} {
		for _, p := range list {
			if p.tried {
				s.Metrics.observe(p)
			}
		}
	}
	return v, nil
}

// progress is what is counted of a webhook's deliveries.
type progress struct {
	pending, dead, deadInARow int
	failingSince              *time.Time
}

// move takes the lock of the webhook's deliveries, moves the checkpoint and reads what was counted. The checkpoint is only
// moved from where it was and under the epoch in force, which makes it exactly once, and only to an event of the log: after
// the log was restored from a backup, the stream has others. It fails with eventstore.ErrNoRows.
func (s *sender) move(ctx context.Context, tx eventstore.DB, to place) (p progress, err error) {
	err = tx.QueryRow(ctx, `UPDATE webhook_progress SET checkpoint = $3
		WHERE webhook = $1 AND checkpoint = $2 AND epoch = $4 AND ($3 = $2 OR EXISTS (SELECT 1 FROM events WHERE position = $3 AND event_id = $5))
		RETURNING pending, dead, dead_in_a_row, failing_since, `+eventstore.Relaxed(tx.Dialect()), s.id, s.saved.position, to.position, s.epoch, to.event).
		Scan(&p.pending, &p.dead, &p.deadInARow, &p.failingSince, new(string))
	return p, err
}

// errMoved: the checkpoint is not where it was left.
var errMoved = errors.New("the checkpoint was moved")

// refused finds out why the checkpoint could not be moved. It was moved already where the answer to the commit was lost.
func (s *sender) refused(ctx context.Context, to place) (p progress, err error) {
	var at, epoch int64
	err = s.Service.DB.QueryRow(ctx, "SELECT checkpoint, epoch, pending, dead, dead_in_a_row FROM webhook_progress WHERE webhook = $1", s.id).
		Scan(&at, &epoch, &p.pending, &p.dead, &p.deadInARow)
	switch {
	case errors.Is(err, eventstore.ErrNoRows), err == nil && epoch != s.epoch:
		return p, errFenced
	case err != nil:
		return p, fmt.Errorf("read the checkpoint: %w", err)
	case at == to.position:
		return p, nil
	case at == s.saved.position:
		return p, eventstore.ErrForeign
	}
	return p, errMoved
}

// count counts what became of a delivery.
func (p *progress) count(d *parcel, now time.Time) {
	switch {
	case d.stored && d.status != DeliveryPending:
		p.pending--
	case !d.stored && d.status == DeliveryPending:
		p.pending++
	}
	switch {
	case !d.tried:
		return
	case d.status == DeliveryDelivered:
		p.deadInARow, p.failingSince = 0, nil
		return
	case d.status == DeliveryDead:
		p.dead++
		p.deadInARow++
	}
	if p.failingSince == nil {
		p.failingSince = &now
	}
}

// insert gives deliveries a row. A pending one has a time where no other of its user is pending, which is looked up as in
// leadNext.
func (s *sender) insert(ctx context.Context, tx eventstore.DB, list []*parcel, now time.Time) error {
	if len(list) == 0 {
		return nil
	}
	from, args := rowsOf(tx.Dialect(), 3, list)
	_, err := tx.Exec(ctx, `
		INSERT INTO webhook_deliveries (webhook, position, subject, is_user, event_id, type, status, attempts, next_attempt_at, last_attempt_at,
		       last_status, reason, response, created_at, finished_at)
		SELECT $1, r.of, r.subject, r.is_user, r.event_id, r.type, r.status, r.attempts,
		       CASE WHEN r.leads AND NOT EXISTS (SELECT 1 FROM webhook_deliveries p
		                                          WHERE p.webhook = $1 AND p.subject >= r.subject AND p.subject <= r.subject AND p.status = 'pending')
		            THEN coalesce(r.next, `+timeParam(tx.Dialect(), 2)+`) END,
		       r.at, r.code, r.reason, r.response, `+timeParam(tx.Dialect(), 2)+`,
		       CASE WHEN r.status <> 'pending' THEN `+timeParam(tx.Dialect(), 2)+` END
		  FROM `+from, append([]any{s.id, now}, args...)...)
	if err != nil {
		return fmt.Errorf("insert deliveries: %w", err)
	}
	return nil
}

// rewrite writes the rows of deliveries anew, those that are as they were left, counts them, and answers with the users whose
// delivery is finished. One that is pending and has no time waits for another of its user, and goes on waiting.
func (s *sender) rewrite(ctx context.Context, tx eventstore.DB, list []*parcel, p *progress, now time.Time) (finished []uuid.UUID, err error) {
	if len(list) == 0 {
		return nil, nil
	}
	positions := make([]int64, len(list))
	for i, d := range list {
		positions[i] = d.position
	}
	// The list of positions makes Postgres look them up, however many deliveries there are. What is not finished is pending;
	// by the status, it would go through all that are.
	among, which := among(tx.Dialect(), 3, positions)
	from, args := rowsOf(tx.Dialect(), 4, list)
	touched, err := readPositions(ctx, tx, `
		UPDATE webhook_deliveries AS d
		   SET status = r.status, attempts = r.attempts, next_attempt_at = CASE WHEN d.next_attempt_at IS NOT NULL THEN r.next END,
		       last_attempt_at = r.at, last_status = r.code, reason = r.reason, response = r.response,
		       finished_at = CASE WHEN r.status <> 'pending' THEN `+timeParam(tx.Dialect(), 2)+` END
		  FROM `+from+`
		 WHERE d.webhook = $1 AND d.position `+among+` AND d.position = r.of AND d.finished_at IS NULL AND d.attempts = r.attempts - 1
		RETURNING position`, append([]any{s.id, now, which}, args...)...)
	if err != nil {
		return nil, fmt.Errorf("write what came of deliveries: %w", err)
	}
	written := make(map[int64]bool, len(touched))
	for _, position := range touched {
		written[position] = true
	}
	for _, d := range list {
		if !written[d.position] { // it was before, and the answer to the commit was lost
			continue
		}
		p.count(d, now)
		if d.status != DeliveryPending {
			finished = append(finished, d.subject)
		}
	}
	return finished, nil
}

// timeParam is a placeholder of a time.
func timeParam(d eventstore.Dialect, n int) string {
	if d == eventstore.SQLite {
		return fmt.Sprintf("$%d", n)
	}
	return fmt.Sprintf("$%d::timestamptz", n)
}
