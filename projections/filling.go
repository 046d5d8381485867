package projections

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
)

// filling brings a generation that is not the live one up from the log. Each batch moves the generation's checkpoint from
// where the batch begins, in the transaction that applies it, so of several processes that try only one gets it in, and
// one that was killed is gone on from.
//
// Nothing is parked in such a generation: an event that can't be applied stops it with a *PoisonError, unless an operator
// has given the event up before, or its user was erased since, so that what it would have changed has to go anyway.
type filling struct {
	model
	role       role
	generation Generation
	position   int64

	began  time.Time // of this run, which began at first
	first  int64
	target int64  // where it is to get to, to be shown
	show   func() // is told of each batch; may be nil
}

var (
	// errMoved: the generation's checkpoint is somewhere else: another process fills it too.
	errMoved = errors.New("another process fills the generation")
	// ErrCancelled: the rebuild was cancelled, or another took its place.
	ErrCancelled = errors.New("the rebuild was cancelled")
)

// PoisonError says which event can't be applied.
type PoisonError struct {
	Projection string
	Position   int64
	Type       string
	Subject    uuid.UUID // the user, or the system stream
	Err        error
}

func (e *PoisonError) Error() string {
	return fmt.Sprintf("%s of %s at position %d can't be applied to %s: %v", e.Type, e.Subject, e.Position, e.Projection, e.Err)
}

// Unwrap is why.
func (e *PoisonError) Unwrap() error { return e.Err }

func (m model) fillingOf(b beside) *filling {
	return &filling{
		model: m, role: b.role, position: b.position, began: time.Now(), first: b.position,
		generation: Generation{Dialect: m.db.Dialect(), Number: b.number, Loading: b.role == roleNext},
	}
}

// fill applies the log up to a position. What the events come to is put together in memory, and written with the checkpoint
// once there is enough of it: a row that many events change is written once.
func (f *filling) fill(ctx context.Context, to int64) error {
	f.target = max(f.target, to)
	if f.position >= to {
		return nil
	}
	return f.pace.during(ctx, func() error { return f.fillOn(ctx, to) })
}

func (f *filling) fillOn(ctx context.Context, to int64) error {
	for f.position < to {
		suspect, err := f.fold(ctx, to)
		if suspect > f.position {
			// Some event is to blame. What was put together is given up, and it is found by applying less at a time.
			err = f.readRange(ctx, f.position, suspect, f.projection.Wants(), f.apply)
		}
		if errors.Is(err, errMoved) {
			err = f.reread(ctx)
		}
		if err != nil {
			return f.forked(ctx, err, to)
		}
	}
	return nil
}

// forked is ErrForked instead of an error that came of it: what was to be read, as the live generation has it, is not in the
// log any more.
func (f *filling) forked(ctx context.Context, err error, to int64) error {
	if !errors.Is(err, eventstore.ErrGap) {
		return err
	}
	if head, failed := f.log.Head(ctx); failed != nil || head >= to {
		return err
	}
	return fmt.Errorf("fill a generation up to %d: %w", to, eventstore.ErrForked)
}

// fold is fill as long as every event can be applied. Otherwise it answers with the position up to which the events were
// read among which there is one that can't be.
func (f *filling) fold(ctx context.Context, to int64) (suspect int64, err error) {
	changes := f.projection.Changes(f.generation)
	err = f.readRange(ctx, f.position, to, f.projection.Wants(), func(ctx context.Context, b batch) error {
		for part, rest := b.cut(foldAtOnce); ; part, rest = rest.cut(foldAtOnce) {
			err := f.persist(ctx, "fill a generation", func(ctx context.Context) error {
				return f.pace.work(ctx, func() error { return changes.Fold(ctx, f.db, part.events) })
			})
			if err == nil && (part.to == to || part.to-f.position >= f.span() || changes.Size() >= maxBytes) {
				err = f.persist(ctx, "fill a generation", func(ctx context.Context) error { return f.write(ctx, part.last(), changes) })
				changes = f.projection.Changes(f.generation)
			}
			if err != nil && !f.passes(ctx, err) {
				suspect = part.to
			}
			if err != nil || part.to == b.to {
				return err
			}
		}
	})
	return suspect, err
}

