package publisher

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"usher.example/eventstore"
)

// forever stands for the position up to which a continuous relay publishes.
const forever = -1

// Causes for which the relay stops publishing in order to go on.
var (
	errStopped     = errors.New("the relay stopped")
	errResetWanted = errors.New("a reset was asked for")
)

// Run publishes until ctx ends: it waits for the lease, and then follows the log. It answers with nil once ctx has
// ended and everything it began is finished. Nothing else ends it: what goes wrong is logged, shown by Status, and
// tried again.
func (r *Relay) Run(ctx context.Context) error {
	for {
		lease, err := r.awaitLease(ctx)
		if err != nil {
			return nil
		}
		r.lead(ctx, lease)
		if ctx.Err() != nil {
			return nil
		}
	}
}

// Flush publishes up to the head that the log has now, and answers once all of it is in the stream. While another relay
// holds the lease it waits for that one to do so. It fails with what stopped it; ErrHalted means that only a reset helps.
func (r *Relay) Flush(ctx context.Context) error {
	head, err := r.Log.Head(ctx)
	if err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	lease := r.lease()
	for {
		held, err := lease.Acquire(ctx)
		if err != nil {
			return fmt.Errorf("flush: %w", err)
		}
		if held {
			break
		}
		row, err := r.load(ctx)
		if err != nil {
			return fmt.Errorf("flush: %w", err)
		}
		if row.state == StateHalted {
			return fmt.Errorf("flush: %w", &haltedError{row.reason})
		}
		if row.published >= head && row.state == StateRunning {
			return nil
		}
		if err := eventstore.Pause(ctx, r.LeaseTTL/20); err != nil {
			return fmt.Errorf("flush: another relay holds the lease: %w", err)
		}
	}
	ctx, stop := context.WithCancelCause(ctx)
	var keep sync.WaitGroup
	keep.Go(func() { r.keepLease(ctx, lease, stop) })
	restores := r.restores.Load()
	err = r.publishUpTo(ctx, head)
	for again(err) {
		err = r.publishUpTo(ctx, head)
	}
	if err == nil && r.restores.Load() != restores { // what tells of that too
		if head, err = r.Log.Head(ctx); err == nil {
			err = r.publishUpTo(ctx, head)
		}
	}
	stop(errStopped)
	keep.Wait()
	r.report(err)
	after, done := afterwards(ctx)
	defer done()
	err = errors.Join(err, r.save(after), lease.Release(after))
	if err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	return nil
}

func (r *Relay) lease() *eventstore.Lease {
	return &eventstore.Lease{DB: r.DB, Name: "relay/" + r.Stream.Name, Holder: r.Holder, TTL: r.LeaseTTL}
}

// awaitLease waits for the lease. It fails with the cause of ctx only.
func (r *Relay) awaitLease(ctx context.Context) (*eventstore.Lease, error) {
	lease := r.lease()
	for {
		held, err := lease.Acquire(ctx)
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case held:
			return lease, nil
		case err != nil:
			r.report(err)
		default:
			r.setState(StateStandby, nil)
		}
		if err := eventstore.Pause(ctx, min(r.LeaseTTL/5, time.Second)); err != nil {
			return nil, err
		}
	}
}

// keepLease renews the lease until ctx ends, and calls lose when it can't be held any longer.
func (r *Relay) keepLease(ctx context.Context, lease *eventstore.Lease, lose context.CancelCauseFunc) {
	if err := lease.Keep(ctx, func() { signal(r.renewed) }); errors.Is(err, eventstore.ErrLeaseLost) {
		lose(err)
	}
}

// lead does the work of the relay that holds the lease, until ctx ends or the lease is lost.
func (r *Relay) lead(ctx context.Context, lease *eventstore.Lease) {
	r.loaded.Store(false)
	r.published.Store(0) // another relay may have led since
	ctx, stop := context.WithCancelCause(ctx)
	var beside sync.WaitGroup
	beside.Go(func() { r.keepLease(ctx, lease, stop) })
	beside.Go(func() { r.keepSaving(ctx) })
	beside.Go(func() { r.keepScrubbing(ctx) })
	beside.Go(func() { r.keepLooking(ctx) })
	r.follow(ctx)
	stop(errStopped)
	beside.Wait()

	// Another relay may lead by now, whose row is not to be overwritten.
	if errors.Is(context.Cause(ctx), eventstore.ErrLeaseLost) {
		return
	}
	if r.Status().State != StateHalted { // which outlives the process
		r.setState(StateStopped, nil)
	}
	after, done := afterwards(ctx)
	defer done()
	if err := errors.Join(r.save(after), lease.Release(after)); err != nil {
		r.Logger.Warn("the relay's cursor and lease were left as they are", "error", err)
	}
}

// afterwards is the time that is left for putting things in order once ctx has ended.
func afterwards(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
}

// follow publishes until ctx ends. After any error it begins anew from the state of the stream.
func (r *Relay) follow(ctx context.Context) {
	reconnected := r.Conn.StatusChanged(nats.CONNECTED)
	defer r.Conn.RemoveStatusListener(reconnected)
	const shortest = 10 * time.Millisecond
	wait := shortest
	for {
		before := r.published.Load()
		err := r.publishUpTo(ctx, forever)
		if ctx.Err() != nil {
			return
		}
		if r.published.Load() != before {
			wait = shortest
		}
		r.report(err)
		switch {
		case again(err):
			continue
		case errors.Is(err, ErrHalted) || errors.Is(err, ErrUnpublishable):
			wait = time.Second
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-reconnected:
		case <-ctx.Done():
		}
		timer.Stop()
		wait = min(2*wait, time.Second)
	}
}

