package projections

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"usher/eventstore"
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
			return insertParked(ctx, tx, w.Projection.Name(), e, cause.Error())
		})
	})
	if err != nil && !errors.Is(err, errCommitted) {
		return err
	}
	w.moved(e.Position)
	w.logger().ErrorContext(ctx, "event parked: it can't be applied", "type", e.Type, "position", e.Position,
		"stream", e.Stream.String(), slog.Any("error", cause))
	return nil
}

// parkBehind parks the events of users who are parked, and answers with the others. An erasure passes, and what is parked
// of its user is given up: it does not matter any more, and the user's rows have to go.
func (w *worker) parkBehind(ctx context.Context, tx eventstore.DB, events []eventstore.Event) ([]eventstore.Event, error) {
	parked, err := parkedSubjects(ctx, tx, w.Projection.Name())
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
			if _, err := tx.Exec(ctx, "DELETE FROM parked_events WHERE projection = $1 AND subject = $2", w.Projection.Name(), subjectOf(e)); err != nil {
				return nil, fmt.Errorf("give up parked events: %w", err)
			}
			pass = append(pass, e)
			continue
		}
		if err := insertParked(ctx, tx, w.Projection.Name(), e, ""); err != nil {
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

// Retry applies the parked events of a user in their order, each in a transaction of its own, and answers with how many
// it applied. It can run in any process, beside the running projection. An event that still can't be applied stays
// parked with those behind it, and Retry fails with its error.
func (r *Runner) Retry(ctx context.Context, subject uuid.UUID) (applied int, err error) {
	for {
		more, err := r.unpark(ctx, subject)
		if err != nil {
			return applied, fmt.Errorf("retry %s for %s: %w", r.Projection.Name(), subject, err)
		}
		if !more {
			return applied, nil
		}
		applied++
	}
}

// Skip gives up the first parked event of a user, which the read model then lacks until it is rebuilt, and applies those
// behind it as Retry does. It fails with ErrNotFound if that event is not at the given position.
func (r *Runner) Skip(ctx context.Context, subject uuid.UUID, position int64) (applied int, err error) {
	err = r.DB.Transact(ctx, func(tx eventstore.DB) error {
		first, _, err := r.firstParked(ctx, tx, subject)
		if err != nil {
			return err
		}
		if first != position {
			return ErrNotFound
		}
		return r.deleteParked(ctx, tx, position)
	})
	if err != nil {
		return 0, fmt.Errorf("skip %d of %s: %w", position, r.Projection.Name(), err)
	}
	return r.Retry(ctx, subject)
}

// unpark applies the first parked event of a user, if there is one.
func (r *Runner) unpark(ctx context.Context, subject uuid.UUID) (done bool, err error) {
	var position int64
	var poison error
	err = r.DB.Transact(ctx, func(tx eventstore.DB) error {
		var generation int
		position, generation, err = r.firstParked(ctx, tx, subject)
		if err != nil {
			return err
		}
		events, err := r.Log.ReadAll(ctx, position-1, 1)
		if err != nil {
			return err
		}
		if len(events) == 0 {
			return eventstore.ErrGap
		}
		if poison = r.Projection.Apply(ctx, tx, Generation{Number: generation}, events); poison != nil {
			return poison
		}
		return r.deleteParked(ctx, tx, position)
	})
	switch {
	case errors.Is(err, ErrNotFound):
		return false, nil
	case err != nil && poison != nil && !transient(err) && ctx.Err() == nil:
		_, noted := r.DB.Exec(ctx, "UPDATE parked_events SET error = $3 WHERE projection = $1 AND position = $2",
			r.Projection.Name(), position, errorText(poison.Error()))
		return false, errors.Join(err, noted)
	}
	return err == nil, err
}

// firstParked locks the projection against its runner and finds the first parked event of a user. It fails with
// ErrNotFound if there is none and with ErrUnknownProjection.
func (r *Runner) firstParked(ctx context.Context, tx eventstore.DB, subject uuid.UUID) (position int64, generation int, err error) {
	var code int
	err = tx.QueryRow(ctx, "UPDATE projections SET updated_at = $2 WHERE name = $1 RETURNING generation, code_version",
		r.Projection.Name(), time.Now().UTC()).Scan(&generation, &code)
	switch {
	case errors.Is(err, eventstore.ErrNoRows):
		return 0, 0, ErrUnknownProjection
	case err != nil:
		return 0, 0, err
	case code != r.Projection.CodeVersion():
		return 0, 0, ErrRebuildNeeded
	}
	err = tx.QueryRow(ctx, "SELECT position FROM parked_events WHERE projection = $1 AND subject = $2 ORDER BY position LIMIT 1",
		r.Projection.Name(), subject).Scan(&position)
	if errors.Is(err, eventstore.ErrNoRows) {
		err = ErrNotFound
	}
	return position, generation, err
}

func (r *Runner) deleteParked(ctx context.Context, tx eventstore.DB, position int64) error {
	_, err := tx.Exec(ctx, "DELETE FROM parked_events WHERE projection = $1 AND position = $2", r.Projection.Name(), position)
	return err
}
