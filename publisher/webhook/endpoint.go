package webhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"usher.example/eventstore"
	"usher.example/identity"
)

// endpoint is one webhook at work. It takes what the webhook wants from the stream and sends it, while it holds the lease.
type endpoint struct {
	*Worker
	id     uuid.UUID
	target atomic.Pointer[target]
	wake   chan struct{} // there may be something to send, or room for more
	offers chan *offer   // from the stream
	epoch  int64         // under which it has taken the webhook over

	pending, dead, deadInARow atomic.Int64 // as of the last that is known

	at      atomic.Int64 // position of the last event that was taken from the stream
	taken   place        // that event, as far as it is known
	saved   place        // the checkpoint as it is stored
	savedAt time.Time

	untrimmed atomic.Int64 // rows that were written since old ones were dropped last
}

// place is an event of the log.
type place struct {
	position int64
	event    uuid.UUID // its id; the nil UUID where only the position is known
}

func newEndpoint(w *Worker, id uuid.UUID, t *target) *endpoint {
	e := &endpoint{Worker: w, id: id, wake: make(chan struct{}, 1), offers: make(chan *offer)}
	e.target.Store(t)
	return e
}

func (e *endpoint) logger() *slog.Logger {
	return e.Service.Logger.With(slog.String("webhook", e.id.String()))
}

var (
	// errFenced: another process works on the webhook now, or it was deleted. What was about to be written was not.
	errFenced = errors.New("another process works on the webhook, or it was deleted")
	// errOther: the log is another one than what was taken before came from. What was taken counts for nothing.
	errOther = errors.New("the log does not have what was taken from it before: its database gave way to another")
	// errInactive: the webhook is disabled or deleted.
	errInactive = errors.New("the webhook is not active")
)

// see is told what the webhook is now.
func (e *endpoint) see(t *target) {
	before := e.target.Swap(t)
	if before.changes != t.changes { // deliveries were redriven
		e.count(t.pending, t.dead, t.deadInARow)
	}
}

// count takes over what was read of the webhook's progress.
func (e *endpoint) count(pending, dead, deadInARow int) {
	e.pending.Store(int64(pending))
	e.dead.Store(int64(dead))
	e.deadInARow.Store(int64(deadInARow))
	signal(e.wake)
}

func signal(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// Waits between tries of what failed for no reason of its own.
const (
	firstWait = 50 * time.Millisecond
	lastWait  = 5 * time.Second
)

// run works on the webhook, whenever it holds the lease, until ctx ends or the webhook is not active any more.
func (e *endpoint) run(ctx context.Context, holder string) {
	for wait := firstWait; ctx.Err() == nil; wait = min(2*wait, lastWait) {
		began := time.Now()
		err := e.lead(ctx, holder)
		switch {
		case ctx.Err() != nil, errors.Is(err, errInactive):
			return
		case errors.Is(err, errFenced):
			e.logger().InfoContext(ctx, "webhook passed on to another process")
		default:
			e.logger().ErrorContext(ctx, "webhook failed; trying again", slog.Any("error", err))
		}
		if time.Since(began) > lastWait {
			wait = firstWait
		}
		if eventstore.Pause(ctx, wait) != nil {
			return
		}
	}
}

// lead waits for the lease and works under it until it is lost or something fails.
func (e *endpoint) lead(ctx context.Context, holder string) error {
	lease := &eventstore.Lease{DB: e.Service.DB, Name: leasePrefix + e.id.String(), Holder: holder, TTL: e.ttl()}
	if err := lease.Await(ctx); err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.ttl())
		defer cancel()
		if err := lease.Release(ctx); err != nil { // it runs out by itself
			e.logger().WarnContext(ctx, "lease kept until it ends", slog.Any("error", err))
		}
	}()
	if err := e.takeOver(ctx); err != nil {
		return err
	}
	// The lease is kept until what is on its way was answered, which is after ctx ended.
	keeping, stop := context.WithCancel(context.WithoutCancel(ctx))
	g, working := errgroup.WithContext(ctx)
	g.Go(func() error { return e.keep(keeping, working, *lease) })
	g.Go(func() error { return e.take(working) })
	g.Go(func() error {
		defer stop()
		return e.send(working)
	})
	return g.Wait()
}