func (f *filling) write(ctx context.Context, to eventstore.Anchor, changes Changes) error {
	return f.pace.load(func(paced func(eventstore.DB) eventstore.DB) error {
		return f.commit(ctx, to, func(ctx context.Context, tx eventstore.DB) error { return changes.Write(ctx, paced(tx)) })
	})
}

// passes says whether it is no event's fault that a batch was not applied.
func (f *filling) passes(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, errMoved) || errors.Is(err, eventstore.ErrForked) || errors.Is(err, ErrCancelled)
}

// reread finds out where another process has brought the generation.
func (f *filling) reread(ctx context.Context) error {
	return f.persist(ctx, "read the checkpoint", func(ctx context.Context) error {
		b, err := f.readBeside(ctx, f.db, f.role)
		if errors.Is(err, eventstore.ErrNoRows) || err == nil && b.number != f.generation.Number {
			return ErrCancelled
		}
		f.position = b.position
		return err
	})
}

// apply applies a batch that follows the checkpoint. Where it can't be, it is halved until the event that is to blame is
// alone.
func (f *filling) apply(ctx context.Context, b batch) error {
	err := f.persist(ctx, "fill a generation", func(ctx context.Context) error {
		return f.commit(ctx, b.last(), func(ctx context.Context, tx eventstore.DB) error { return f.applyAll(ctx, tx, b.events) })
	})
	switch n := len(b.events); {
	case err == nil || f.passes(ctx, err):
		return err
	case n > 1:
		half := n / 2
		if err := f.apply(ctx, batch{b.events[:half], b.events[half-1].Position}); err != nil {
			return err
		}
		return f.apply(ctx, batch{b.events[half:], b.to})
	}
	return f.pass(ctx, b, err)
}

func (f *filling) applyAll(ctx context.Context, tx eventstore.DB, events []eventstore.Event) error {
	if len(events) == 0 {
		return nil
	}
	return Apply(ctx, tx, f.projection, f.generation, events)
}

// pass goes past a batch of one event that can't be applied, if an operator has given it up or its user was erased.
func (f *filling) pass(ctx context.Context, b batch, cause error) error {
	e := b.events[0]
	poison := f.poison(e, cause)
	return f.persist(ctx, "pass a skipped event", func(ctx context.Context) error {
		return f.commit(ctx, b.last(), func(ctx context.Context, tx eventstore.DB) error {
			var skipped, erased bool
			err := tx.QueryRow(ctx, `
				SELECT EXISTS (SELECT 1 FROM skipped_events WHERE projection = $1 AND position = $2),
				       EXISTS (SELECT 1 FROM streams WHERE stream = $3 AND state = 'erased')`,
				f.name(), e.Position, subjectOf(e)).Scan(&skipped, &erased)
			switch {
			case err != nil:
				return err
			case erased:
				return nil
			case !skipped:
				return poison
			}
			return insertSkipped(ctx, tx, f.name(), f.generation.Number, e)
		})
	})
}

// commit moves the checkpoint and does what belongs to it, in one transaction.
func (f *filling) commit(ctx context.Context, to eventstore.Anchor, do func(context.Context, eventstore.DB) error) error {
	err := f.db.Transact(ctx, func(tx eventstore.DB) error {
		if err := f.advance(ctx, tx, to); err != nil {
			return err
		}
		return do(ctx, tx)
	})
	if err != nil && !errors.Is(err, errCommitted) {
		return err
	}
	f.moved(to.Position)
	return nil
}

func (f *filling) moved(to int64) {
	f.position = to
	if f.show != nil {
		f.show()
	}
}

// rate is how many events a second this run applies.
func (f *filling) rate(at int64) float64 {
	return float64(at-f.first) / max(time.Since(f.began).Seconds(), 0.001)
}

