package eventstore

import (
	"context"
	"fmt"

	"github.com/google/uuid"
)

// Confirm checks that the log has these events, in ascending order of their positions, each with its id where it says. It
// is for what came another way than from the log itself: the JetStream stream may be another log's, or have what was in
// this one before it was restored from a backup. In the transaction that acts on the events nothing can come between.
//
// It fails with ErrForeign.
func Confirm(ctx context.Context, db DB, events []Event) error {
	for len(events) > 0 {
		n := 1
		for n < len(events) && events[n].Position == events[n-1].Position+1 {
			n++
		}
		if err := confirmRun(ctx, db, events[:n]); err != nil {
			return err
		}
		events = events[n:]
	}
	return nil
}

// confirmRun is Confirm of events that follow each other.
func confirmRun(ctx context.Context, db DB, events []Event) error {
	first, last := events[0].Position, events[len(events)-1].Position
	rows, err := db.Query(ctx, "SELECT event_id FROM events WHERE position >= $1 AND position <= $2 ORDER BY position", first, last)
	if err != nil {
		return fmt.Errorf("confirm events: %w", err)
	}
	defer rows.Close()
	n := 0
	for ; rows.Next(); n++ {
		var id uuid.UUID
		if err := rows.Scan(&id); err != nil {
			return fmt.Errorf("confirm events: %w", err)
		}
		if n >= len(events) || id != events[n].ID {
			break
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("confirm events: %w", err)
	}
	if n < len(events) {
		return fmt.Errorf("%w: %s %s at %d", ErrForeign, events[n].Type, events[n].ID, events[n].Position)
	}
	return nil
}
