package projections

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"usher/eventstore"
	"usher/subscription"
)

// Runner keeps one read model up to date. Any number of processes may run the same projection: one of them, which holds
// its lease, works, and the others stand by.
type Runner struct {
	Projection  Projection
	DB          eventstore.DB
	Log         Log
	Checkpoints *Checkpoints        // is told of each commit; may be nil
	JetStream   jetstream.JetStream // whose stream is followed near the head of the log
	Stream      string              // subscription.Stream when empty
	Logger      *slog.Logger        // slog.Default() when nil
	Tracer      trace.Tracer        // records the handling of events whose trace is sampled; nothing is when nil

	// BatchSize bounds the events of a transaction; 2,000 when 0. Near the head a transaction has what is there.
	BatchSize int
	// Holder names this runner among all that there are; random when empty. One that comes back under the same name
	// after a crash need not wait for the end of its own lease, and must be sure that the other is dead.
	Holder string
	// LeaseTTL is how long a process that died keeps the others from taking over; 5 s when 0.
	LeaseTTL time.Duration
	// Poll is how often the log's head is looked at, in case the stream says nothing of it; 1 s when 0.
	Poll time.Duration
}

// Log is what a runner reads the log with. *eventstore.Log implements it.
type Log interface {
	// ReadAll reads at most limit events after a position, in the order of their positions.
	ReadAll(ctx context.Context, after int64, limit int) ([]eventstore.Event, error)
	// Head is the position of the newest event.
	Head(ctx context.Context) (int64, error)
}

const (
	leasePrefix = "projection/"

	defaultBatch = 2000
	defaultTTL   = 5 * time.Second
	defaultPoll  = time.Second
)

func (r *Runner) batchSize() int      { return cmp.Or(r.BatchSize, defaultBatch) }
func (r *Runner) ttl() time.Duration  { return cmp.Or(r.LeaseTTL, defaultTTL) }
func (r *Runner) poll() time.Duration { return cmp.Or(r.Poll, defaultPoll) }
func (r *Runner) logger() *slog.Logger {
	return cmp.Or(r.Logger, slog.Default()).With("projection", r.Projection.Name())
}

// Run waits for the lease and keeps the read model up to date while it holds it, until ctx ends; then it returns nil.
// Whatever fails is logged, shown by Checkpoints.List and tried again, with one exception: Run fails with
// ErrRebuildNeeded where the tables were filled by another version of the code.
func (r *Runner) Run(ctx context.Context) error {
	holder := cmp.Or(r.Holder, newHolder())
	for wait := firstWait; ctx.Err() == nil; wait = min(2*wait, lastWait) {
		began := time.Now()
		err := r.lead(ctx, holder)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, ErrRebuildNeeded):
			return err
		case errors.Is(err, ErrFenced):
			r.logger().InfoContext(ctx, "projection passed on to another process")
		default:
			r.logger().ErrorContext(ctx, "projection failed; trying again", slog.Any("error", err))
		}
		if time.Since(began) > lastWait {
			wait = firstWait
		}
		if pause(ctx, wait) != nil {
			return nil
		}
	}
	return nil
}

// newHolder is a name that no other runner has, in this process or elsewhere.
func newHolder() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s/%d/%s", host, os.Getpid(), rand.Text()[:8])
}

// lead waits for the lease and works under it until it is lost or something fails that only a new start mends.
func (r *Runner) lead(ctx context.Context, holder string) error {
	lease := &eventstore.Lease{DB: r.DB, Name: leasePrefix + r.Projection.Name(), Holder: holder, TTL: r.ttl()}
	if err := r.acquire(ctx, lease); err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.ttl())
		defer cancel()
		if err := lease.Release(ctx); err != nil { // it runs out by itself
			r.logger().WarnContext(ctx, "lease kept until it ends", slog.Any("error", err))
		}
	}()

	w := &worker{Runner: r, epoch: lease.Epoch}
	g, working := errgroup.WithContext(ctx)
	g.Go(func() error { return r.renew(working, *lease) })
	g.Go(func() error { return w.work(working) })
	err := g.Wait()
	if errors.Is(err, ErrFenced) {
		err = errors.Join(err, r.raiseEpoch(ctx, lease))
	}
	return err
}

// raiseEpoch brings the lease, if it is still held, past the epoch of the projection. Leases that were deleted begin to
// count anew, and nobody could take the projection over until they caught up.
func (r *Runner) raiseEpoch(ctx context.Context, lease *eventstore.Lease) error {
	_, err := r.DB.Exec(ctx, `
		UPDATE leases SET epoch = (SELECT epoch + 1 FROM projections WHERE name = $3)
		 WHERE name = $1 AND holder = $2 AND epoch < (SELECT epoch FROM projections WHERE name = $3)`,
		lease.Name, lease.Holder, r.Projection.Name())
	return err
}

func (r *Runner) acquire(ctx context.Context, lease *eventstore.Lease) error {
	for {
		held, err := lease.Acquire(ctx)
		if err != nil || held {
			return err
		}
		if err := pause(ctx, r.ttl()/4); err != nil {
			return err
		}
	}
}

// renew keeps the lease until it is lost. A database that can't be reached is no reason to stop: nothing can be written
// there meanwhile, and the epoch guards what comes after.
func (r *Runner) renew(ctx context.Context, lease eventstore.Lease) error {
	epoch := lease.Epoch
	for {
		if err := pause(ctx, r.ttl()/3); err != nil {
			return err
		}
		held, err := lease.Acquire(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			r.logger().WarnContext(ctx, "lease not renewed", slog.Any("error", err))
		case !held || lease.Epoch != epoch:
			return ErrFenced
		}
	}
}

