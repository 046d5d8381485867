package subscription

import (
	"context"
	"errors"
	"sync"
	"time"

	"usher.example/eventstore"
)

// ErrBehind: the log has events that the stream does not bring, as while the relay or the broker is down.
var ErrBehind = errors.New("the stream is behind the log")

// RunBesideLog is Run for a subscription whose process reaches the log itself, and so need not wait for the stream. Every so often
// it looks at the log's head: it fails with ErrBehind once that was ahead of the checkpoint, and the checkpoint did not move, from
// one look to the next. At each look it calls look, unless that is nil, and fails with its error. Else it fails as Run does, or with
// the cause of ctx.
func (s *Subscription) RunBesideLog(ctx context.Context, head func(context.Context) (int64, error), every time.Duration, look func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { cancel(s.watchLog(ctx, head, every, look)) })
	defer watch.Wait()
	defer cancel(nil)
	err := s.Run(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func (s *Subscription) watchLog(ctx context.Context, head func(context.Context) (int64, error), every time.Duration, look func(context.Context) error) error {
	stuck := int64(-1)
	for {
		if err := eventstore.Pause(ctx, every); err != nil {
			return err
		}
		if look != nil {
			if err := look(ctx); err != nil {
				return err
			}
		}
		last, err := head(ctx) // first: the checkpoint never gets ahead of it by that
		if err != nil {
			stuck = -1
			continue
		}
		at, err := s.Checkpoint(ctx)
		switch {
		case err != nil || last <= at:
			stuck = -1
		case at == stuck:
			return ErrBehind
		default:
			stuck = at
		}
	}
}
