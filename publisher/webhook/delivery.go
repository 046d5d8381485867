package webhook

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity"
)

// DeliveryStatus is how a delivery stands.
type DeliveryStatus string

// The states of a delivery.
const (
	DeliveryPending   DeliveryStatus = "pending"   // to be sent, or sent again
	DeliveryDelivered DeliveryStatus = "delivered" // the endpoint has taken it
	DeliveryDead      DeliveryStatus = "dead"      // set aside after its attempts
)

// Delivery is one event on its way to one endpoint.
type Delivery struct {
	ID            uuid.UUID      `json:"id"`
	EventID       uuid.UUID      `json:"event_id"` // webhook-id, too
	Type          string         `json:"type"`
	Position      int64          `json:"position"`
	Status        DeliveryStatus `json:"status"`
	Attempts      int            `json:"attempts"`                 // since it was stored or redriven
	NextAttemptAt time.Time      `json:"next_attempt_at,omitzero"` // absent while it waits for an earlier one of its user
	LastAttemptAt time.Time      `json:"last_attempt_at,omitzero"` //
	LastStatus    int            `json:"last_status,omitempty"`    // of HTTP; absent where there was no answer
	Reason        string         `json:"reason,omitempty"`         // why the last attempt failed
	Response      string         `json:"response,omitempty"`       // the beginning of the last answer that was no success
	CreatedAt     time.Time      `json:"created_at"`               //
	FinishedAt    time.Time      `json:"finished_at,omitzero"`     // when it was taken, or set aside
}

// DeliveryFilter selects deliveries, the newest first.
type DeliveryFilter struct {
	Status DeliveryStatus // any when empty
	Before int64          // only those of earlier positions; 0 for all
	Limit  int            // at most MaxLimit; DefaultLimit when 0
}

// Deliveries answers with a page of a webhook's deliveries. It fails with ErrNotFound, or identity.CodeInvalidRequest for a
// filter that there is not.
func (s *Service) Deliveries(ctx context.Context, id uuid.UUID, f DeliveryFilter) ([]Delivery, error) {
	switch f.Status {
	case "", DeliveryPending, DeliveryDelivered, DeliveryDead:
	default:
		return nil, refuse(identity.CodeInvalidRequest, "the status of a delivery is %s, %s or %s", DeliveryPending, DeliveryDelivered, DeliveryDead)
	}
	if f.Limit < 0 || f.Limit > MaxLimit {
		return nil, refuse(identity.CodeInvalidRequest, "the limit is a number from 1 to %d", MaxLimit)
	}
	if _, err := s.Get(ctx, id); err != nil {
		return nil, err
	}
	where, args := "webhook = $1", []any{id}
	if f.Status != "" {
		where += " AND " + hasStatus(f.Status)
	}
	if f.Before > 0 {
		args = append(args, f.Before)
		where += fmt.Sprintf(" AND position < $%d", len(args))
	}
	args = append(args, cmp.Or(f.Limit, DefaultLimit))
	list, err := s.readDeliveries(ctx, id, where+fmt.Sprintf(" ORDER BY position DESC LIMIT $%d", len(args)), args...)
	if err != nil {
		return nil, fmt.Errorf("read the deliveries of the webhook %s: %w", id, err)
	}
	return list, nil
}

// hasStatus is the condition that a delivery is in a state. It is part of the text, because an index of what is not
// delivered serves only a query that can be seen to ask for nothing else.
func hasStatus(status DeliveryStatus) string { return "status = '" + string(status) + "'" }

