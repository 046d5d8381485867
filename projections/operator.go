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
	"usher.example/identity"
)

// Operator does to the projections of a deployment what its operators want done, from any process, whether or not one
// runs them. Every method fails with ErrUnknownProjection for a name that the code or the database does not know.
//
// Where the database user may not change the tables of read models, as that of the API, a process that runs the projection does
// what changes them. It is waited for a few seconds, and after those the method fails with ErrRequested.
type Operator struct {
	Projections []Projection
	DB          eventstore.DB
	Log         Log
	Logger      *slog.Logger // slog.Default() when nil

	BatchSize int           // events of a transaction of a rebuild; at most 250,000 when 0, and 2,000 on SQLite
	LeaseTTL  time.Duration // as that of a Runner
	Poll      time.Duration // how often another process's rebuild is looked at; 1 s when 0

	RequestWait time.Duration // how long a request waits for a process that runs the projection; 5 s when 0
}

var (
	// ErrNotParked: there is no such event in the projection's way.
	ErrNotParked = errors.New("the event is not parked, and stops nothing")
	// ErrNoStandby: there is no generation to go back to.
	ErrNoStandby = errors.New("there is no standby generation")
	// ErrNoRebuild: there is no rebuild.
	ErrNoRebuild = errors.New("there is no rebuild")
	// ErrRebuilding: a rebuild is under way.
	ErrRebuilding = errors.New("a rebuild is under way")
)

func (o *Operator) model(name string) (model, error) {
	for _, p := range o.Projections {
		if p.Name() == name {
			m := newModel(p, o.DB, o.Log, o.Logger)
			m.batch = o.BatchSize
			return m, nil
		}
	}
	return model{}, ErrUnknownProjection
}

// modelFor is the model of a projection, and whether the database user may change its tables.
func (o *Operator) modelFor(ctx context.Context, name string) (m model, may bool, err error) {
	if m, err = o.model(name); err == nil {
		may, err = m.mayChangeTables(ctx)
	}
	return m, may, err
}

// Pause makes a projection stop after the batch at hand, in whatever process it runs, until Resume. Queries go on, and so
// does a rebuild, up to where the projection was paused.
func (o *Operator) Pause(ctx context.Context, name string) error {
	return o.change(ctx, "pause", name, "state = '"+string(StatePaused)+"'")
}

// Resume lets a paused projection go on.
func (o *Operator) Resume(ctx context.Context, name string) error {
	return o.change(ctx, "resume", name, "state = CASE state WHEN '"+string(StatePaused)+"' THEN '"+string(StateRunning)+"' ELSE state END")
}

func (o *Operator) change(ctx context.Context, what, name, set string) error {
	touched, err := o.DB.Exec(ctx, "UPDATE projections SET "+set+", updated_at = $2 WHERE name = $1", name, time.Now().UTC())
	if err == nil && touched == 0 {
		err = ErrUnknownProjection
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", what, name, err)
	}
	return nil
}

// Retry applies the parked events of a user, or of all users for the nil UUID, in their order, and answers with how many
// it applied. It can run beside the running projection. An event that still can't be applied stays parked with those
// behind it, and Retry fails with its *PoisonError, after it has tried the other users. It fails with ErrNotParked where
// nothing is parked, and with ErrOtherVersion.
func (o *Operator) Retry(ctx context.Context, name string, user uuid.UUID) (applied int, err error) {
	m, may, err := o.modelFor(ctx, name)
	if err == nil && !may {
		return m.countApplied(ctx, user, func() error { return o.RequestRetry(ctx, name, user) })
	}
	if err == nil {
		applied, err = m.retryUsers(ctx, user)
	}
	if err != nil {
		return applied, fmt.Errorf("retry %s: %w", name, err)
	}
	return applied, nil
}

// countApplied counts the parked events of a user, or of all users for the nil UUID, that another process applies meanwhile.
func (m model) countApplied(ctx context.Context, user uuid.UUID, do func() error) (applied int, err error) {
	where, args := m.parkedOf(user)
	count := func() (n int, err error) {
		err = m.db.QueryRow(ctx, "SELECT count(*) FROM parked_events WHERE "+where, args...).Scan(&n)
		return n, err
	}
	before, err := count()
	if err == nil {
		err = do()
	}
	if err != nil {
		return 0, err
	}
	after, err := count()
	return max(0, before-after), err
}

