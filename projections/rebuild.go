package projections

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"usher.example/eventstore"
	"usher.example/identity"
)

// RebuildState is how far a rebuild is.
type RebuildState string

// The states of a rebuild, in their order.
const (
	RebuildRequested RebuildState = "requested" // no process has begun
	RebuildLoading   RebuildState = "loading"   // the log is applied to the next generation
	RebuildIndexing  RebuildState = "indexing"
	RebuildComparing RebuildState = "comparing" // with the live generation
	RebuildFailed    RebuildState = "failed"    // until it is requested again
)

// Rebuild is how a rebuild is.
type Rebuild struct {
	State      RebuildState `json:"state"`
	Generation int          `json:"generation"`
	Position   int64        `json:"position"`
	Target     int64        `json:"target"` // where the live generation was when this was last looked at
	Rate       float64      `json:"events_per_second"`
	ETA        *int64       `json:"eta_seconds"` // nil while nothing is known of the rate
	Error      string       `json:"error,omitempty"`
	Elsewhere  bool         `json:"-"` // another process does it
}

// estimate fills in what follows from the other fields.
func (b *Rebuild) estimate() {
	b.Rate = math.Round(b.Rate)
	if b.Rate > 0 {
		eta := int64(math.Ceil(float64(max(b.Target-b.Position, 0)) / b.Rate))
		b.ETA = &eta
	}
}

// Rebuilt is what a rebuild came to.
type Rebuilt struct {
	Generation  int           `json:"generation"`
	Position    int64         `json:"position"` // where the generations were exchanged
	Differences []Difference  `json:"differences"`
	Took        time.Duration `json:"-"`
	Elsewhere   bool          `json:"-"` // another process did it, and differences are in its log and in the event
}

// A rebuild fills the next generation of a read model's tables beside the live one, from the log alone: it publishes and
// sends nothing, and neither reads nor writes wait for it. One process at a time does it, under a lease; one that takes
// over after a crash goes on from the generation's checkpoint.
//
//	requested ─▶ loading ─▶ indexing ─▶ comparing ─▶ exchanged: the next generation is live, the live one is standby
//	failed (an event that can't be applied) ── requested again ─▶ loading, from there on
//	any of them ── cancelled ─▶ as if it had not been
type rebuild struct {
	*filling
	actor string
	since time.Time
	state RebuildState
	watch func(Rebuild) // may be nil
}

const rebuildLease = "rebuild/"

// request asks for a rebuild by this version of the code. One that is asked for or under way already is left alone, one
// that failed is tried again from where it stopped, and one by another version of the code is replaced.
func (m model) request(ctx context.Context, actor string) (generation int, err error) {
	err = m.db.Transact(ctx, func(tx eventstore.DB) error {
		l, err := m.lockLive(ctx, tx)
		if err != nil {
			return err
		}
		newest := l.generation
		for _, r := range []role{roleStandby, roleNext} {
			b, err := m.readBeside(ctx, tx, r)
			if err != nil && !errors.Is(err, eventstore.ErrNoRows) {
				return err
			}
			if err == nil && r == roleNext && b.code == m.projection.CodeVersion() {
				generation = b.number
				_, err := tx.Exec(ctx, `UPDATE projection_generations SET state = $3, error = ''
					WHERE projection = $1 AND role = 'next' AND state = $2`, m.name(), string(RebuildFailed), string(RebuildRequested))
				return err
			}
			newest = max(newest, b.number)
		}
		if err := m.detachForGood(ctx, tx, roleNext); err != nil {
			return err
		}
		// One that was discarded may have had a higher number, which is not given again.
		err = tx.QueryRow(ctx, `UPDATE projections SET last_generation = 1 + CASE WHEN last_generation > $2 THEN last_generation ELSE $2 END
			WHERE name = $1 RETURNING last_generation`, m.name(), newest).Scan(&generation)
		if err != nil {
			return err
		}
		return m.insertBeside(ctx, tx, beside{
			role: roleNext, number: generation, code: m.projection.CodeVersion(), state: RebuildRequested, actor: actor,
		})
	})
	if err != nil {
		return 0, fmt.Errorf("request a rebuild of %s: %w", m.name(), err)
	}
	return generation, nil
}

