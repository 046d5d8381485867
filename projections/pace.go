package projections

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"usher.example/eventstore"
)

// pace keeps a rebuild out of the way of those who append. While nobody does, it takes whatever processors there are.
// While somebody does, by whichever process, it works in turns of a few milliseconds, one at a time, and after each rests
// for as long: who is waiting for a processor, for the disk or to be scheduled in this process waits for no more than
// one turn, and finds half of the time that there is nothing to wait for.
//
// A statement that can't be cut into turns, such as one that makes an index, goes on through.
type pace struct {
	log    Log
	turn   sync.Mutex // held by who is at work, or rests, while somebody appends; taken before any connection is
	gentle atomic.Bool
}

const (
	// lookEvery is how often the log's head is looked at.
	lookEvery = 20 * time.Millisecond
	// restFor is how long after an append there is said to be somebody who appends. It is known of nobody at first, so a
	// rebuild begins gently.
	restFor = 60 * time.Millisecond

	gentlePage = 250 // events that are read in a turn
	gentleRows = 50  // rows that are loaded in a turn
)

func newPace(log Log) *pace {
	p := &pace{log: log}
	p.gentle.Store(true)
	return p
}

// during does something, and finds out meanwhile whether somebody appends.
func (p *pace) during(ctx context.Context, do func() error) error {
	watched, stop := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { p.watch(watched) })
	defer watch.Wait()
	defer stop()
	return do()
}

func (p *pace) watch(ctx context.Context) {
	var moved time.Time // when the head was last seen to have moved
	for known := int64(-1); ; {
		head, err := p.log.Head(ctx)
		if err == nil { // whatever is wrong, those who work are told
			if head != known {
				known, moved = head, time.Now()
			}
			p.gentle.Store(time.Since(moved) < restFor)
		}
		if eventstore.Pause(ctx, lookEvery) != nil {
			return
		}
	}
}

// work does something that takes a turn.
func (p *pace) work(ctx context.Context, do func() error) error {
	if !p.gentle.Load() {
		return do()
	}
	p.turn.Lock()
	defer p.turn.Unlock()
	began := time.Now()
	if err := do(); err != nil {
		return err
	}
	return eventstore.Pause(ctx, time.Since(began))
}

// load does something, whose transaction rests while it adds rows to a table.
func (p *pace) load(do func(paced func(tx eventstore.DB) eventstore.DB) error) error {
	if p.gentle.Load() {
		p.turn.Lock()
		defer p.turn.Unlock()
	}
	return do(func(tx eventstore.DB) eventstore.DB {
		if bulk, ok := tx.(copier); ok {
			return pacedTx{tx, bulk, p}
		}
		return tx
	})
}

// pacedTx is a transaction that rests while it adds many rows to a table.
type pacedTx struct {
	eventstore.DB
	bulk copier
	pace *pace
}

func (t pacedTx) CopyFrom(ctx context.Context, table string, columns []string, rows int, row func(i int) []any) error {
	began := time.Now()
	return t.bulk.CopyFrom(ctx, table, columns, rows, func(i int) []any {
		if i%gentleRows == gentleRows-1 {
			if t.pace.gentle.Load() {
				_ = eventstore.Pause(ctx, time.Since(began)) // it fails as the COPY then does
			}
			began = time.Now()
		}
		return row(i)
	})
}