func (m model) retryUsers(ctx context.Context, user uuid.UUID) (applied int, err error) {
	if _, err := m.readLive(ctx, m.db); err != nil {
		return 0, err
	}
	users := []uuid.UUID{user}
	if user == uuid.Nil {
		if users, err = m.parkedUsers(ctx); err != nil {
			return 0, err
		}
	}
	var errs error
	for _, user := range users {
		n, err := m.retry(ctx, user)
		applied += n
		errs = errors.Join(errs, err)
	}
	if applied == 0 && errs == nil {
		return 0, ErrNotParked
	}
	return applied, errs
}

// Skip gives up an event that stands in the way: the first parked event of a user, after which it applies those behind it
// as Retry does, or the event that stopped a rebuild or holds the standby up. The read model lacks it until a rebuild can
// apply it. That it was skipped is recorded as an event. It fails with ErrNotParked if the event at the position is not in
// the way, or not the user's. One behind it that can't be applied either is in the way now.
func (o *Operator) Skip(ctx context.Context, name string, user uuid.UUID, position int64, meta eventstore.Metadata) (result SkipResult, err error) {
	m, may, err := o.modelFor(ctx, name)
	if err == nil && !may {
		result.Applied, err = m.countApplied(ctx, user, func() (err error) {
			result.Position, err = o.RequestSkip(ctx, name, user, position, meta)
			return err
		})
		result.Applied = max(0, result.Applied-1) // the other one is the skipped one
		return result, err
	}
	if err == nil {
		_, err = m.readLive(ctx, m.db)
	}
	if err == nil {
		result.Position, err = m.skip(ctx, user, position, meta)
	}
	if err != nil {
		return result, fmt.Errorf("skip position %d of %s: %w", position, name, err)
	}
	var next *PoisonError
	if result.Applied, err = m.retry(ctx, user); err != nil && !errors.As(err, &next) {
		return result, fmt.Errorf("retry what was behind position %d of %s: %w", position, name, err)
	}
	return result, nil
}

// SkipResult is what a skip did.
type SkipResult struct {
	Position int64 // of the event that records it
	Applied  int   // events behind the skipped one
}

// Request asks for a rebuild, which a process that runs the projection begins within a second. Where one is asked for or
// under way it changes nothing; one that failed is tried again from where it stopped.
func (o *Operator) Request(ctx context.Context, name, actor string) error {
	m, err := o.model(name)
	if err == nil {
		_, err = m.request(ctx, actor)
	}
	return err
}

// Rebuild rebuilds a projection, or waits for the process that does, and tells of its progress. It fails with a
// *PoisonError for an event that can't be applied: what was done until there is kept, and a later Rebuild goes on there.
// It fails with ErrCancelled where somebody cancelled it. Where ctx ends, the rebuild is cancelled if it is this process
// that does it: nothing is left of it.
func (o *Operator) Rebuild(ctx context.Context, name string, show func(Rebuild)) (Rebuilt, error) {
	m, may, err := o.modelFor(ctx, name)
	if err != nil {
		return Rebuilt{}, fmt.Errorf("rebuild %s: %w", name, err)
	}
	// The lease comes first, so that no worker takes up what is asked for next; unless it is for a worker to do.
	lease := eventstore.Lease{DB: o.DB, Name: rebuildLease + name, Holder: eventstore.NewHolder(), TTL: cmp.Or(o.LeaseTTL, defaultTTL)}
	held := false
	if may {
		held, err = lease.Acquire(ctx)
	}
	if err != nil {
		return Rebuilt{}, fmt.Errorf("rebuild %s: %w", name, err)
	}
	generation, err := m.request(ctx, identity.ActorOperator)
	if err != nil {
		if held {
			err = errors.Join(err, lease.Release(ctx))
		}
		return Rebuilt{}, err
	}
	for {
		if held {
			out, err := m.rebuildUnder(ctx, lease, show)
			switch {
			case err == nil:
				return out, nil
			case ctx.Err() != nil:
				return Rebuilt{}, errors.Join(err, m.leaveNothing(ctx, lease.TTL))
			case !errors.Is(err, ErrFenced) && !errors.Is(err, ErrCancelled):
				return Rebuilt{}, err
			}
		}
		// Another process does it, or did; or it was cancelled.
		err := m.persist(ctx, "watch a rebuild", func(ctx context.Context) error { return m.watch(ctx, generation, show) })
		if errors.Is(err, errExchanged) {
			return m.outcome(ctx)
		}
		if err == nil {
			err = eventstore.Pause(ctx, cmp.Or(o.Poll, defaultPoll))
		}
		if err == nil && may {
			err = m.persist(ctx, "watch a rebuild", func(ctx context.Context) (err error) {
				held, err = lease.Acquire(ctx)
				return err
			})
		}
		if err != nil {
			return Rebuilt{}, fmt.Errorf("rebuild %s: %w", name, err)
		}
	}
}

