package projections

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity"
)

// retry applies the parked events of a user in their order, each in a transaction of its own, and answers with how many
// it applied.
func (m model) retry(ctx context.Context, subject uuid.UUID) (applied int, err error) {
	for {
		more, err := m.unpark(ctx, subject)
		if err != nil || !more {
			return applied, err
		}
		applied++
	}
}

// unpark applies the first parked event of a user, if there is one.
func (m model) unpark(ctx context.Context, subject uuid.UUID) (done bool, err error) {
	var poison *PoisonError
	err = m.db.Transact(ctx, func(tx eventstore.DB) error {
		l, err := m.lockLive(ctx, tx)
		if err != nil {
			return err
		}
		if l.code != m.projection.CodeVersion() {
			return ErrOtherVersion
		}
		e, err := m.firstParked(ctx, tx, subject)
		if err != nil {
			return err
		}
		if err := Apply(ctx, tx, m.projection, m.numbered(l.generation), []eventstore.Event{e}); err != nil {
			poison = m.poison(e, err)
			return poison
		}
		return m.deleteParked(ctx, tx, e.Position)
	})
	switch {
	case errors.Is(err, ErrNotParked):
		return false, nil
	case err != nil && poison != nil && !transient(err) && ctx.Err() == nil:
		_, noted := m.db.Exec(ctx, "UPDATE parked_events SET error = $3, retry = FALSE WHERE projection = $1 AND position = $2",
			m.name(), poison.Position, errorText(poison.Err.Error()))
		return false, errors.Join(err, noted)
	}
	return err == nil, err
}

func (m model) poison(e eventstore.Event, cause error) *PoisonError {
	return &PoisonError{Projection: m.name(), Position: e.Position, Type: e.Type, Subject: subjectOf(e), Err: cause}
}

// firstParked is the first parked event of a user. It fails with ErrNotParked if there is none.
func (m model) firstParked(ctx context.Context, db eventstore.DB, subject uuid.UUID) (eventstore.Event, error) {
	var position int64
	err := db.QueryRow(ctx, "SELECT position FROM parked_events WHERE projection = $1 AND subject = $2 ORDER BY position LIMIT 1",
		m.name(), subject).Scan(&position)
	if errors.Is(err, eventstore.ErrNoRows) {
		err = ErrNotParked
	}
	if err != nil {
		return eventstore.Event{}, err
	}
	return m.event(ctx, position)
}

// event reads one event of the log. It fails with ErrNotParked where the log does not reach that far.
func (m model) event(ctx context.Context, position int64) (eventstore.Event, error) {
	events, err := m.log.ReadAll(ctx, position-1, 1)
	if err == nil && len(events) == 0 {
		err = ErrNotParked
	}
	if err != nil {
		return eventstore.Event{}, err
	}
	return events[0], nil
}

func (m model) deleteParked(ctx context.Context, tx eventstore.DB, position int64) error {
	_, err := tx.Exec(ctx, "DELETE FROM parked_events WHERE projection = $1 AND position = $2", m.name(), position)
	return err
}

// parkedUsers are the users that have parked events, in the order of the first of them.
func (m model) parkedUsers(ctx context.Context) ([]uuid.UUID, error) {
	return m.subjects(ctx, "SELECT subject FROM parked_events WHERE projection = $1 GROUP BY subject ORDER BY min(position)", m.name())
}

func (m model) subjects(ctx context.Context, query string, args ...any) (users []uuid.UUID, err error) {
	rows, err := m.db.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var user uuid.UUID
		if err := rows.Scan(&user); err != nil {
			return nil, err
		}
		users = append(users, user)
	}
	return users, rows.Err()
}