// begin makes the tables of the next generation, or goes on with those of a rebuild that was interrupted.
func (m model) begin(ctx context.Context) (*rebuild, error) {
	var r *rebuild
	err := m.persist(ctx, "begin a rebuild", func(ctx context.Context) error {
		return m.db.Transact(ctx, func(tx eventstore.DB) error {
			b, err := m.readBeside(ctx, tx, roleNext)
			switch {
			case errors.Is(err, eventstore.ErrNoRows) || err == nil && b.code != m.projection.CodeVersion():
				return ErrCancelled
			case err != nil:
				return err
			}
			if b.position == 0 {
				if err := m.dropTables(ctx, tx, b.number); err != nil {
					return err
				}
				if err := m.numbered(b.number).Create(ctx, tx, m.projection); err != nil {
					return err
				}
				b.since = time.Now()
				if _, err := tx.Exec(ctx, "UPDATE projection_generations SET since = $3 WHERE projection = $1 AND role = $2",
					m.name(), string(roleNext), b.since.UTC()); err != nil {
					return err
				}
			}
			r = &rebuild{filling: m.fillingOf(b), actor: b.actor, since: b.since}
			return r.enter(ctx, tx, RebuildLoading)
		})
	})
	return r, err
}

// enter notes the state of a rebuild that is under way.
func (r *rebuild) enter(ctx context.Context, db eventstore.DB, s RebuildState) error {
	n, err := db.Exec(ctx, `UPDATE projection_generations SET state = $4, error = '', updated_at = $5
		WHERE projection = $1 AND role = $2 AND generation = $3`,
		r.name(), string(r.role), r.generation.Number, string(s), time.Now().UTC())
	if err == nil && n == 0 {
		err = ErrCancelled
	}
	r.state = s
	r.told()
	return err
}

// told tells whoever watches how the rebuild is.
func (r *rebuild) told() {
	if r.watch != nil {
		b := Rebuild{State: r.state, Generation: r.generation.Number, Position: r.position, Target: r.target, Rate: r.rate(r.position)}
		b.estimate()
		r.watch(b)
	}
}

// run takes a rebuild to its end.
func (r *rebuild) run(ctx context.Context) (Rebuilt, error) {
	if _, err := r.catchUp(ctx); err != nil {
		return Rebuilt{}, err
	}
	err := r.persist(ctx, string(RebuildIndexing), func(ctx context.Context) error {
		if err := r.enter(ctx, r.db, RebuildIndexing); err != nil {
			return err
		}
		if err := r.generation.Index(ctx, r.db, r.projection); err != nil {
			return err
		}
		return r.generation.Analyze(ctx, r.db, r.projection)
	})
	if err != nil {
		return Rebuilt{}, err
	}
	l, err := r.catchUp(ctx) // with what came meanwhile
	if err != nil {
		return Rebuilt{}, err
	}
	err = r.persist(ctx, string(RebuildComparing), func(ctx context.Context) error { return r.enter(ctx, r.db, RebuildComparing) })
	if err != nil {
		return Rebuilt{}, err
	}
	differences, err := r.compare(ctx)
	if err != nil {
		return Rebuilt{}, err
	}
	r.tell(ctx, l, differences)

	out := Rebuilt{Generation: r.generation.Number, Differences: differences}
	_, err = r.exchange(ctx, r.actor, func(l live) identity.Payload {
		out.Position, out.Took = l.checkpoint, time.Since(r.since)
		return rebuilt(r.name(), r.projection.CodeVersion(), out)
	})
	if err != nil {
		return Rebuilt{}, err
	}
	r.logTo.InfoContext(ctx, "projection rebuilt", "generation", out.Generation, "position", out.Position,
		"differences", len(differences), slog.Duration("took", out.Took))
	return out, nil
}

