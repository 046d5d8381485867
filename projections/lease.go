package projections

import (
	"context"
	"errors"
	"log/slog"

	"golang.org/x/sync/errgroup"

	"usher.example/eventstore"
)

// hold does work under a lease that is held. It keeps the lease up meanwhile, ends the work with ErrFenced where it is
// lost, and gives it up afterwards.
func (m model) hold(ctx context.Context, lease eventstore.Lease, work func(context.Context) error) error {
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lease.TTL)
		defer cancel()
		if err := lease.Release(ctx); err != nil { // it runs out by itself
			m.logTo.WarnContext(ctx, "lease kept until it ends", slog.Any("error", err))
		}
	}()
	working, stop := context.WithCancel(ctx)
	defer stop()
	g, working := errgroup.WithContext(working)
	g.Go(func() error {
		defer stop()
		return work(working)
	})
	g.Go(func() error {
		if err := m.renew(working, lease); errors.Is(err, ErrFenced) {
			return err
		}
		return nil // the work is done, or was told to end
	})
	return g.Wait()
}

// renew keeps the lease until it is lost. A database that can't be reached is no reason to stop: nothing can be written
// there meanwhile, and what comes after is guarded by the checkpoints.
func (m model) renew(ctx context.Context, lease eventstore.Lease) error {
	epoch := lease.Epoch
	for {
		if err := eventstore.Pause(ctx, lease.TTL/3); err != nil {
			return err
		}
		held, err := lease.Acquire(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			m.logTo.WarnContext(ctx, "lease not renewed", slog.Any("error", err))
		case !held || lease.Epoch != epoch:
			return ErrFenced
		}
	}
}
