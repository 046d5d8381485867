package projections

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/trace"

	"usher.example/eventstore"
	"usher.example/identity"
)

// worker is a Runner under one lease. Only one batch is applied at a time.
type worker struct {
	*Runner
	model
	epoch      int64
	generation int
	checkpoint atomic.Int64 // as of the last commit that is known
	poisoned   int          // events in a row that could not be applied
}

// takeOver registers the projection if it is new, and from here on fences every earlier holder of the lease.
func (w *worker) takeOver(ctx context.Context) error {
	err := w.DB.Transact(ctx, func(tx eventstore.DB) error {
		generation, code, at, err := w.registered(ctx, tx)
		if errors.Is(err, eventstore.ErrNoRows) {
			if err := w.register(ctx, tx); err != nil {
				return err
			}
			generation, code, at, err = w.registered(ctx, tx)
		}
		if err != nil {
			return err
		}
		if code != w.projection.CodeVersion() {
			return fmt.Errorf("%w: version %d, and this is %d", ErrOtherVersion, code, w.projection.CodeVersion())
		}
		if at, err = w.bringBack(ctx, tx, at); err != nil {
			return err
		}
		w.generation = generation
		w.checkpoint.Store(at)
		return nil
	})
	if err != nil {
		return fmt.Errorf("take over %s: %w", w.name(), err)
	}
	w.Checkpoints.set(w.name(), w.checkpoint.Load())
	return nil
}

// bringBack looks whether the event at the checkpoint is still the log's. If not, the tables have what did not happen, as after
// a restore that did not concern them: they go on from where the log is, and a rebuild is asked for that sets them right.
// It answers with the checkpoint then.
func (w *worker) bringBack(ctx context.Context, tx eventstore.DB, at int64) (int64, error) {
	var foreign bool
	err := tx.QueryRow(ctx, `
		SELECT checkpoint_event IS NOT NULL AND NOT EXISTS (SELECT 1 FROM events WHERE position = checkpoint AND event_id = checkpoint_event)
		  FROM projections WHERE name = $1`, w.name()).Scan(&foreign)
	if err != nil || !foreign {
		return at, err
	}
	w.logTo.ErrorContext(ctx, "the read model has what is not in the log, as after a restore: asking for a rebuild", "checkpoint", at)
	err = tx.QueryRow(ctx, `
		UPDATE projections SET checkpoint_event = NULL, checkpoint =
		       (SELECT CASE WHEN head < checkpoint THEN head ELSE checkpoint END FROM (SELECT coalesce(max(position), 0) AS head FROM events) AS log)
		 WHERE name = $1 RETURNING checkpoint`, w.name()).Scan(&at)
	if err != nil {
		return at, err
	}
	within := w.model
	within.db = tx
	if err := within.detachForGood(ctx, tx, roleStandby); err != nil {
		return at, err
	}
	if err := within.detachForGood(ctx, tx, roleNext); err != nil {
		return at, err
	}
	_, err = within.request(ctx, identity.ActorSystem)
	return at, err
}

// registered stamps the projection's row with the epoch, unless a later one is there, and reads it.
func (w *worker) registered(ctx context.Context, tx eventstore.DB) (generation, code int, at int64, err error) {
	var epoch int64
	err = tx.QueryRow(ctx, `
		UPDATE projections SET epoch = CASE WHEN epoch < $2 THEN $2 ELSE epoch END WHERE name = $1
		RETURNING generation, code_version, checkpoint, epoch`, w.name(), w.epoch).Scan(&generation, &code, &at, &epoch)
	if err == nil && epoch != w.epoch {
		err = ErrFenced
	}
	return generation, code, at, err
}

// register makes the first generation. Whoever comes second waits for the row of whoever comes first.
func (w *worker) register(ctx context.Context, tx eventstore.DB) error {
	inserted, err := tx.Exec(ctx, `
		INSERT INTO projections (name, generation, code_version, checkpoint, epoch, state, updated_at)
		VALUES ($1, 1, $2, 0, $3, $4, $5) ON CONFLICT DO NOTHING`,
		w.name(), w.projection.CodeVersion(), w.epoch, string(StateCatchingUp), time.Now().UTC())
	if err != nil || inserted == 0 {
		return err
	}
	first := w.numbered(1)
	if err := first.Create(ctx, tx, w.projection); err != nil {
		return err
	}
	return first.Show(ctx, tx, w.projection)
}

var (
	// errPaused: the projection was paused.
	errPaused = errors.New("the projection is paused")
	// errCommitted: what is to be committed has been. The answer to the commit was lost.
	errCommitted = errors.New("committed already")
)