// takeOver fences whoever worked on the webhook before, and finds out where to go on.
func (e *endpoint) takeOver(ctx context.Context) error {
	err := e.Service.DB.Transact(ctx, func(tx eventstore.DB) error {
		var at int64
		var event uuid.NullUUID
		var pending, dead, deadInARow int
		err := tx.QueryRow(ctx, `UPDATE webhook_progress SET epoch = epoch + 1 WHERE webhook = $1
			RETURNING epoch, checkpoint, (SELECT event_id FROM events WHERE position = checkpoint), pending, dead, dead_in_a_row`, e.id).
			Scan(&e.epoch, &at, &event, &pending, &dead, &deadInARow)
		if err != nil {
			return err
		}
		e.count(pending, dead, deadInARow)
		e.saved, e.savedAt = place{at, event.UUID}, time.Now()
		e.taken = e.saved
		e.at.Store(at)
		var status string
		if err := tx.QueryRow(ctx, "SELECT status FROM webhook_states WHERE webhook = $1", e.id).Scan(&status); err != nil {
			return err
		}
		if Status(status) != StatusActive {
			return errInactive
		}
		return nil
	})
	if errors.Is(err, eventstore.ErrNoRows) {
		return errInactive
	}
	if err != nil {
		return fmt.Errorf("take over: %w", err)
	}
	return nil
}

// keep renews the lease until ctx ends, and fails with errFenced once it is lost. It also drops the record of what was
// delivered long ago. A database that can't be reached is no reason to stop: nothing can be written there meanwhile, and the
// epoch guards what comes after.
func (e *endpoint) keep(ctx, working context.Context, lease eventstore.Lease) error {
	epoch := lease.Epoch
	var trimmed time.Time
	failing := false
	for {
		if eventstore.Pause(ctx, e.ttl()/3) != nil {
			return context.Cause(working)
		}
		held, err := lease.Acquire(ctx)
		if err == nil && (!held || lease.Epoch != epoch) {
			return errFenced
		}
		if err == nil && (time.Since(trimmed) > tidyEvery || e.untrimmed.Load() > maxUntrimmed) {
			if err = e.trim(ctx); err == nil {
				trimmed = time.Now()
			}
		}
		switch {
		case errors.Is(err, errFenced):
			return err
		case err != nil && ctx.Err() == nil && !failing:
			e.logger().WarnContext(ctx, "lease not renewed; trying again", slog.Any("error", err))
		}
		failing = err != nil
	}
}

// trim drops delivered deliveries but the newest, for a while.
func (e *endpoint) trim(ctx context.Context) error {
	e.untrimmed.Store(0)
	_, err := e.Service.DB.Exec(ctx, `
		DELETE FROM webhook_deliveries
		 WHERE webhook = $1 AND status = 'delivered'
		   AND (finished_at < $2 OR position <= (SELECT position FROM webhook_deliveries WHERE webhook = $1 AND status = 'delivered'
		                                          ORDER BY position DESC LIMIT 1 OFFSET $3))`,
		e.id, e.Service.now().Add(-keepDeliveredFor), keepDelivered)
	if err != nil {
		return fmt.Errorf("drop old deliveries: %w", err)
	}
	return nil
}

// disable disables the webhook, for what its endpoint did, and fails with errInactive once it is.
func (e *endpoint) disable(ctx context.Context, reason string) error {
	correlation, err := uuid.NewV7()
	if err != nil {
		return err
	}
	_, err = e.Service.disable(ctx, e.id, reason, eventstore.Metadata{Correlation: correlation, Actor: identity.ActorSystem})
	if errors.Is(err, ErrNotFound) {
		return errInactive
	}
	if err != nil {
		return err
	}
	e.logger().WarnContext(ctx, "webhook disabled", slog.String("reason", reason))
	return errInactive
}