// catchUp fills the generation until the live one is only a few events ahead.
func (r *rebuild) catchUp(ctx context.Context) (l live, err error) {
	for {
		err := r.persist(ctx, "read the checkpoint", func(ctx context.Context) (err error) {
			l, err = r.readLive(ctx, r.db)
			return err
		})
		if err != nil {
			return l, err
		}
		if l.checkpoint-r.position <= maxTail && r.position > 0 || l.checkpoint == r.position {
			return l, nil
		}
		if err := r.fill(ctx, l.checkpoint); errors.Is(err, eventstore.ErrForked) {
			if err := r.reread(ctx); err != nil {
				return l, err
			}
		} else if err != nil {
			return l, err
		}
	}
}

// tell says how the generations differ. Where another version of the code filled the live one, that is to be expected;
// otherwise something went wrong with it, which the rebuild mends.
func (r *rebuild) tell(ctx context.Context, l live, differences []Difference) {
	for _, d := range differences {
		if l.code != r.projection.CodeVersion() {
			r.logTo.InfoContext(ctx, "the rebuilt tables differ from those of another version of the code", "difference", d.String())
			continue
		}
		r.logTo.ErrorContext(ctx, "the live tables were not what the log amounts to; the rebuilt ones replace them", "difference", d.String())
	}
}

func rebuilt(name string, code int, out Rebuilt) identity.ProjectionRebuilt {
	p := identity.ProjectionRebuilt{
		Name: name, Generation: out.Generation, CodeVersion: code, Position: out.Position, Events: out.Position,
		Differences: []identity.ProjectionDifference{}, Duration: out.Took.Round(time.Millisecond).Seconds(),
	}
	for _, d := range out.Differences {
		p.Differences = append(p.Differences, identity.ProjectionDifference{Table: d.Table, Missing: d.Missing, Extra: d.Extra, Changed: d.Changed})
	}
	return p
}

// fail notes why the rebuild of a generation stopped; 0 stands for whichever it is. It fails with ErrCancelled where that
// is why: the tables were dropped, and whatever was about to be done to them could not be.
func (m model) fail(ctx context.Context, generation int, cause error) error {
	noted, err := m.db.Exec(ctx, `UPDATE projection_generations SET state = $3, error = $4, updated_at = $5
		WHERE projection = $1 AND role = 'next' AND code_version = $2 AND $6 IN (0, generation)`,
		m.name(), m.projection.CodeVersion(), string(RebuildFailed), errorText(cause.Error()), time.Now().UTC(), generation)
	if err != nil || noted > 0 || generation == 0 {
		return err
	}
	l, err := m.readLive(ctx, m.db)
	if err == nil && l.generation != generation { // else it was exchanged, and what failed came after that
		err = ErrCancelled
	}
	return err
}

// rebuildUnder does the rebuild that was requested, under its lease, which is held, and records it. An error that trying
// again does not mend is noted with the rebuild.
func (m model) rebuildUnder(ctx context.Context, lease eventstore.Lease, watch func(Rebuild)) (out Rebuilt, err error) {
	generation := 0
	err = m.hold(ctx, lease, func(ctx context.Context) error {
		r, err := m.begin(ctx)
		if err != nil {
			return err
		}
		generation = r.generation.Number
		r.watch, r.show = watch, r.told
		out, err = r.run(ctx)
		if err != nil {
			return err
		}
		return m.persist(ctx, "record a rebuild", m.record)
	})
	if err != nil && ctx.Err() == nil && !errors.Is(err, ErrCancelled) && !errors.Is(err, ErrFenced) {
		noted := m.persist(ctx, "note a failure", func(ctx context.Context) error { return m.fail(ctx, generation, err) })
		if errors.Is(noted, ErrCancelled) {
			err = nil
		}
		err = errors.Join(err, noted)
	}
	if err != nil {
		err = fmt.Errorf("rebuild %s: %w", m.name(), err)
	}
	return out, err
}
