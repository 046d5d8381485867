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
// finished. It fails with errFenced.
func (s *sender) record(ctx context.Context, list []result) (verdict, error) {
	outcomes := make([]outcomeOf, len(list))
	finished, died, succeeded := 0, 0, false
	for i, r := range list {
		o := s.decide(r)
		var err error
		if o.response, err = s.Service.sealResponse(ctx, r.due, r.excerpt); err != nil {
			return verdict{}, err
		}
		switch o.status {
		case DeliveryDead:
			finished, died = finished+1, died+1
		case DeliveryDelivered:
			finished, succeeded = finished+1, true
		}
		outcomes[i] = o
	}
	var v verdict
	var pending, dead, deadInARow int
	err := s.Service.DB.Transact(ctx, func(tx eventstore.DB) error {
		since, err := s.progress(ctx, tx, finished, died, succeeded, &pending, &dead, &deadInARow)
		if err != nil {
			return err
		}
		now := s.Service.now()
		v.hopeless = died > 0 && since != nil && now.Sub(*since) >= failingLimit
		for _, o := range outcomes {
			if err := s.write(ctx, tx, o, now); err != nil {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, eventstore.ErrNoRows) {
		return verdict{}, errFenced
	}
	if err != nil {
		return verdict{}, fmt.Errorf("record deliveries: %w", err)
	}
	s.count(pending, dead, deadInARow)
	for _, o := range outcomes {
		s.Metrics.observe(o)
	}
	return v, nil
}

// progress counts what was finished, under the epoch in force, and answers with the time since which there was nothing but
// failure. The row that it updates is the lock of the deliveries.
func (s *sender) progress(ctx context.Context, tx eventstore.DB, finished, died int, succeeded bool, pending, dead, deadInARow *int) (*time.Time, error) {
	failing, row := "coalesce(failing_since, $5)", "dead_in_a_row + $4"
	if succeeded {
		failing, row = "NULL", "0"
	}
	args := []any{s.id, s.epoch, finished, died}
	if !succeeded {
		args = append(args, s.Service.now())
	}
	var since *time.Time
	err := tx.QueryRow(ctx, `UPDATE webhook_progress SET pending = pending - $3, dead = dead + $4, dead_in_a_row = `+row+`, failing_since = `+failing+`
		WHERE webhook = $1 AND epoch = $2 RETURNING pending, dead, dead_in_a_row, failing_since`, args...).Scan(pending, dead, deadInARow, &since)
	return since, err
}

// write writes the row of one delivery.
func (s *sender) write(ctx context.Context, tx eventstore.DB, o outcomeOf, now time.Time) error {
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
		   SET status = $3, attempts = attempts + 1, next_attempt_at = $4, last_attempt_at = $5, last_status = $6, reason = $7, response = $8, finished_at = $9
		 WHERE webhook = $1 AND position = $2 AND status = 'pending'`,
		s.id, o.position, string(o.status), o.next, o.result.at, code, o.reason, o.response, finished)
	if err != nil {
		return fmt.Errorf("the delivery of position %d: %w", o.position, err)
	}
	if touched != 1 {
		return fmt.Errorf("the delivery of position %d is not pending", o.position)
	}
	if finished == nil {
		return nil
	}
	return leadNext(ctx, tx, s.id, o.subject, now)
}
