package projections

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"

	"usher.example/eventstore"
)

// model is a read model and what it stands on: what runners, rebuilds and operators have in common.
type model struct {
	projection Projection
	db         eventstore.DB
	log        Log
	logTo      *slog.Logger
	pace       *pace
	batch      int // events of a transaction that fills a generation; see span when 0
}

func newModel(p Projection, db eventstore.DB, log Log, logTo *slog.Logger) model {
	return model{projection: p, db: db, log: log, logTo: cmp.Or(logTo, slog.Default()).With("projection", p.Name()), pace: newPace(log)}
}

func (m model) name() string { return m.projection.Name() }

// live is a projection's row.
type live struct {
	generation int
	code       int // version of the code that filled the generation
	checkpoint int64
}

// readLive fails with ErrUnknownProjection.
func (m model) readLive(ctx context.Context, db eventstore.DB) (l live, err error) {
	err = m.scanLive(&l, db.QueryRow(ctx, "SELECT generation, code_version, checkpoint FROM projections WHERE name = $1", m.name()))
	return l, err
}

// lockLive reads the row and keeps the checkpoint where it is until the transaction ends. It fails with
// ErrUnknownProjection.
func (m model) lockLive(ctx context.Context, tx eventstore.DB) (l live, err error) {
	err = m.scanLive(&l, tx.QueryRow(ctx, `UPDATE projections SET updated_at = $2 WHERE name = $1
		RETURNING generation, code_version, checkpoint`, m.name(), time.Now().UTC()))
	return l, err
}

func (m model) scanLive(l *live, row eventstore.Row) error {
	err := row.Scan(&l.generation, &l.code, &l.checkpoint)
	switch {
	case errors.Is(err, eventstore.ErrNoRows):
		return ErrUnknownProjection
	case err != nil:
		return fmt.Errorf("read the projection %s: %w", m.name(), err)
	}
	return nil
}

// Waits between tries of what failed for no reason of its own.
const (
	firstWait = 50 * time.Millisecond
	lastWait  = 5 * time.Second
)

// transient says whether an error will pass by itself.
func transient(err error) bool {
	return errors.Is(err, eventstore.ErrUnavailable) || errors.Is(err, eventstore.ErrOutcomeUnknown)
}

// persist calls do until it succeeds or fails with an error that is not transient, or ctx ends.
func (m model) persist(ctx context.Context, what string, do func(context.Context) error) error {
	for wait := firstWait; ; wait = min(2*wait, lastWait) {
		err := do(ctx)
		if err == nil || !transient(err) || ctx.Err() != nil {
			return err
		}
		m.logTo.WarnContext(ctx, "projection waits", "doing", what, slog.Any("error", err), slog.Duration("wait", wait))
		if err := eventstore.Pause(ctx, wait); err != nil {
			return err
		}
	}
}

// How many events of the log are read at once to fill a generation.
const (
	fillPostgres = 10_000
	fillSQLite   = 2_000
)

func (m model) fillBatch() int {
	switch {
	case m.batch > 0:
		return m.batch
	case m.db.Dialect() == eventstore.SQLite:
		return fillSQLite
	}
	return fillPostgres
}

// The bounds of a transaction that fills a generation: what it writes, of which all is in memory, and how much of the log it
// takes in, which is what has to be done again where a process is killed. The first is looked at after so many events, each of
// which may bring a row into memory that is far larger than itself.
const (
	maxBytes   = 12 << 20
	maxSpan    = 25 * fillPostgres
	foldAtOnce = 1000
)

// span is how much of the log a transaction takes in. On SQLite every other writer waits for one, so it is short.
func (m model) span() int64 {
	if m.batch > 0 || m.db.Dialect() == eventstore.SQLite {
		return int64(m.fillBatch())
	}
	return maxSpan
}

// maxReaders bounds the ranges of the log that are read and opened at the same time, and so what is in memory.
const maxReaders = 4

// batch is what there is in a part of the log.
type batch struct {
	events []eventstore.Event // those that are wanted, and the last one
	to     int64              // the position that the part ends at
}

// cut is a part of at most so many events, and what is left.
func (b batch) cut(n int) (first, rest batch) {
	if len(b.events) <= n {
		return b, batch{}
	}
	return batch{b.events[:n], b.events[n-1].Position}, batch{b.events[n:], b.to}
}

// last is the event at which the part ends.
func (b batch) last() eventstore.Anchor { return eventstore.AnchorOf(b.events[len(b.events)-1]) }

// readRange hands what is wanted after one position and up to another over, in order, in batches. Later ones are read and
// opened meanwhile, several at a time.
func (m model) readRange(ctx context.Context, after, to int64, wanted eventstore.Selection, handle func(context.Context, batch) error) error {
	reader := m.log.Reader(wanted)
	defer reader.Close()
	ahead := make(chan chan batch, min(maxReaders, runtime.GOMAXPROCS(0)))
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(ahead)
		for at := after; at < to; {
			size := int64(m.fillBatch())
			if m.pace.gentle.Load() {
				size = min(size, gentlePage)
			}
			from, upTo := at, min(at-at%size+size, to) // where others who go through the log cut it too
			at = upTo
			read := make(chan batch) // what is read waits for its turn, and so bounds the memory
			select {
			case ahead <- read:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			g.Go(func() error {
				for from < upTo {
					var b batch
					err := m.persist(ctx, "read the log", func(ctx context.Context) error {
						return m.pace.work(ctx, func() (err error) {
							b.events, b.to, err = reader.ReadRange(ctx, from, upTo)
							return err
						})
					})
					if err != nil {
						return err // which ends ctx
					}
					select {
					case read <- b:
					case <-ctx.Done():
						return context.Cause(ctx)
					}
					from = b.to
				}
				close(read)
				return nil
			})
		}
		return nil
	})
	g.Go(func() error {
		for read := range ahead {
			if err := handleAll(ctx, read, handle); err != nil {
				return err
			}
		}
		return nil
	})
	return g.Wait()
}

func handleAll(ctx context.Context, read <-chan batch, handle func(context.Context, batch) error) error {
	for {
		select {
		case b, more := <-read:
			if !more {
				return nil
			}
			if err := handle(ctx, b); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