// advance moves the checkpoint to an event, in a transaction that goes on only if nobody has moved it since and the event is
// the log's: what was read may be from before the database gave way to another. As with the live generation, its commits on
// Postgres need not wait for the disk. It fails with errMoved, errCommitted, ErrCancelled or eventstore.ErrForked.
func (f *filling) advance(ctx context.Context, tx eventstore.DB, to eventstore.Anchor) error {
	rate := 0.0
	if f.role == roleNext {
		rate = f.rate(to.Position)
	}
	err := tx.QueryRow(ctx, `
		UPDATE projection_generations SET position = $5, target = $6, rate = $7, error = '', updated_at = $8
		 WHERE projection = $1 AND role = $2 AND generation = $3 AND position = $4
		   AND ($5 = $4 OR EXISTS (SELECT 1 FROM events WHERE position = $5 AND event_id = $9))
		RETURNING `+eventstore.Relaxed(tx.Dialect()),
		f.name(), string(f.role), f.generation.Number, f.position, to.Position, f.target, rate, time.Now().UTC(), to.ID).Scan(new(string))
	if !errors.Is(err, eventstore.ErrNoRows) {
		if err != nil {
			return fmt.Errorf("advance to %d: %w", to.Position, err)
		}
		return nil
	}
	b, err := f.readBeside(ctx, tx, f.role)
	switch {
	case errors.Is(err, eventstore.ErrNoRows) || err == nil && b.number != f.generation.Number:
		return ErrCancelled
	case err != nil:
		return err
	case b.position == to.Position:
		return errCommitted
	case b.position == f.position:
		return fmt.Errorf("advance to %d: %w", to.Position, eventstore.ErrForked)
	}
	return errMoved
}

// level brings the generation to where the live one is, holds both there, and does what follows in the same transaction.
func (f *filling) level(ctx context.Context, then func(ctx context.Context, tx eventstore.DB, l live) error) error {
	for {
		var l live
		err := f.persist(ctx, "read the checkpoint", func(ctx context.Context) (err error) {
			l, err = f.readLive(ctx, f.db)
			return err
		})
		if err != nil {
			return err
		}
		if err := f.fill(ctx, l.checkpoint); errors.Is(err, eventstore.ErrForked) {
			if err := f.reread(ctx); err != nil {
				return err
			}
			continue
		} else if err != nil {
			return err
		}
		err = f.persist(ctx, "join the live generation", func(ctx context.Context) error {
			return f.db.Transact(ctx, func(tx eventstore.DB) (err error) {
				if l, err = f.lockLive(ctx, tx); err != nil {
					return err
				}
				if err := f.applyTail(ctx, tx, l.checkpoint); err != nil {
					return &tailError{err}
				}
				return then(ctx, tx, l)
			})
		})
		var tail *tailError
		switch {
		case err == nil:
			f.position = l.checkpoint
			return nil
		case ctx.Err() != nil || !errors.As(err, &tail) || errors.Is(err, errAhead):
			return err
		case errors.Is(err, errMoved) || errors.Is(err, errCommitted) || errors.Is(err, eventstore.ErrForked):
			if err := f.reread(ctx); err != nil {
				return err
			}
		case errors.Is(err, ErrCancelled):
			return ErrCancelled
		}
		// Whatever else is wrong with the tail, filling it by itself tells.
	}
}

// tailError is why the last few events were not applied under the live generation's lock.
type tailError struct{ error }

func (e *tailError) Unwrap() error { return e.error }

// errTail: there are too many events left to apply them while the live generation is held up.
var errTail = errors.New("the live generation has gone on")

const maxTail = 1000 // events

func (f *filling) applyTail(ctx context.Context, tx eventstore.DB, to int64) error {
	switch {
	case to == f.position:
		// The row is locked all the same, against others who fill.
		return f.advance(ctx, tx, eventstore.Anchor{Position: to})
	case to < f.position:
		return fmt.Errorf("generation %d of %s is at %d: %w: the live one is at %d", f.generation.Number, f.name(), f.position, errAhead, to)
	case to-f.position > maxTail:
		return errTail
	}
	events, through, err := f.log.ReadRange(ctx, f.position, to, f.projection.Wants())
	switch {
	case err != nil:
		return err
	case through < to:
		return errTail
	}
	if err := f.advance(ctx, tx, batch{events, to}.last()); err != nil {
		return err
	}
	return f.applyAll(ctx, tx, events)
}

// errAhead can't be: a generation is filled up to where the live one is, which never goes back.
var errAhead = errors.New("it is ahead of the live generation")
