package webhook

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

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
// finished. Once begun it is not cut off by the end of ctx. The commit need not wait for the disk: what a crash takes of it is
// sent again, under the same ids. It fails with errFenced.
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
		written, err := s.write(ctx, tx, outcomes, now)
		if err != nil {
			return err
		}
		var finished []uuid.UUID
		for _, o := range outcomes {
			if !written[o.position] { // it was before, and the answer to the commit was lost
				continue
			}
			p.count(o, now)
			if o.status != DeliveryPending {
				finished = append(finished, o.subject)
			}
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
		RETURNING pending, dead, dead_in_a_row, failing_since, `+eventstore.Relaxed(tx.Dialect()), s.id, s.epoch).
		Scan(&p.pending, &p.dead, &p.deadInARow, &p.failingSince, new(string))
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

// outcomeRow is what is written of an outcome. Times are texts that both dialects read, as UTC.
type outcomeRow struct {
	Position int64   `json:"position"`
	Attempts int     `json:"attempts"` // before this one
	Status   string  `json:"status"`
	Next     *string `json:"next"`
	At       string  `json:"at"`
	Code     *int    `json:"code"`
	Reason   string  `json:"reason"`
	Response *string `json:"response"` // in hexadecimal
}

const timeText = "2006-01-02 15:04:05.000000"

func newOutcomeRow(o *outcomeOf) outcomeRow {
	row := outcomeRow{
		Position: o.position, Attempts: o.attempts, Status: string(o.status), At: o.result.at.Format(timeText), Reason: o.reason,
	}
	if o.next != nil {
		next := o.next.Format(timeText)
		row.Next = &next
	}
	if o.answer.status != 0 {
		row.Code = &o.answer.status
	}
	if o.response != nil {
		response := hex.EncodeToString(o.response)
		row.Response = &response
	}
	return row
}

// write writes the rows of deliveries by one statement, and answers with the positions of those that were as they were left.
func (s *sender) write(ctx context.Context, tx eventstore.DB, outcomes []outcomeOf, now time.Time) (written map[int64]bool, err error) {
	rows, positions := make([]outcomeRow, len(outcomes)), make([]int64, len(outcomes))
	for i := range outcomes {
		rows[i], positions[i] = newOutcomeRow(&outcomes[i]), outcomes[i].position
	}
	raw, err := json.Marshal(rows)
	if err != nil {
		return nil, err
	}
	from, at := `(SELECT position AS of, attempts, status, next::timestamp AT TIME ZONE 'UTC' AS next, at::timestamp AT TIME ZONE 'UTC' AS at, code, reason,
			decode(response, 'hex') AS response
		FROM jsonb_to_recordset($2::jsonb) AS j(position bigint, attempts int, status text, next text, at text, code int, reason text, response text))`, "$3::timestamptz"
	if tx.Dialect() == eventstore.SQLite {
		from, at = `(SELECT value->>'position' AS of, value->>'attempts' AS attempts, value->>'status' AS status, value->>'next' AS next,
				value->>'at' AS at, value->>'code' AS code, value->>'reason' AS reason, unhex(value->>'response') AS response
			FROM json_each($2))`, "$3"
	}
	// The list of positions makes Postgres look them up, however many deliveries there are. What is not finished is pending;
	// by the status, it would go through all that are.
	among, list := among(tx.Dialect(), 4, positions)
	touched, err := readPositions(ctx, tx, `
		UPDATE webhook_deliveries AS d
		   SET status = r.status, attempts = d.attempts + 1, next_attempt_at = r.next, last_attempt_at = r.at, last_status = r.code,
		       reason = r.reason, response = r.response, finished_at = CASE WHEN r.status = 'pending' THEN NULL ELSE `+at+` END
		  FROM `+from+` AS r
		 WHERE d.webhook = $1 AND d.position `+among+` AND d.position = r.of AND d.finished_at IS NULL AND d.attempts = r.attempts
		RETURNING position`, s.id, string(raw), now, list)
	written = make(map[int64]bool, len(touched))
	for _, position := range touched {
		written[position] = true
	}
	return written, err
}