// mayChangeTables says whether the database user may make tables of read models; whoever may, may fill and drop them too.
func (m model) mayChangeTables(ctx context.Context) (may bool, err error) {
	if m.db.Dialect() == eventstore.SQLite {
		return true, nil
	}
	err = m.db.QueryRow(ctx, "SELECT has_function_privilege('make_read_model(text, int, jsonb)', 'EXECUTE')").Scan(&may)
	return may, err
}

// leaveNothing cancels a rebuild whose process is told to end.
func (m model) leaveNothing(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	_, err := m.drop(ctx, roleNext, whichever)
	return err
}

// watch shows how the rebuild of another process is. It fails with errExchanged once that is done, with ErrCancelled, and
// with why the rebuild failed.
func (m model) watch(ctx context.Context, generation int, show func(Rebuild)) error {
	var state string
	b := Rebuild{Elsewhere: true}
	err := m.db.QueryRow(ctx, `SELECT state, generation, position, target, rate, error FROM projection_generations
		WHERE projection = $1 AND role = $2`, m.name(), string(roleNext)).
		Scan(&state, &b.Generation, &b.Position, &b.Target, &b.Rate, &b.Error)
	b.State = RebuildState(state)
	switch {
	case errors.Is(err, eventstore.ErrNoRows) || err == nil && b.Generation != generation:
		l, err := m.readLive(ctx, m.db)
		if err == nil && l.generation == generation {
			err = errExchanged
		} else if err == nil {
			err = ErrCancelled
		}
		return err
	case err != nil:
		return err
	case b.State == RebuildFailed:
		return errors.New(b.Error)
	}
	b.estimate()
	show(b)
	return nil
}

// outcome is what the rebuild of another process came to.
func (m model) outcome(ctx context.Context) (Rebuilt, error) {
	l, err := m.readLive(ctx, m.db)
	if err != nil {
		return Rebuilt{}, fmt.Errorf("rebuild %s: %w", m.name(), err)
	}
	return Rebuilt{Generation: l.generation, Position: l.checkpoint, Elsewhere: true}, nil
}

// Cancel ends a rebuild, whichever process does it, and drops what it has made. It fails with ErrNoRebuild.
func (o *Operator) Cancel(ctx context.Context, name string) error {
	return o.drop(ctx, "cancel the rebuild of", name, roleNext, dropOrDiscard, ErrNoRebuild)
}

// DropStandby drops the standby, which then costs nothing more. It fails with ErrNoStandby.
func (o *Operator) DropStandby(ctx context.Context, name string) error {
	return o.drop(ctx, "drop the standby of", name, roleStandby, dropOrDiscard, ErrNoStandby)
}

// dropping is what takes a generation away for which the condition holds: dropOrDiscard or model.discard.
type dropping func(m model, ctx context.Context, r role, is func(beside) bool) (bool, error)

// dropOrDiscard drops a generation at once, or leaves its tables to a process that may.
func dropOrDiscard(m model, ctx context.Context, r role, is func(beside) bool) (bool, error) {
	may, err := m.mayChangeTables(ctx)
	if err != nil {
		return false, err
	}
	if may {
		return m.drop(ctx, r, is)
	}
	return m.discard(ctx, r, is)
}

