package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"usher.example/projections"
)

// rebuiltTimes is how many times the events of a run a log has that is rebuilt from: 1,000,000 unless flags say otherwise.
const rebuiltTimes = 5

func rebuildBenches() []bench {
	const (
		all    = "all four"
		during = "writes during a rebuild"
		alone  = "writes alone"
	)
	return []bench{{
		about: "rebuild read models from a log with ten events a user, with compare and exchange",
		lines: []line{
			{
				name: "rebuild", subject: usher, yardstick: bare, against: "read 1,000 rows, unnest upsert, commit; nothing sealed", show: rate,
				targets: []target{rateAtLeast(0.8)},
			},
			{
				name: "rebuild-all", subject: all, yardstick: bare, against: "the same, for users alone", show: rate,
				targets: []target{rateAtLeast(0.3)},
			},
			{
				name: "rebuild-writes", subject: during, yardstick: alone, against: "writes without a rebuild, p99", show: quantile("p99", appended, 0.99), noCPU: true,
				targets: []target{quantileAtMost("p99", 2)},
			},
		},
		seconds: 5,
		setup: func(s *stage) ([]side, error) {
			r, err := setupRebuilds(s)
			if err != nil {
				return nil, err
			}
			return []side{
				{name: usher, prepare: r.settle, run: func(ctx context.Context, _ time.Duration) (tally, error) {
					return tally{ops: int(r.head)}, r.rebuild(ctx, r.operator(), projections.UsersName)
				}},
				{name: bare, prepare: r.plain.truncate, run: r.plain.run},
				{name: all, prepare: r.settle, run: r.rebuildAll},
				{name: alone, run: r.writes},
				{name: during, prepare: r.settle, run: r.writesDuring},
			}, nil
		},
	}}
}

// appended is what is timed of a write.
const appended = "append"

// rebuilding is a log and the read models that it was projected to.
type rebuilding struct{ *catchingUp }

func readModels() []projections.Projection {
	return []projections.Projection{
		projections.UserProjection{}, projections.SessionProjection{}, projections.ActivityProjection{}, projections.StatsProjection{},
	}
}

func setupRebuilds(s *stage) (*rebuilding, error) {
	c, err := openCatchingUp(s, func(l *logOn) error { return l.live(s.ctx, rebuiltTimes*s.flags.events) })
	if err != nil {
		return nil, err
	}
	for _, p := range readModels() {
		if err := c.catchUp(s.ctx, p); err != nil {
			return nil, fmt.Errorf("project %s: %w", p.Name(), err)
		}
	}
	return &rebuilding{c}, nil
}

func (r *rebuilding) operator() *projections.Operator {
	return &projections.Operator{Projections: readModels(), DB: r.store, Log: r.fresh(), Logger: quiet}
}

// settle drops what the last rebuild left, and lets the database tidy up.
func (r *rebuilding) settle(ctx context.Context) error {
	o := r.operator()
	for _, p := range readModels() {
		if err := o.DropStandby(ctx, p.Name()); err != nil && !errors.Is(err, projections.ErrNoStandby) {
			return err
		}
	}
	_, err := r.store.Exec(ctx, "CHECKPOINT")
	return err
}

func (r *rebuilding) rebuild(ctx context.Context, o *projections.Operator, name string) error {
	out, err := o.Rebuild(ctx, name, func(projections.Rebuild) {})
	if err == nil && len(out.Differences) > 0 {
		err = fmt.Errorf("the rebuilt %s are others: %s", name, out.Differences[0])
	}
	return err
}

// rebuildAll rebuilds all read models side by side, in a process that has just started.
func (r *rebuilding) rebuildAll(ctx context.Context, _ time.Duration) (tally, error) {
	o := r.operator()
	g, ctx := errgroup.WithContext(ctx)
	for _, p := range readModels() {
		g.Go(func() error { return r.rebuild(ctx, o, p.Name()) })
	}
	return tally{ops: int(r.head)}, g.Wait()
}

// writes appends steadily, one after the other.
func (r *rebuilding) writes(ctx context.Context, length time.Duration) (tally, error) {
	return r.writesUntil(ctx, lasting(length))
}

// writesDuring appends for as long as a rebuild takes.
func (r *rebuilding) writesDuring(ctx context.Context, _ time.Duration) (tally, error) {
	ended := make(chan struct{})
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(ended)
		return r.rebuild(ctx, r.operator(), projections.UsersName)
	})
	t, err := r.writesUntil(ctx, func() bool {
		select {
		case <-ended:
			return true
		default:
			return false
		}
	})
	return t, errors.Join(err, g.Wait())
}

func (r *rebuilding) writesUntil(ctx context.Context, over func() bool) (tally, error) {
	var times []time.Duration
	n, err := steadily(ctx, over, func() error {
		a, err := registration()
		if err != nil {
			return err
		}
		began := time.Now()
		_, err = r.log.Append(ctx, a)
		times = append(times, time.Since(began))
		return err
	})
	return tally{ops: n, times: map[string][]time.Duration{appended: times}}, err
}