// advance moves the checkpoint to an event's position, in a transaction that goes on only if this worker may write: nobody
// has moved it since, nobody has taken over, exchanged the generation or paused, and the event is the log's. (After the log
// was restored from a backup, the stream has events that the log does not have; two logs that differ at one position differ
// at all later ones, so the last event of a batch speaks for all of them.) It says whether any user is parked. The row stays locked,
// so that nothing is parked or unparked beside the transaction.
//
// A read model is a copy: what a crash of the database takes of it, it takes together with the checkpoint. So its
// commits on Postgres need not wait for the disk.
func (w *worker) advance(ctx context.Context, tx eventstore.DB, to eventstore.Event) (parked bool, err error) {
	err = tx.QueryRow(ctx, `
		UPDATE projections SET checkpoint = $3, checkpoint_event = $6, updated_at = $5
		 WHERE name = $1 AND checkpoint = $2 AND epoch = $4 AND generation = $7 AND state <> 'paused'
		   AND EXISTS (SELECT 1 FROM events WHERE position = $3 AND event_id = $6)
		RETURNING EXISTS (SELECT 1 FROM parked_events WHERE projection = $1), `+eventstore.Relaxed(tx.Dialect()),
		w.name(), w.checkpoint.Load(), to.Position, w.epoch, time.Now().UTC(), to.ID, w.generation).Scan(&parked, new(string))
	if errors.Is(err, eventstore.ErrNoRows) {
		return false, w.refused(ctx, tx, to)
	}
	if err != nil {
		return false, fmt.Errorf("advance to %d: %w", to.Position, err)
	}
	return parked, nil
}

// errExchanged: another generation is the live one now, and the worker knows it.
var errExchanged = errors.New("the generations were exchanged")

// refused finds out why the checkpoint could not be moved.
func (w *worker) refused(ctx context.Context, tx eventstore.DB, to eventstore.Event) error {
	var at, epoch int64
	var generation, code int
	var state string
	var known bool
	err := tx.QueryRow(ctx, `
		SELECT checkpoint, epoch, generation, code_version, state, EXISTS (SELECT 1 FROM events WHERE position = $2 AND event_id = $3)
		  FROM projections WHERE name = $1`, w.name(), to.Position, to.ID).Scan(&at, &epoch, &generation, &code, &state, &known)
	switch {
	case errors.Is(err, eventstore.ErrNoRows):
		return ErrFenced
	case err != nil:
		return fmt.Errorf("read the checkpoint: %w", err)
	case code != w.projection.CodeVersion():
		return fmt.Errorf("%w: version %d, and this is %d", ErrOtherVersion, code, w.projection.CodeVersion())
	case epoch == w.epoch && at == to.Position:
		return errCommitted
	case epoch == w.epoch && at == w.checkpoint.Load() && generation != w.generation:
		w.generation = generation
		return errExchanged
	case epoch == w.epoch && at == w.checkpoint.Load() && (state == string(StatePaused) || known): // or it was resumed since
		return errPaused
	case epoch == w.epoch && at == w.checkpoint.Load():
		return eventstore.ErrForeign
	}
	return ErrFenced
}

// apply brings a batch into the read model: the events that follow the checkpoint, without a gap. It returns once they
// are applied or parked; transient errors are tried again until ctx ends. It fails with ErrFenced, ErrOtherVersion,
// errPaused, eventstore.ErrForeign, errBroken, eventstore.ErrGap or ctx's cause.
func (w *worker) apply(ctx context.Context, events []eventstore.Event) error {
	if len(events) == 0 {
		return nil
	}
	if next := w.checkpoint.Load() + 1; events[0].Position != next {
		return fmt.Errorf("apply to %s: %w: position %d where %d belongs", w.name(), eventstore.ErrGap, events[0].Position, next)
	}
	err := w.persist(ctx, "apply a batch", func(ctx context.Context) error { return w.commit(ctx, events) })
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, errExchanged):
		w.logTo.InfoContext(ctx, "projection goes on with another generation", "generation", w.generation)
		return w.apply(ctx, events)
	case errors.Is(err, ErrFenced) || errors.Is(err, ErrOtherVersion) || errors.Is(err, errPaused) || errors.Is(err, eventstore.ErrForeign):
		return err
	case len(events) == 1:
		return w.park(ctx, events[0], err)
	}
	// Some event is to blame: halve the batch until it is alone.
	half := len(events) / 2
	if err := w.apply(ctx, events[:half]); err != nil {
		return err
	}
	return w.apply(ctx, events[half:])
}

// commit applies a batch in one transaction. The events of parked users are parked behind.
func (w *worker) commit(ctx context.Context, events []eventstore.Event) error {
	began := time.Now()
	last := events[len(events)-1]
	applied := 0
	err := w.DB.Transact(ctx, func(tx eventstore.DB) error {
		parked, err := w.advance(ctx, tx, last)
		if err != nil {
			return err
		}
		pass := events
		if parked {
			if pass, err = w.parkBehind(ctx, tx, events); err != nil {
				return err
			}
		}
		if applied = len(pass); applied == 0 {
			return nil
		}
		return Apply(ctx, tx, w.projection, w.numbered(w.generation), pass)
	})
	if err != nil && !errors.Is(err, errCommitted) {
		return err
	}
	if applied > 0 {
		w.poisoned = 0
	}
	w.moved(last.Position)
	if w.Tracer != nil {
		for _, e := range events {
			e.RecordSpan(w.Tracer, "project "+w.Projection.Name(), trace.SpanKindConsumer, began, nil)
		}
	}
	return nil
}

func (w *worker) moved(to int64) {
	w.checkpoint.Store(to)
	w.Checkpoints.move(w.name(), to)
}

// subjectOf is what an event parks: its user, or the system stream that it belongs to.
func subjectOf(e eventstore.Event) uuid.UUID {
	if e.Stream.Subject != uuid.Nil {
		return e.Stream.Subject
	}
	return e.Stream.ID
}
