package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
)

// Source is a log as one process has it, with no more than the race needs, so that it can also be run on a log that is
// known to be wrong.
type Source struct {
	Append func(ctx context.Context, a eventstore.Append) (eventstore.Result, error)
	Read   func(ctx context.Context, after int64, limit int) ([]eventstore.Event, error)
	// Abort runs a transaction beside the log that writes something, holds it for a while and is rolled back.
	Abort func(ctx context.Context, hold time.Duration) error
}

// Findings are what a tailing reader and the writers beside it disagreed about.
type Findings struct {
	Events     int // that the reader saw
	Skipped    int // answered, and never seen by the reader
	Twice      int // seen again
	Gaps       int // positions that did not follow on the one before
	Disordered int // versions that did not follow on the one before in their stream
	Untrue     int // seen at another place than was answered, in part only, or although the append failed

	Examples []string
}

// Clean says whether there was nothing to find.
func (f Findings) Clean() bool { return f.Skipped+f.Twice+f.Gaps+f.Disordered+f.Untrue == 0 }

func (f *Findings) add(count *int, format string, args ...any) {
	*count++
	if len(f.Examples) < 10 {
		f.Examples = append(f.Examples, fmt.Sprintf(format, args...))
	}
}

// Race has writers append to a few streams, through the sources in turn, with random delays, cancelled contexts, appends
// that fail and transactions that abort; and one reader who follows the log all the while. It answers with everything
// that the reader should not have seen.
func Race(ctx context.Context, sources []Source, writers, rounds int) (Findings, error) {
	r := &race{streams: make([]eventstore.Stream, 12)}
	for i := range r.streams {
		r.streams[i] = eventstore.UserStream(newID())
	}
	var group sync.WaitGroup
	for i := range writers {
		group.Go(func() { r.write(ctx, sources[i%len(sources)], rounds) })
	}
	go func() {
		group.Wait()
		r.written.Store(true)
	}()
	f, err := r.tail(ctx, sources[0])
	if err != nil {
		return f, err
	}
	r.compare(&f)
	return f, nil
}

type race struct {
	streams []eventstore.Stream
	written atomic.Bool // all that will ever be

	mu       sync.Mutex
	attempts []attempt

	seen map[uuid.UUID]int64 // event to position, by the reader alone
}

// attempt is an append and what its writer was told.
type attempt struct {
	eventstore.Append
	result eventstore.Result
	err    error
}

// pause waits for at most a duration.
func pause(ctx context.Context, longest time.Duration) {
	timer := time.NewTimer(rand.N(longest))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (r *race) write(ctx context.Context, s Source, rounds int) {
	own := eventstore.UserStream(newID())
	version := eventstore.NoStream
	for range rounds {
		a := facts(r.streams[rand.IntN(len(r.streams))])
		for range rand.IntN(3) {
			a.Events = append(a.Events, fact(2))
		}
		for i := range a.Events {
			a.Events[i].ID = newID()
		}
		a.CommandID = newID()
		attemptCtx, cancel := context.WithCancel(ctx)
		switch rand.IntN(10) {
		case 0: // goes away at some point
			go func() {
				pause(attemptCtx, 2*time.Millisecond)
				cancel()
			}()
		case 1: // is refused
			a.Expected = 1 << 20
		case 2: // makes the database fail
			a.Events[len(a.Events)-1].Data = json.RawMessage(`{"n":`)
		case 3:
			if err := s.Abort(ctx, rand.N(3*time.Millisecond)); err != nil {
				r.told(attempt{a, eventstore.Result{}, err})
			}
		case 4: // knows what it wants
			a.Stream, a.Expected = own, version
		}
		result, err := s.Append(attemptCtx, a)
		cancel()
		if errors.Is(err, eventstore.ErrOutcomeUnknown) {
			// The truth can be found out.
			if again, err2 := s.Append(ctx, a); err2 == nil {
				result, err = again, nil
			}
		}
		if err == nil && a.Stream == own {
			version = eventstore.Expected(result.Version)
		}
		r.told(attempt{a, result, err})
		pause(ctx, time.Millisecond)
	}
}

func (r *race) told(a attempt) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.attempts = append(r.attempts, a)
}

// tail follows the log until nothing more can come.
func (r *race) tail(ctx context.Context, s Source) (f Findings, err error) {
	r.seen = map[uuid.UUID]int64{}
	versions := map[uuid.UUID]int{}
	var after int64
	for {
		last := r.written.Load()
		events, err := s.Read(ctx, after, 100)
		if err != nil {
			return f, err
		}
		for _, e := range events {
			f.Events++
			if e.Position != after+1 {
				f.add(&f.Gaps, "position %d after %d", e.Position, after)
			}
			if _, again := r.seen[e.ID]; again {
				f.add(&f.Twice, "%s at %d", e.ID, e.Position)
			}
			if v := versions[e.Stream.ID]; e.Version != v+1 {
				f.add(&f.Disordered, "version %d after %d at %d", e.Version, v, e.Position)
			}
			r.seen[e.ID], versions[e.Stream.ID], after = e.Position, e.Version, e.Position
		}
		if last && len(events) == 0 {
			return f, nil
		}
		pause(ctx, 100*time.Microsecond)
	}
}

// compare holds what the writers were told against what the reader saw.
func (r *race) compare(f *Findings) {
	for _, a := range r.attempts {
		first := a.result.Position - int64(len(a.Events)) + 1
		present := 0
		for i, e := range a.Events {
			at, seen := r.seen[e.ID]
			if seen {
				present++
			}
			switch {
			case a.err != nil:
			case !seen:
				f.add(&f.Skipped, "%s answered at %d", e.ID, first+int64(i))
			case at != first+int64(i):
				f.add(&f.Untrue, "%s answered at %d and seen at %d", e.ID, first+int64(i), at)
			}
		}
		switch {
		case a.err == nil:
		case errors.Is(a.err, eventstore.ErrOutcomeUnknown):
			if present != 0 && present != len(a.Events) {
				f.add(&f.Untrue, "%d of %d events of one append", present, len(a.Events))
			}
		case present > 0:
			f.add(&f.Untrue, "seen although its append failed: %v", a.err)
		}
	}
}

// testTail is the race on the store itself, read as it is stored, with several processes at once.
func testTail(t *testing.T, b Backend) {
	d := deploy(t, b)
	sources := make([]Source, 4)
	for i := range sources {
		p := d.process(t)
		sources[i] = Source{Append: p.Append, Read: p.db.ReadAll, Abort: p.abort}
	}
	f, err := Race(t.Context(), sources, 64, dose(12))
	if err != nil {
		t.Fatal(err)
	}
	if !f.Clean() || f.Events == 0 {
		t.Errorf("%+v", f)
	}
	wantHead(t, d.open(t), int64(f.Events))
}

var errAborted = errors.New("aborted")

func (p process) abort(ctx context.Context, hold time.Duration) error {
	err := p.db.Transact(ctx, func(tx eventstore.DB) error {
		if _, err := tx.Exec(ctx, "INSERT INTO leases (name, holder, epoch, expires_at) VALUES ($1, 'nobody', 1, $2)", newID().String(), time.Now()); err != nil {
			return err
		}
		pause(ctx, hold)
		return errAborted
	})
	if errors.Is(err, errAborted) {
		return nil
	}
	return err
}