// work takes the read model over and keeps it up to date: from the log while it is behind, else from the stream.
func (w *worker) work(ctx context.Context) error {
	if err := w.persist(ctx, "take over", w.takeOver); err != nil {
		return err
	}
	for wait := firstWait; ; {
		began := w.checkpoint.Load()
		err := w.keepUp(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, errPaused):
			if err := w.awaitResume(ctx); err != nil {
				return err
			}
		case errors.Is(err, ErrFenced):
			return err
		default:
			if w.checkpoint.Load() > began {
				wait = firstWait
			}
			w.logger().ErrorContext(ctx, "projection can't go on; trying again", slog.Any("error", err), slog.Duration("wait", wait))
			if err := w.report(ctx, StateFailing, err.Error()); err != nil {
				return err
			}
			if err := pause(ctx, wait); err != nil {
				return err
			}
			wait = min(2*wait, lastWait)
		}
	}
}

// keepUp returns only with an error.
func (w *worker) keepUp(ctx context.Context) error {
	for {
		if err := w.catchUp(ctx); err != nil {
			return err
		}
		if err := w.persist(ctx, "create indexes", func(ctx context.Context) error {
			return createIndexes(ctx, w.DB, w.Projection, w.generation)
		}); err != nil {
			return err
		}
		if err := w.report(ctx, StateRunning, ""); err != nil {
			return err
		}
		if err := w.follow(ctx); !errors.Is(err, errBehind) {
			return err
		}
	}
}

// report stores the state, unless the projection was paused or passed on.
func (w *worker) report(ctx context.Context, s State, text string) error {
	return w.persist(ctx, "report the state", func(ctx context.Context) error {
		_, err := w.DB.Exec(ctx, `UPDATE projections SET state = $3, error = $4, updated_at = $5
			WHERE name = $1 AND epoch = $2 AND state <> 'paused' AND (state <> $3 OR error <> $4)`,
			w.Projection.Name(), w.epoch, string(s), errorText(text), time.Now().UTC())
		if err != nil {
			return fmt.Errorf("report the state: %w", err)
		}
		return nil
	})
}

func (w *worker) awaitResume(ctx context.Context) error {
	w.logger().InfoContext(ctx, "projection paused")
	for {
		if err := pause(ctx, w.poll()); err != nil {
			return err
		}
		var state string
		err := w.persist(ctx, "wait for a resume", func(ctx context.Context) error {
			return w.DB.QueryRow(ctx, "SELECT state FROM projections WHERE name = $1", w.Projection.Name()).Scan(&state)
		})
		if err != nil {
			return err
		}
		if State(state) != StatePaused {
			return nil
		}
	}
}

// catchUp applies the log up to its head. The next batch is read while one is applied.
func (w *worker) catchUp(ctx context.Context) error {
	head, err := w.head(ctx)
	if err != nil {
		return err
	}
	at := w.checkpoint.Load()
	if head-at > int64(w.batchSize()) {
		if err := w.report(ctx, StateCatchingUp, ""); err != nil {
			return err
		}
	}
	batches := make(chan []eventstore.Event, 1)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(batches)
		return w.readAhead(ctx, at, batches)
	})
	g.Go(func() error {
		for events := range batches {
			if err := w.apply(ctx, events); err != nil {
				return err
			}
		}
		return nil
	})
	return g.Wait()
}

func (w *worker) readAhead(ctx context.Context, after int64, batches chan<- []eventstore.Event) error {
	for {
		var events []eventstore.Event
		err := w.persist(ctx, "read the log", func(ctx context.Context) (err error) {
			events, err = w.Log.ReadAll(ctx, after, w.batchSize())
			return err
		})
		if err != nil || len(events) == 0 {
			return err
		}
		select {
		case batches <- events:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if len(events) < w.batchSize() {
			return nil
		}
		after = events[len(events)-1].Position
	}
}

func (w *worker) head(ctx context.Context) (head int64, err error) {
	err = w.persist(ctx, "read the head", func(ctx context.Context) error {
		head, err = w.Log.Head(ctx)
		return err
	})
	return head, err
}

// errBehind: the log has events that the stream does not bring.
var errBehind = errors.New("the stream is behind the log")

// follow applies what the stream brings. It fails with errBehind once the log has been ahead for a while without
// anything coming: the relay or the broker is down, and the log is read instead.
func (w *worker) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { cancel(w.watch(ctx)) })
	defer watch.Wait()
	defer cancel(nil)
	s := subscription.Subscription{
		JetStream:  w.JetStream,
		Stream:     w.Stream,
		Name:       "projection-" + w.Projection.Name(),
		Checkpoint: func(context.Context) (int64, error) { return w.checkpoint.Load(), nil },
		Handle: func(ctx context.Context, events []eventstore.Event) error {
			return subscription.Final(w.apply(ctx, events))
		},
		BesideLog: true,
		Source:    w.Log,
		Personal:  true,
		MaxBatch:  w.batchSize(),
		Logger:    w.logger(),
	}
	err := s.Run(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// watch returns errBehind after the log was ahead of the checkpoint, and the checkpoint did not move, from one look to
// the next.
func (w *worker) watch(ctx context.Context) error {
	stuck := int64(-1)
	for {
		if err := pause(ctx, w.poll()); err != nil {
			return err
		}
		head, err := w.Log.Head(ctx)
		at := w.checkpoint.Load()
		switch {
		case err != nil || head <= at:
			stuck = -1
		case at == stuck:
			return errBehind
		default:
			stuck = at
		}
	}
}