func (s *Service) readDeliveries(ctx context.Context, id uuid.UUID, where string, args ...any) ([]Delivery, error) {
	type kept struct {
		subject  uuid.UUID
		isUser   bool
		response []byte
	}
	rows, err := s.DB.Query(ctx, `SELECT event_id, type, position, status, attempts, next_attempt_at, last_attempt_at, last_status, reason,
		response, subject, is_user, created_at, finished_at FROM webhook_deliveries WHERE `+where, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	list, responses := []Delivery{}, []kept{}
	for rows.Next() {
		var d Delivery
		var k kept
		var status string
		var next, last, finished *time.Time
		var code *int
		if err := rows.Scan(&d.EventID, &d.Type, &d.Position, &status, &d.Attempts, &next, &last, &code, &d.Reason,
			&k.response, &k.subject, &k.isUser, &d.CreatedAt, &finished); err != nil {
			return nil, err
		}
		d.ID, d.Status, d.CreatedAt = deliveryID(id, d.EventID, d.Position), DeliveryStatus(status), d.CreatedAt.UTC()
		if code != nil {
			d.LastStatus = *code
		}
		for to, from := range map[*time.Time]*time.Time{&d.NextAttemptAt: next, &d.LastAttemptAt: last, &d.FinishedAt: finished} {
			if from != nil {
				*to = from.UTC()
			}
		}
		list, responses = append(list, d), append(responses, k)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	rows.Close() // opening asks the database for keys
	for i, k := range responses {
		if list[i].Response, err = s.openResponse(ctx, list[i].ID, k.subject, k.isUser, k.response); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// Redrive makes dead letters pending again: the given delivery, or all of the webhook's where it is the nil UUID. It answers
// with how many. They go out in the order of their positions, before what waits of the same user. It fails with
// ErrNotFound, or ErrConflict where the delivery is not dead.
func (s *Service) Redrive(ctx context.Context, id, delivery uuid.UUID) (redriven int, err error) {
	which, args := "", []any{id}
	if delivery != uuid.Nil {
		position, ok := positionOf(id, delivery)
		if !ok { // no row has it
			position = 0
		}
		which, args = " AND position = $2", append(args, position)
	}
	err = s.DB.Transact(ctx, func(tx eventstore.DB) error {
		// The lock of the deliveries first: see the table.
		if touched, err := tx.Exec(ctx, "UPDATE webhook_progress SET changes = changes + 1 WHERE webhook = $1", id); err != nil {
			return err
		} else if touched == 0 {
			return errNoWebhook()
		}
		touched, err := tx.Exec(ctx, `UPDATE webhook_deliveries SET status = 'pending', attempts = 0, next_attempt_at = NULL, finished_at = NULL
			WHERE webhook = $1 AND status = 'dead'`+which, args...)
		if err != nil {
			return err
		}
		switch redriven = int(touched); {
		case redriven == 0 && delivery != uuid.Nil:
			return notDead(ctx, tx, which, args)
		case redriven == 0:
			return nil
		}
		if _, err := tx.Exec(ctx, "UPDATE webhook_progress SET dead = dead - $2, pending = pending + $2 WHERE webhook = $1", id, redriven); err != nil {
			return err
		}
		return lead(ctx, tx, id, s.now())
	})
	if err != nil {
		return 0, fmt.Errorf("redrive deliveries of the webhook %s: %w", id, err)
	}
	s.signal()
	return redriven, nil
}

// notDead says why a delivery was not redriven.
func notDead(ctx context.Context, tx eventstore.DB, which string, args []any) error {
	var status string
	err := tx.QueryRow(ctx, "SELECT status FROM webhook_deliveries WHERE webhook = $1"+which, args...).Scan(&status)
	switch {
	case errors.Is(err, eventstore.ErrNoRows):
		return refuse(identity.CodeNotFound, "the webhook has no such delivery")
	case err != nil:
		return err
	}
	return refuse(identity.CodeConflict, "the delivery is %s; dead letters can be redriven", status)
}

// lead gives the first pending delivery of every user a time, where none of the user's has one.
func lead(ctx context.Context, tx eventstore.DB, webhook uuid.UUID, now time.Time) error {
	_, err := tx.Exec(ctx, `
		UPDATE webhook_deliveries AS d SET next_attempt_at = $2
		 WHERE d.webhook = $1 AND d.status = 'pending' AND d.next_attempt_at IS NULL
		   AND NOT EXISTS (SELECT 1 FROM webhook_deliveries h WHERE h.webhook = d.webhook AND h.subject = d.subject AND h.status = 'pending'
		                                                       AND (h.next_attempt_at IS NOT NULL OR h.position < d.position))`, webhook, now)
	return err
}

// leadNext gives the first pending delivery of each of some users a time, after an earlier one was finished. Which those
// are is asked first: in one statement, Postgres goes through all deliveries instead of looking up a few.
func leadNext(ctx context.Context, tx eventstore.DB, webhook uuid.UUID, subjects []uuid.UUID, now time.Time) error {
	if len(subjects) == 0 {
		return nil
	}
	raw, err := json.Marshal(subjects)
	if err != nil {
		return err
	}
	from := "(SELECT value::uuid AS subject FROM jsonb_array_elements_text($2::jsonb) OFFSET 0)"
	if tx.Dialect() == eventstore.SQLite {
		from = "(SELECT value AS subject FROM json_each($2))"
	}
	// A range, whose rows come in the order of the index of those that wait: for equal subjects, Postgres may prefer to go
	// through an index of positions and look for the subject there.
	next, err := readPositions(ctx, tx, `
		SELECT position FROM (SELECT (SELECT d.position FROM webhook_deliveries d
		                               WHERE d.webhook = $1 AND d.status = 'pending' AND d.subject >= s.subject AND d.subject <= s.subject
		                               ORDER BY d.subject, d.position LIMIT 1) AS position FROM `+from+` AS s) AS first
		 WHERE position IS NOT NULL`, webhook, string(raw))
	if err != nil || len(next) == 0 {
		return err
	}
	among, positions := among(tx.Dialect(), 3, next)
	_, err = tx.Exec(ctx, "UPDATE webhook_deliveries SET next_attempt_at = $2 WHERE webhook = $1 AND position "+among+" AND next_attempt_at IS NULL",
		webhook, now, positions)
	return err
}

// readPositions is the answer to a query for positions.
func readPositions(ctx context.Context, tx eventstore.DB, query string, args ...any) (list []int64, err error) {
	rows, err := tx.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var position int64
		if err := rows.Scan(&position); err != nil {
			return nil, err
		}
		list = append(list, position)
	}
	return list, rows.Err()
}

// among is the condition that a column's value is one of a list, which is the placeholder n, and the placeholder's value.
func among(d eventstore.Dialect, n int, positions []int64) (condition string, list any) {
	if d != eventstore.SQLite {
		return fmt.Sprintf("= ANY ($%d)", n), positions
	}
	raw, err := json.Marshal(positions)
	if err != nil { // numbers can be expressed in JSON
		panic(err)
	}
	return fmt.Sprintf("IN (SELECT value FROM json_each($%d))", n), string(raw)
}

// readDue reads the deliveries of a webhook that have a time, the earliest first.
func (s *Service) readDue(ctx context.Context, webhook uuid.UUID, limit int) ([]*parcel, error) {
	rows, err := s.DB.Query(ctx, `SELECT event_id, position, subject, is_user, type, attempts, next_attempt_at FROM webhook_deliveries
		WHERE webhook = $1 AND next_attempt_at IS NOT NULL ORDER BY next_attempt_at, position LIMIT $2`, webhook, limit)
	if err != nil {
		return nil, fmt.Errorf("read what is due: %w", err)
	}
	defer rows.Close()
	var list []*parcel
	for rows.Next() {
		p := &parcel{stored: true}
		if err := rows.Scan(&p.eventID, &p.position, &p.subject, &p.isUser, &p.eventType, &p.attempts, &p.at); err != nil {
			return nil, fmt.Errorf("read what is due: %w", err)
		}
		list = append(list, p)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read what is due: %w", err)
	}
	return list, nil
}