func (o *Operator) drop(ctx context.Context, what, name string, r role, by dropping, none error) error {
	m, err := o.model(name)
	if err == nil {
		_, err = m.readLive(ctx, o.DB)
	}
	if err == nil {
		var dropped bool
		if dropped, err = by(m, ctx, r, whichever); err == nil && !dropped {
			err = none
		}
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", what, name, err)
	}
	return nil
}

// DropOld drops the generations that have been of no use for long: standbys that were replaced before a time, and what
// failed rebuilds made that were asked for before it. It answers with how many.
func (o *Operator) DropOld(ctx context.Context, before time.Time) (dropped int, err error) {
	return o.eachOld(before, func(m model, r role, old func(beside) bool) (bool, error) { return dropOrDiscard(m, ctx, r, old) })
}

// Old is how many generations DropOld would drop.
func (o *Operator) Old(ctx context.Context, before time.Time) (found int, err error) {
	return o.eachOld(before, func(m model, r role, old func(beside) bool) (bool, error) {
		b, err := m.readBeside(ctx, m.db, r)
		if errors.Is(err, eventstore.ErrNoRows) {
			return false, nil
		}
		return err == nil && old(b), err
	})
}

// eachOld does something for every generation that may be old, and counts those for which it says so.
func (o *Operator) eachOld(before time.Time, do func(m model, r role, old func(beside) bool) (bool, error)) (n int, err error) {
	for _, p := range o.Projections {
		m := newModel(p, o.DB, o.Log, o.Logger)
		for _, r := range []role{roleNext, roleStandby} {
			is, err := do(m, r, func(b beside) bool {
				return b.since.Before(before) && (r == roleStandby || b.state == RebuildFailed)
			})
			if err != nil {
				return n, err
			}
			if is {
				n++
			}
		}
	}
	return n, nil
}

// Rollback makes the standby the live generation again, once it has every event that the live one has, and the live one
// the standby. It fails with ErrNoStandby, with ErrOtherVersion where another version of the code filled the standby (run
// that version's), with ErrRebuilding, and with a *PoisonError where an event holds the standby up.
func (o *Operator) Rollback(ctx context.Context, name, actor string) (generation int, err error) {
	m, may, err := o.modelFor(ctx, name)
	switch {
	case err != nil:
	case may:
		generation, err = m.rollback(ctx, actor, cmp.Or(o.LeaseTTL, defaultTTL))
	default:
		generation, err = m.requestRollback(ctx, actor, cmp.Or(o.RequestWait, requestWait))
	}
	if err != nil {
		return 0, fmt.Errorf("roll back %s: %w", name, err)
	}
	return generation, nil
}

// readStandby is the generation that a rollback makes the live one. It fails with ErrUnknownProjection, ErrNoStandby and
// ErrOtherVersion.
func (m model) readStandby(ctx context.Context) (beside, error) {
	if _, err := m.readLive(ctx, m.db); err != nil {
		return beside{}, err
	}
	b, err := m.readBeside(ctx, m.db, roleStandby)
	switch {
	case errors.Is(err, eventstore.ErrNoRows):
		err = ErrNoStandby
	case err == nil && b.code != m.projection.CodeVersion():
		err = fmt.Errorf("the standby: %w: version %d, and this is %d", ErrOtherVersion, b.code, m.projection.CodeVersion())
	}
	return b, err
}

func (m model) rollback(ctx context.Context, actor string, ttl time.Duration) (generation int, err error) {
	if _, err := m.readStandby(ctx); err != nil {
		return 0, err
	}
	lease := eventstore.Lease{DB: m.db, Name: rebuildLease + m.name(), Holder: eventstore.NewHolder(), TTL: ttl}
	held, err := lease.Acquire(ctx)
	switch {
	case err != nil:
		return 0, err
	case !held:
		return 0, ErrRebuilding
	}
	err = m.hold(ctx, lease, func(ctx context.Context) error {
		b, err := m.readStandby(ctx)
		if err != nil {
			return err
		}
		generation = b.number
		_, err = m.fillingOf(b).exchange(ctx, actor, func(l live) identity.Payload {
			return identity.ProjectionRolledBack{Name: m.name(), Generation: b.number, CodeVersion: b.code, Position: l.checkpoint}
		})
		if err != nil {
			return err
		}
		return m.record(ctx)
	})
	return generation, err
}