// again says whether what stopped the relay is for the next resync to mend or to judge, at once.
func again(err error) bool {
	if errors.Is(err, ErrHalted) {
		return false
	}
	return errors.Is(err, errResetWanted) || errors.Is(err, ErrDamaged) || errors.Is(err, ErrForeignStream) || errors.Is(err, eventstore.ErrForked)
}

func signal(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// publishUpTo publishes from where the stream ends up to a position. It answers with what stopped it.
func (r *Relay) publishUpTo(ctx context.Context, until int64) error {
	last, err := r.resync(ctx)
	if err == nil {
		r.setState(StateRunning, nil)
		_, err = r.pump(ctx, last, until)
	}
	if err != nil && ctx.Err() == nil && !errors.Is(err, ErrHalted) && !r.Conn.IsConnected() {
		return ErrUnreachable // whatever else it says came of that
	}
	return err
}

// pump publishes the events after one, which is the stream's last, up to a position, and answers with the one there. While a
// batch is published the next one is read.
func (r *Relay) pump(ctx context.Context, after eventstore.Anchor, until int64) (last eventstore.Anchor, err error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	w, err := openWindow(r.Conn, r.Stream.Name, after.Position, r.Window, r.encoding(), r.published.Store)
	if err != nil {
		return after, err
	}
	w.traced.tracer = r.Tracer
	defer w.close()
	if err := r.pumping(stop); err != nil {
		return after, err
	}
	defer r.notPumping()

	batches := make(chan []eventstore.Event)
	var reader sync.WaitGroup
	reader.Go(func() {
		var failed error
		if last, failed = r.read(ctx, after, until, batches); failed != nil {
			stop(failed)
		}
		close(batches)
	})
	err = r.publishAll(ctx, w, batches)
	stop(err) // keeps the first cause
	reader.Wait()
	// The window's own error is the one that tells most: others may have come of it.
	if failed := w.drain(); failed != nil {
		return after, failed
	}
	return last, err
}

func (r *Relay) publishAll(ctx context.Context, w *window, batches <-chan []eventstore.Event) error {
	for {
		select {
		case events, more := <-batches:
			if !more {
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				return nil
			}
			for i := range events {
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				if events[i].Type == eventstore.TypeErased {
					if err := w.settle(ctx); err != nil {
						return err
					}
					if err := r.forget(ctx, events[i].Stream.Subject, events[i].Position); err != nil {
						return err
					}
				}
				if err := w.publish(ctx, events[i]); err != nil {
					return err
				}
			}
		case <-w.failed:
			return w.err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// backlogBatch is how many events are read at once as long as there are so many, if BatchSize does not say more.
const backlogBatch = 1000

// read hands over the events after one, up to a position, in batches, and answers with the last. At the head of the log it
// waits to be woken: by a commit of this process, by the ping of another, by the renewal of the lease, by another connection
// to the database, or by the poll. Whatever woke it, it sees whether the log still has what it has read: it fails with
// eventstore.ErrForked where not.
func (r *Relay) read(ctx context.Context, after eventstore.Anchor, until int64, batches chan<- []eventstore.Event) (eventstore.Anchor, error) {
	committed, unwatch := r.Log.Watch()
	defer unwatch()
	connected, unwatchConnections := r.Log.WatchConnections()
	defer unwatchConnections()
	pinged := make(chan struct{}, 1)
	pings, err := r.Conn.Subscribe(AppendedSubject, func(*nats.Msg) { signal(pinged) })
	if err != nil {
		return after, fmt.Errorf("subscribe to %s: %w", AppendedSubject, err)
	}
	defer pings.Unsubscribe()
	poll := time.NewTicker(r.Poll)
	defer poll.Stop()

	size := r.BatchSize
	for until == forever || after.Position < until {
		limit := size
		if until != forever {
			limit = int(min(int64(size), until-after.Position))
		}
		events, more, err := r.Log.ReadAfter(ctx, after, limit)
		if err != nil {
			return after, err
		}
		if len(events) > 0 {
			after = eventstore.AnchorOf(events[len(events)-1])
			r.sawHead(after.Position)
			select {
			case batches <- events:
			case <-ctx.Done():
				return after, context.Cause(ctx)
			}
		}
		if more {
			size = max(r.BatchSize, min(2*size, backlogBatch))
			continue
		}
		size = r.BatchSize
		select {
		case <-committed:
		case <-pinged:
		case <-r.renewed:
		case <-connected:
		case <-poll.C:
		case <-ctx.Done():
			return after, context.Cause(ctx)
		}
	}
	return after, nil
}

func (r *Relay) sawHead(position int64) {
	for {
		known := r.head.Load()
		if position <= known || r.head.CompareAndSwap(known, position) {
			return
		}
	}
}

// pumping makes interrupt reach the pump. It fails at once if a scrub found something in the meantime.
func (r *Relay) pumping(stop context.CancelCauseFunc) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopPump = stop
	return r.found
}

func (r *Relay) notPumping() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopPump = nil
}

// interrupt ends the pump for a reason, so that the relay resyncs.
func (r *Relay) interrupt(cause error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopPump != nil {
		r.stopPump(cause)
	}
}
