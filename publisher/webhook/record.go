package webhook

import (
	"context"
	"errors"
	"fmt"
	"time"

	"usher/eventstore"
)

// verdict is what the outcome of deliveries means for the webhook.
type verdict struct {
	hopeless bool // a delivery died, and the endpoint has done nothing but fail for days
}

// outcomeOf is what becomes of a delivery.
type outcomeOf struct {
	result
	status   DeliveryStatus
	next     *time.Time // of the next attempt
	response []byte     // sealed
}

// decide says what becomes of a delivery after an attempt. An endpoint that is gone gets it again once it is enabled.
func (s *sender) decide(r result) outcomeOf {
	o := outcomeOf{result: r, status: DeliveryPending}
	now := s.Service.now()
	switch {
	case r.ok():
		o.status = DeliveryDelivered
	case r.gone():
		o.next = &now
	case r.attempts >= s.Service.Retries: // and this one was the last
		o.status = DeliveryDead
	default:
		wait := max(backoff(s.Service.RetryDelay, r.attempts+1, s.Service.Random()), r.retryAfter)
		at := now.Add(wait)
		o.next = &at
	}
	return o
}

// record writes down what came of deliveries, in one transaction, and lets the next of each user go whose delivery is
// finished. Once begun it is not cut off by the end of ctx. It fails with errFenced.
func (s *sender) record(ctx context.Context, list []result) (verdict, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWait)
	defer cancel()
	outcomes := make([]outcomeOf, len(list))
	for i, r := range list {
		outcomes[i] = s.decide(r)
		var err error
		if outcomes[i].response, err = s.Service.sealResponse(ctx, r.due, r.excerpt); err != nil {
			return verdict{}, err
		}
	}
	var v verdict
	var p progress
	err := s.Service.DB.Transact(ctx, func(tx eventstore.DB) (err error) {
		now := s.Service.now()
		if p, err = s.lock(ctx, tx); err != nil {
			return err
		}
		died := p.dead
		for _, o := range outcomes {
			written, err := s.write(ctx, tx, o, now)
			if err != nil {
				return err
			}
			if written { // else it was before, and the answer to the commit was lost
				p.count(o, now)
			}
		}
		v.hopeless = p.dead > died && p.failingSince != nil && now.Sub(*p.failingSince) >= failingLimit
		_, err = tx.Exec(ctx, "UPDATE webhook_progress SET pending = $2, dead = $3, dead_in_a_row = $4, failing_since = $5 WHERE webhook = $1",
			s.id, p.pending, p.dead, p.deadInARow, p.failingSince)
		return err
	})
	if errors.Is(err, eventstore.ErrNoRows) {
		return verdict{}, errFenced
	}
	if err != nil {
		return verdict{}, fmt.Errorf("record deliveries: %w", err)
	}
	s.count(p.pending, p.dead, p.deadInARow)
	for _, o := range outcomes {
		s.Metrics.observe(o)
	}
	return v, nil
}

// progress is what is counted of a webhook's deliveries.
type progress struct {
	pending, dead, deadInARow int
	failingSince              *time.Time
}

// lock takes the lock of the webhook's deliveries, under the epoch in force, and reads what was counted.
func (s *sender) lock(ctx context.Context, tx eventstore.DB) (p progress, err error) {
	err = tx.QueryRow(ctx, `UPDATE webhook_progress SET epoch = epoch WHERE webhook = $1 AND epoch = $2
		RETURNING pending, dead, dead_in_a_row, failing_since`, s.id, s.epoch).Scan(&p.pending, &p.dead, &p.deadInARow, &p.failingSince)
	return p, err
}

// count counts what became of a delivery.
func (p *progress) count(o outcomeOf, now time.Time) {
	if o.status != DeliveryPending {
		p.pending--
	}
	switch {
	case o.status == DeliveryDelivered:
		p.deadInARow, p.failingSince = 0, nil
		return
	case o.status == DeliveryDead:
		p.dead++
		p.deadInARow++
	}
	if p.failingSince == nil {
		p.failingSince = &now
	}
}

// write writes the row of one delivery, and says whether it was as it was left.
func (s *sender) write(ctx context.Context, tx eventstore.DB, o outcomeOf, now time.Time) (written bool, err error) {
	var code *int
	if o.answer.status != 0 {
		code = &o.answer.status
	}
	var finished *time.Time
	if o.status != DeliveryPending {
		finished = &now
	}
	touched, err := tx.Exec(ctx, `
		UPDATE webhook_deliveries
		   SET status = $4, attempts = attempts + 1, next_attempt_at = $5, last_attempt_at = $6, last_status = $7, reason = $8, response = $9,
		       finished_at = $10
		 WHERE webhook = $1 AND position = $2 AND status = 'pending' AND attempts = $3`,
		s.id, o.position, o.attempts, string(o.status), o.next, o.result.at, code, o.reason, o.response, finished)
	if err != nil {
		return false, fmt.Errorf("the delivery of position %d: %w", o.position, err)
	}
	if touched == 0 || finished == nil {
		return touched > 0, nil
	}
	return true, leadNext(ctx, tx, s.id, o.subject, now)
}
