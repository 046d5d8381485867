package projections

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"usher.example/eventstore"
	"usher.example/subscription"
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

// Log is the log. *eventstore.Log implements it.
type Log interface {
	// ReadAll reads at most limit events after a position, in the order of their positions.
	ReadAll(ctx context.Context, after int64, limit int) ([]eventstore.Event, error)
	// ReadSome is ReadAll, but for what is too large to be read at once. It says whether there may be more.
	ReadSome(ctx context.Context, after int64, limit int) (events []eventstore.Event, more bool, err error)
	// ReadRange reads the selected events after one position and up to another, or through the one where they get too large.
	ReadRange(ctx context.Context, after, to int64, s eventstore.Selection) (events []eventstore.Event, through int64, err error)
	// Reader goes through the selected events, together with others that do.
	Reader(s eventstore.Selection) *eventstore.Reader
	// Head is the position of the newest event.
	Head(ctx context.Context) (int64, error)
	// Append records what was done to a projection.
	Append(ctx context.Context, a eventstore.Append) (eventstore.Result, error)
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

func (r *Runner) model() model { return newModel(r.Projection, r.DB, r.Log, r.Logger) }

// Run keeps the read model up to date whenever it holds the projection's lease, and does the rebuilds that are asked for,
// until ctx ends; then it returns nil. Whatever fails is logged, shown by Checkpoints.List and tried again. Where the live
// generation was filled by an older version of the code, Run asks for a rebuild once and leaves the tables alone until
// they are exchanged.
func (r *Runner) Run(ctx context.Context) error {
	m, holder := r.model(), cmp.Or(r.Holder, eventstore.NewHolder())
	var rebuilds sync.WaitGroup
	defer rebuilds.Wait()
	rebuilds.Go(func() { r.doRebuilds(ctx, m, holder) })
	for wait := firstWait; ctx.Err() == nil; wait = min(2*wait, lastWait) {
		began := time.Now()
		err := r.lead(ctx, m, holder)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, ErrOtherVersion):
			m.logTo.InfoContext(ctx, "another version of the code fills the read model now")
		case errors.Is(err, ErrFenced):
			m.logTo.InfoContext(ctx, "projection passed on to another process")
		default:
			m.logTo.ErrorContext(ctx, "projection failed; trying again", slog.Any("error", err))
		}
		if time.Since(began) > lastWait {
			wait = firstWait
		}
		if eventstore.Pause(ctx, wait) != nil {
			return nil
		}
	}
	return nil
}

// lead waits for the lease and works under it until it is lost or something fails that only a new start mends.
func (r *Runner) lead(ctx context.Context, m model, holder string) error {
	if err := r.awaitOwnVersion(ctx, m); err != nil {
		return err
	}
	lease := &eventstore.Lease{DB: r.DB, Name: leasePrefix + m.name(), Holder: holder, TTL: r.ttl()}
	if err := lease.Await(ctx); err != nil {
		return err
	}
	err := m.hold(ctx, *lease, func(ctx context.Context) error {
		w := &worker{Runner: r, model: m, epoch: lease.Epoch}
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error { return w.work(ctx) })
		g.Go(func() error { return w.keepStandby(ctx) })
		g.Go(func() error { return w.doRetries(ctx) })
		return g.Wait()
	})
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
		case errors.Is(err, ErrFenced) || errors.Is(err, ErrOtherVersion):
			return err
		default:
			if w.checkpoint.Load() > began {
				wait = firstWait
			}
			w.logTo.ErrorContext(ctx, "projection can't go on; trying again", slog.Any("error", err), slog.Duration("wait", wait))
			if err := w.report(ctx, StateFailing, err.Error()); err != nil {
				return err
			}
			if err := eventstore.Pause(ctx, wait); err != nil {
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
		if err := w.persist(ctx, "create indexes", w.completeIndexes); err != nil {
			return err
		}
		if err := w.report(ctx, StateRunning, ""); err != nil {
			return err
		}
		if err := w.follow(ctx); !errors.Is(err, subscription.ErrBehind) {
			return err
		}
	}
}

// completeIndexes makes the indexes that the live generation lacks, whichever it is by now.
func (w *worker) completeIndexes(ctx context.Context) error {
	l, err := w.readLive(ctx, w.db)
	switch {
	case err != nil:
		return err
	case l.code != w.projection.CodeVersion():
		return ErrOtherVersion
	}
	w.generation = l.generation
	return w.numbered(l.generation).Index(ctx, w.db, w.projection)
}

// report stores the state, unless the projection was paused or passed on.
func (w *worker) report(ctx context.Context, s State, text string) error {
	return w.persist(ctx, "report the state", func(ctx context.Context) error {
		_, err := w.DB.Exec(ctx, `UPDATE projections SET state = $3, error = $4, updated_at = $5
			WHERE name = $1 AND epoch = $2 AND state <> 'paused' AND (state <> $3 OR error <> $4)`,
			w.name(), w.epoch, string(s), errorText(text), time.Now().UTC())
		if err != nil {
			return fmt.Errorf("report the state: %w", err)
		}
		return nil
	})
}

func (w *worker) awaitResume(ctx context.Context) error {
	w.logTo.InfoContext(ctx, "projection paused")
	for {
		if err := eventstore.Pause(ctx, w.poll()); err != nil {
			return err
		}
		var state string
		var code int
		err := w.persist(ctx, "wait for a resume", func(ctx context.Context) error {
			return w.DB.QueryRow(ctx, "SELECT state, code_version FROM projections WHERE name = $1", w.name()).Scan(&state, &code)
		})
		switch {
		case err != nil:
			return err
		case code != w.projection.CodeVersion():
			return ErrOtherVersion
		case State(state) != StatePaused:
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
		var more bool
		err := w.persist(ctx, "read the log", func(ctx context.Context) (err error) {
			events, more, err = w.Log.ReadSome(ctx, after, w.batchSize())
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
		if !more {
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

// Consumer is the name of the durable consumer that a projection reads the stream through.
func Consumer(projection string) string { return "projection-" + projection }

// follow applies what the stream brings. It fails with subscription.ErrBehind once the log has been ahead for a while without
// anything coming: the relay or the broker is down, and the log is read instead.
func (w *worker) follow(ctx context.Context) error {
	s := subscription.Subscription{
		JetStream:  w.JetStream,
		Stream:     w.Stream,
		Name:       Consumer(w.name()),
		Checkpoint: func(context.Context) (int64, error) { return w.checkpoint.Load(), nil },
		Handle: func(ctx context.Context, events []eventstore.Event) error {
			if len(events) > 1 { // of one alone, apply asks itself
				if err := eventstore.Confirm(ctx, w.DB, events); errors.Is(err, eventstore.ErrForeign) {
					return subscription.Final(err)
				} else if err != nil {
					return err
				}
			}
			return subscription.Final(w.apply(ctx, events))
		},
		BesideLog: true,
		Source:    w.Log,
		Personal:  true,
		MaxBatch:  w.batchSize(),
		Logger:    w.logTo,
	}
	return s.RunBesideLog(ctx, w.Log.Head, w.poll(), w.stillTheOne)
}

// stillTheOne fails with ErrOtherVersion once another version of the code is the one to go on, and with ErrFenced where the
// checkpoint has gone back: the database is another one.
func (w *worker) stillTheOne(ctx context.Context) error {
	at := w.checkpoint.Load()
	switch l, err := w.readLive(ctx, w.db); {
	case err != nil: // which is for those who write to find out
		return nil
	case l.code != w.projection.CodeVersion():
		return ErrOtherVersion
	case l.checkpoint < at:
		return ErrFenced
	}
	return nil
}
