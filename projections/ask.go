package projections

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
)

// What an operator wants done needs the right to change the tables of read models, which not every process has: the API's
// has none. Such a process only writes down what is wanted, and one that runs the projection does it. A retry is a mark on
// the first parked event of a user, a generation that is to go is a row of discarded_generations, and a standby that is to be the
// live one again has the state for it.

// ErrRequested: what was asked for is written down, and no process that runs the projection has come to it yet. It need not
// be asked for again.
var ErrRequested = errors.New("no process that runs the projection has come to it yet")

// requestWait bounds how long a request waits for a process that runs the projection, unless Operator.RequestWait does.
const requestWait = 5 * time.Second

// RequestRetry is Retry, done by a process that runs the projection. It waits a few seconds for what comes of it, and
// fails as Retry does, or with ErrRequested.
func (o *Operator) RequestRetry(ctx context.Context, name string, user uuid.UUID) error {
	m, err := o.model(name)
	if err == nil {
		_, err = m.readLive(ctx, m.db)
	}
	if err == nil {
		err = m.requestRetry(ctx, m.db, user)
	}
	if err == nil {
		err = m.awaitRetry(ctx, user, cmp.Or(o.RequestWait, requestWait))
	}
	if err != nil {
		return fmt.Errorf("request a retry of %s: %w", name, err)
	}
	return nil
}

// RequestSkip is Skip, with what is behind the skipped event applied by a process that runs the projection. It answers with
// the position of the event that records the skip, and fails as Skip does, or with ErrRequested where that process has not
// come to it in a few seconds: the event is skipped then all the same.
func (o *Operator) RequestSkip(ctx context.Context, name string, user uuid.UUID, position int64, meta eventstore.Metadata) (recorded int64, err error) {
	m, err := o.model(name)
	if err == nil {
		_, err = m.readLive(ctx, m.db)
	}
	if err == nil {
		recorded, err = m.skip(ctx, user, position, meta)
	}
	var next *PoisonError
	if err == nil {
		if err = m.awaitRetry(ctx, user, cmp.Or(o.RequestWait, requestWait)); errors.As(err, &next) {
			err = nil
		}
	}
	if err != nil {
		return recorded, fmt.Errorf("request that position %d of %s is skipped: %w", position, name, err)
	}
	return recorded, nil
}

// RequestCancel is Cancel, with the tables dropped by a process that runs the projection, within a second where there is one.
func (o *Operator) RequestCancel(ctx context.Context, name string) error {
	return o.drop(ctx, "cancel the rebuild of", name, roleNext, model.discard, ErrNoRebuild)
}

// requestRollback is rollback, done by a process that runs the projection. It waits for what comes of it, and fails as rollback
// does, or with ErrRequested.
func (m model) requestRollback(ctx context.Context, actor string, wait time.Duration) (generation int, err error) {
	b, err := m.readStandby(ctx)
	if err != nil {
		return 0, err
	}
	if _, err := m.db.Exec(ctx, "UPDATE projection_generations SET state = $4, actor = $5, error = '' WHERE projection = $1 AND role = $2 AND generation = $3",
		m.name(), string(roleStandby), b.number, string(stateRollback), actor); err != nil {
		return 0, fmt.Errorf("ask for it: %w", err)
	}
	for deadline := time.Now().Add(wait); ; {
		now, err := m.readBeside(ctx, m.db, roleStandby)
		if err != nil && !errors.Is(err, eventstore.ErrNoRows) {
			return 0, err
		}
		gone := err != nil || now.number != b.number
		l, err := m.readLive(ctx, m.db) // after the standby: whoever exchanges them does both at once
		switch {
		case err != nil:
			return 0, err
		case l.generation == b.number:
			return b.number, nil
		case gone:
			return 0, ErrNoStandby
		case now.state != stateRollback:
			return 0, errors.New(now.failure)
		case time.Now().After(deadline):
			return 0, ErrRequested
		}
		if err := eventstore.Pause(ctx, firstWait); err != nil {
			return 0, err
		}
	}
}

// doRollback makes the standby the live generation again, where that is asked for of this version of the code. Where it can't
// be, whoever asked is told why, and has to ask again.
func (m model) doRollback(ctx context.Context, ttl time.Duration) error {
	b, err := m.readBeside(ctx, m.db, roleStandby)
	switch {
	case errors.Is(err, eventstore.ErrNoRows) || err == nil && (b.state != stateRollback || b.code != m.projection.CodeVersion()):
		return nil
	case err != nil:
		return err
	}
	_, err = m.rollback(ctx, b.actor, ttl)
	if err == nil || errors.Is(err, ErrRebuilding) || transient(err) || ctx.Err() != nil {
		return err
	}
	_, noted := m.db.Exec(ctx, "UPDATE projection_generations SET state = $4, error = $5 WHERE projection = $1 AND role = $2 AND generation = $3",
		m.name(), string(roleStandby), b.number, string(stateStandby), errorText(err.Error()))
	return errors.Join(err, noted)
}

// parkedOf is the condition for the parked events of a user, or of every user for the nil UUID, and its arguments.
func (m model) parkedOf(user uuid.UUID) (where string, args []any) {
	if user == uuid.Nil {
		return "projection = $1", []any{m.name()}
	}
	return "projection = $1 AND subject = $2", []any{m.name(), user}
}

