package projections

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
)

// Parked is an event that a projection could not apply. The later events of its user wait behind it.
type Parked struct {
	Position int64     `json:"position"`
	Subject  uuid.UUID `json:"subject"` // the user, or the system stream
	Error    string    `json:"error"`
	ParkedAt time.Time `json:"parked_at"`
}

const listedPoison = 20

func poisonEvents(ctx context.Context, db eventstore.DB, name string) ([]Parked, error) {
	rows, err := db.Query(ctx, `SELECT position, subject, error, parked_at FROM parked_events
		WHERE projection = $1 AND error <> '' ORDER BY position LIMIT $2`, name, listedPoison)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []Parked
	for rows.Next() {
		var p Parked
		if err := rows.Scan(&p.Position, &p.Subject, &p.Error, &p.ParkedAt); err != nil {
			return nil, err
		}
		p.ParkedAt = p.ParkedAt.UTC()
		list = append(list, p)
	}
	return list, rows.Err()
}

// Skipped is an event that an operator gave up.
type Skipped struct {
	Position  int64     `json:"position"`
	Subject   uuid.UUID `json:"subject"` // the user, or the system stream
	SkippedAt time.Time `json:"skipped_at"`
}

func skippedEvents(ctx context.Context, db eventstore.DB, name string, generation int) ([]Skipped, error) {
	rows, err := db.Query(ctx, `SELECT position, subject, skipped_at FROM skipped_events
		WHERE projection = $1 AND generation = $2 ORDER BY skipped_at DESC, position LIMIT $3`, name, generation, listedPoison)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []Skipped
	for rows.Next() {
		var s Skipped
		if err := rows.Scan(&s.Position, &s.Subject, &s.SkippedAt); err != nil {
			return nil, err
		}
		s.SkippedAt = s.SkippedAt.UTC()
		list = append(list, s)
	}
	return list, rows.Err()
}

// errBroken: event after event can't be applied, so it is not the events.
var errBroken = errors.New("no event can be applied")

// maxPoison is how many events in a row are parked before the projection itself is taken to be broken.
const maxPoison = 20

// maxErrorText bounds the error that is stored with a parked event.
const maxErrorText = 2000

// park sets a poison event aside and moves on.
func (w *worker) park(ctx context.Context, e eventstore.Event, cause error) error {
	if w.poisoned++; w.poisoned > maxPoison {
		return fmt.Errorf("%w: %w", errBroken, cause)
	}
	err := w.persist(ctx, "park an event", func(ctx context.Context) error {
		return w.DB.Transact(ctx, func(tx eventstore.DB) error {
			if _, err := w.advance(ctx, tx, e); err != nil {
				return err
			}
			return insertParked(ctx, tx, w.name(), e, cause.Error())
		})
	})
	if errors.Is(err, errExchanged) { // perhaps it can be applied to the other generation
		return w.apply(ctx, []eventstore.Event{e})
	}
	if err != nil && !errors.Is(err, errCommitted) {
		return err
	}
	w.moved(e.Position)
	w.logTo.ErrorContext(ctx, "event parked: it can't be applied", "type", e.Type, "position", e.Position,
		"stream", e.Stream.String(), slog.Any("error", cause))
	return nil
}

// parkBehind parks the events of users who are parked, and answers with the others. An erasure passes, and what is parked
// of its user is given up: it does not matter any more, and the user's rows have to go.
func (w *worker) parkBehind(ctx context.Context, tx eventstore.DB, events []eventstore.Event) ([]eventstore.Event, error) {
	parked, err := parkedSubjects(ctx, tx, w.name())
	if err != nil {
		return nil, fmt.Errorf("read parked events: %w", err)
	}
	pass := make([]eventstore.Event, 0, len(events))
	for _, e := range events {
		if _, behind := parked[subjectOf(e)]; !behind {
			pass = append(pass, e)
			continue
		}
		if e.Type == eventstore.TypeErased {
			if _, err := tx.Exec(ctx, "DELETE FROM parked_events WHERE projection = $1 AND subject = $2", w.name(), subjectOf(e)); err != nil {
				return nil, fmt.Errorf("give up parked events: %w", err)
			}
			pass = append(pass, e)
			continue
		}
		if err := insertParked(ctx, tx, w.name(), e, ""); err != nil {
			return nil, err
		}
	}
	return pass, nil
}

func parkedSubjects(ctx context.Context, tx eventstore.DB, name string) (map[uuid.UUID]struct{}, error) {
	rows, err := tx.Query(ctx, "SELECT DISTINCT subject FROM parked_events WHERE projection = $1", name)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	parked := map[uuid.UUID]struct{}{}
	for rows.Next() {
		var subject uuid.UUID
		if err := rows.Scan(&subject); err != nil {
			return nil, err
		}
		parked[subject] = struct{}{}
	}
	return parked, rows.Err()
}

func insertParked(ctx context.Context, tx eventstore.DB, name string, e eventstore.Event, text string) error {
	_, err := tx.Exec(ctx, `INSERT INTO parked_events (projection, position, subject, error, parked_at)
		VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`, name, e.Position, subjectOf(e), errorText(text), time.Now().UTC())
	if err != nil {
		return fmt.Errorf("park the event at %d: %w", e.Position, err)
	}
	return nil
}

// errorText is an error in a form that a database stores.
func errorText(text string) string {
	clean := []rune(text)
	for i, r := range clean {
		if r == 0 {
			clean[i] = '\uFFFD'
		}
	}
	return string(clean[:min(len(clean), maxErrorText)])
}
