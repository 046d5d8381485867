package webhook

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
)

// purgeBatch bounds the deliveries that one transaction removes: a worker of the same webhook waits for it.
const purgeBatch = 1000

// Purged is how many deliveries a purge removed, or would.
type Purged struct {
	Delivered int `json:"delivered"`
	Dead      int `json:"dead_letters"`
}

func (p *Purged) add(status DeliveryStatus, n int) {
	if status == DeliveryDead {
		p.Dead += n
	} else {
		p.Delivered += n
	}
}

// purgeable are the states in which a delivery has ended.
var purgeable = []DeliveryStatus{DeliveryDelivered, DeliveryDead}

// Purge removes the deliveries of every webhook that ended before a time: those that were taken, and dead letters. One that
// is pending stays, however old. It works in small transactions beside workers and redrives; what it has removed when ctx
// ends or something fails is in its answer. A webhook whose deliveries can't be removed keeps no other's.
func (s *Service) Purge(ctx context.Context, before time.Time) (Purged, error) {
	var done Purged
	err := s.eachWebhook(ctx, func(id uuid.UUID) error {
		for _, status := range purgeable {
			n, err := s.purge(ctx, id, status, before.UTC())
			done.add(status, n)
			if err != nil {
				return fmt.Errorf("purge the deliveries of the webhook %s: %w", id, err)
			}
		}
		return nil
	})
	return done, err
}

// Purgeable is what Purge would remove.
func (s *Service) Purgeable(ctx context.Context, before time.Time) (Purged, error) {
	var found Purged
	err := s.eachWebhook(ctx, func(id uuid.UUID) error {
		for _, status := range purgeable {
			var n int
			err := s.DB.QueryRow(ctx, "SELECT count(*) FROM webhook_deliveries WHERE webhook = $1 AND "+hasStatus(status)+" AND finished_at < $2",
				id, before.UTC()).Scan(&n)
			if err != nil {
				return fmt.Errorf("count the deliveries of the webhook %s: %w", id, err)
			}
			found.add(status, n)
		}
		return nil
	})
	return found, err
}

// eachWebhook does something for every webhook that there is, whatever becomes of the others.
func (s *Service) eachWebhook(ctx context.Context, do func(id uuid.UUID) error) error {
	hooks, err := s.query(ctx, s.DB, withoutSecrets, "ORDER BY w.id")
	if err != nil {
		return err
	}
	var failed eventstore.Failures
	for _, hook := range hooks {
		if !failed.Add(ctx, do(hook.ID)) {
			break
		}
	}
	return failed.Err()
}

// purge removes what ended in one state, in the order of the positions, so that every row is looked at once.
func (s *Service) purge(ctx context.Context, id uuid.UUID, status DeliveryStatus, before time.Time) (removed int, err error) {
	for after := int64(0); ; {
		// Looked for outside of the transaction: on SQLite every other writer would wait for the search.
		var last int64
		var found int
		err := s.DB.QueryRow(ctx, `
			SELECT coalesce(max(position), 0), count(*)
			  FROM (SELECT position FROM webhook_deliveries WHERE webhook = $1 AND `+hasStatus(status)+`
			         AND finished_at < $2 AND position > $3 ORDER BY position LIMIT $4) AS batch`, id, before, after, purgeBatch).Scan(&last, &found)
		if err != nil || found == 0 {
			return removed, err
		}
		n, err := s.purgeRange(ctx, id, status, before, after, last)
		removed += n
		if err != nil || found < purgeBatch {
			return removed, err
		}
		after = last
	}
}

// purgeRange removes what is between two positions, under the lock of the deliveries, and tells the worker how many dead
// letters are left: it takes no events while there are too many.
func (s *Service) purgeRange(ctx context.Context, id uuid.UUID, status DeliveryStatus, before time.Time, after, last int64) (removed int, err error) {
	err = s.DB.Transact(ctx, func(tx eventstore.DB) error {
		touched, err := tx.Exec(ctx, "UPDATE webhook_progress SET changes = changes + 1 WHERE webhook = $1", id)
		if err != nil || touched == 0 { // it was deleted, and its deliveries with it
			return err
		}
		n, err := tx.Exec(ctx, `DELETE FROM webhook_deliveries
			WHERE webhook = $1 AND `+hasStatus(status)+` AND finished_at < $2 AND position > $3 AND position <= $4`, id, before, after, last)
		removed = int(n)
		if err != nil || status != DeliveryDead {
			return err
		}
		_, err = tx.Exec(ctx, "UPDATE webhook_progress SET dead = dead - $2 WHERE webhook = $1", id, n)
		return err
	})
	if err != nil {
		return 0, err
	}
	s.signal()
	return removed, nil
}