// requestRetry marks the first parked event of a user, or of every user for the nil UUID. It fails with ErrNotParked.
func (m model) requestRetry(ctx context.Context, db eventstore.DB, user uuid.UUID) error {
	where, args := m.parkedOf(user)
	marked, err := db.Exec(ctx, `UPDATE parked_events SET retry = TRUE WHERE projection = $1 AND position IN
		(SELECT min(position) FROM parked_events WHERE `+where+` GROUP BY subject)`, args...)
	if err == nil && marked == 0 {
		err = ErrNotParked
	}
	return err
}

// awaitRetry waits until nothing of a user, or of any, is marked, and fails with the *PoisonError of the first event that
// is still parked, or with ErrRequested.
func (m model) awaitRetry(ctx context.Context, user uuid.UUID, wait time.Duration) error {
	deadline := time.Now().Add(wait)
	for {
		marked, err := m.marked(ctx, user)
		switch {
		case err != nil:
			return err
		case len(marked) == 0:
			return m.stillParked(ctx, user)
		case time.Now().After(deadline):
			return ErrRequested
		}
		if err := eventstore.Pause(ctx, firstWait); err != nil {
			return err
		}
	}
}

// marked are the users, or the given one, whose parked events are to be applied again, in the order of the first of them.
func (m model) marked(ctx context.Context, user uuid.UUID) ([]uuid.UUID, error) {
	where, args := m.parkedOf(user)
	return m.subjects(ctx, "SELECT subject FROM parked_events WHERE "+where+" AND retry GROUP BY subject ORDER BY min(position)", args...)
}

// stillParked is the *PoisonError of the first event that is parked of a user, or of any, because it can't be applied.
func (m model) stillParked(ctx context.Context, user uuid.UUID) error {
	where, args := m.parkedOf(user)
	var position int64
	var text string
	err := m.db.QueryRow(ctx, "SELECT position, error FROM parked_events WHERE "+where+" AND error <> '' ORDER BY position LIMIT 1", args...).
		Scan(&position, &text)
	if errors.Is(err, eventstore.ErrNoRows) {
		return nil
	}
	var e eventstore.Event
	if err == nil {
		e, err = m.event(ctx, position)
	}
	if err != nil {
		return err
	}
	return m.poison(e, errors.New(text))
}

// doRetries applies the parked events that are marked, while it is this process that keeps the read model up to date.
func (w *worker) doRetries(ctx context.Context) error {
	for {
		err := w.retryMarked(ctx)
		if err != nil && ctx.Err() == nil {
			w.logTo.WarnContext(ctx, "parked events can't be applied yet", slog.Any("error", err))
		}
		if err := eventstore.Pause(ctx, w.poll()); err != nil {
			return err
		}
	}
}

func (w *worker) retryMarked(ctx context.Context) error {
	users, err := w.marked(ctx, uuid.Nil)
	if err != nil {
		return err
	}
	var errs error
	for _, user := range users {
		applied, err := w.retry(ctx, user)
		if applied > 0 {
			w.logTo.InfoContext(ctx, "parked events applied", slog.String("user", user.String()), slog.Int("events", applied))
		}
		errs = errors.Join(errs, err)
	}
	return errs
}

// discard takes its role from a generation, if there is one and the condition holds, and says whether it did. Whoever
// fills it notices at the next batch; the tables are dropped by dropDiscarded.
func (m model) discard(ctx context.Context, r role, is func(beside) bool) (discarded bool, err error) {
	err = m.db.Transact(ctx, func(tx eventstore.DB) error {
		b, err := m.readBeside(ctx, tx, r)
		if errors.Is(err, eventstore.ErrNoRows) {
			return nil
		}
		if err == nil && is(b) {
			discarded, err = true, m.detachForGood(ctx, tx, r)
		}
		return err
	})
	if err != nil {
		return false, fmt.Errorf("drop the %s generation of %s: %w", r, m.name(), err)
	}
	return discarded, nil
}

// detachForGood takes its role from a generation, if there is one, and notes that its tables are to be dropped.
func (m model) detachForGood(ctx context.Context, tx eventstore.DB, r role) error {
	number, err := m.detach(ctx, tx, r)
	if errors.Is(err, eventstore.ErrNoRows) {
		return nil
	}
	if err == nil {
		_, err = tx.Exec(ctx, "INSERT INTO discarded_generations (projection, generation) VALUES ($1, $2) ON CONFLICT DO NOTHING", m.name(), number)
	}
	return err
}

// dropDiscarded drops the tables of the generations that were discarded.
func (m model) dropDiscarded(ctx context.Context) error {
	numbers, err := m.discarded(ctx)
	if err != nil {
		return err
	}
	for _, number := range numbers {
		err := m.db.Transact(ctx, func(tx eventstore.DB) error {
			// Whoever comes second finds no row, and does nothing.
			touched, err := tx.Exec(ctx, "DELETE FROM discarded_generations WHERE projection = $1 AND generation = $2", m.name(), number)
			if err != nil || touched == 0 {
				return err
			}
			return m.dropTables(ctx, tx, number)
		})
		if err != nil {
			return fmt.Errorf("drop generation %d of %s: %w", number, m.name(), err)
		}
	}
	return nil
}

// discarded are the generations whose tables are to be dropped.
func (m model) discarded(ctx context.Context) (numbers []int, err error) {
	rows, err := m.db.Query(ctx, "SELECT generation FROM discarded_generations WHERE projection = $1", m.name())
	if err != nil {
		return nil, fmt.Errorf("look for generations to drop: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var n int
		if err := rows.Scan(&n); err != nil {
			return nil, fmt.Errorf("look for generations to drop: %w", err)
		}
		numbers = append(numbers, n)
	}
	return numbers, rows.Err()
}