// skip gives up an event that stands in the way: the first parked one of its user, or the one that stopped a rebuild or
// the standby. The record is in the log before anything is done, so that nothing is ever given up without one; a
// skip that was interrupted can be repeated. What is parked behind the event is marked, to be applied by whoever comes to it.
func (m model) skip(ctx context.Context, subject uuid.UUID, position int64, meta eventstore.Metadata) (recorded int64, err error) {
	e, err := m.event(ctx, position)
	if err != nil {
		return 0, err
	}
	if subjectOf(e) != subject {
		return 0, ErrNotParked
	}
	if err := m.inTheWay(ctx, m.db, e, func(context.Context, eventstore.DB, obstacle) error { return nil }); err != nil {
		return 0, err
	}
	command := uuid.NewSHA1(skipNamespace, fmt.Appendf(nil, "%s/%d", m.name(), position))
	record := identity.NewEvent(identity.ProjectionEventSkipped{Name: m.name(), Position: position, Type: e.Type, User: subject})
	result, err := m.log.Append(ctx, m.append(command, meta, record))
	if err != nil {
		return 0, err
	}
	return result.Position, m.db.Transact(ctx, func(tx eventstore.DB) error {
		if _, err := m.lockLive(ctx, tx); err != nil {
			return err
		}
		return m.inTheWay(ctx, tx, e, func(ctx context.Context, tx eventstore.DB, o obstacle) error {
			if err := insertSkipped(ctx, tx, m.name(), o.generation, e); err != nil {
				return err
			}
			if o.role == "" {
				return m.passOver(ctx, tx, e)
			}
			_, err := tx.Exec(ctx, `UPDATE projection_generations SET error = '', state = CASE state WHEN 'failed' THEN 'requested' ELSE state END
				WHERE projection = $1 AND role = $2`, m.name(), string(o.role))
			return err
		})
	})
}

// passOver takes an event from those that are parked, and has those behind it applied.
func (m model) passOver(ctx context.Context, tx eventstore.DB, e eventstore.Event) error {
	if err := m.deleteParked(ctx, tx, e.Position); err != nil {
		return err
	}
	if err := m.requestRetry(ctx, tx, subjectOf(e)); !errors.Is(err, ErrNotParked) {
		return err
	}
	return nil
}

var skipNamespace = uuid.MustParse("0d0c6a6e-3c0b-5c55-9d4e-5f2f3b1f2a77")

// obstacle is a generation that an event stops; its role is empty for the live one.
type obstacle struct {
	role       role
	generation int
}

// inTheWay does something for every generation that an event stops. It fails with ErrNotParked if there is none.
func (m model) inTheWay(ctx context.Context, db eventstore.DB, e eventstore.Event, do func(context.Context, eventstore.DB, obstacle) error) error {
	var found []obstacle
	first, err := m.firstParked(ctx, db, subjectOf(e))
	switch {
	case err == nil && first.Position == e.Position:
		l, err := m.readLive(ctx, db)
		if err != nil {
			return err
		}
		found = append(found, obstacle{"", l.generation})
	case err != nil && !errors.Is(err, ErrNotParked):
		return err
	}
	for _, r := range []role{roleNext, roleStandby} {
		b, err := m.readBeside(ctx, db, r)
		if err != nil && !errors.Is(err, eventstore.ErrNoRows) {
			return err
		}
		if err == nil && b.failure != "" && b.position+1 == e.Position {
			found = append(found, obstacle{r, b.number})
		}
	}
	if len(found) == 0 {
		return ErrNotParked
	}
	for _, o := range found {
		if err := do(ctx, db, o); err != nil {
			return err
		}
	}
	return nil
}

// insertSkipped notes that a generation lacks an event.
func insertSkipped(ctx context.Context, tx eventstore.DB, name string, generation int, e eventstore.Event) error {
	_, err := tx.Exec(ctx, `INSERT INTO skipped_events (projection, generation, position, subject, skipped_at)
		VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`, name, generation, e.Position, subjectOf(e), time.Now().UTC())
	if err != nil {
		return fmt.Errorf("note the skipped event at %d: %w", e.Position, err)
	}
	return nil
}
