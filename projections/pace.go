package projections

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"usher/eventstore"
)

// pace keeps a rebuild out of the way of those who append. While nobody does, it takes whatever processors there are.
// While somebody does, by whichever process, it works in turns of a few milliseconds, one at a time, and after each rests
// for as long: who is waiting for a processor, for the disk or to be scheduled in this process waits for no more than
// one turn, and finds most of the time that there is nothing to wait for.
//
// A statement that can't be cut into turns, such as one that makes an index, goes on through; it takes one processor.
type pace struct {
	log  Log
	turn sync.Mutex // held by who is at work, or rests, while somebody appends

	gentle atomic.Bool
	mu     sync.Mutex
	head   int64     // -1 before the first look
	moved  time.Time // when the head was last seen to have moved
	looked time.Time
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

func newPace(log Log) *pace { return &pace{log: log, head: -1} }

// look finds out whether somebody appends.
func (p *pace) look(ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if now.Sub(p.looked) < lookEvery {
		return
	}
	head, err := p.log.Head(ctx)
	if err != nil {
		return // whatever is wrong, what comes next tells
	}
	if head != p.head {
		p.moved = now
	}
	p.head, p.looked = head, now
	p.gentle.Store(now.Sub(p.moved) < restFor)
}

// work does something that takes a turn.
func (p *pace) work(ctx context.Context, do func() error) error {
	p.look(ctx)
	if !p.gentle.Load() {
		return do()
	}
	p.turn.Lock()
	defer p.turn.Unlock()
	began := time.Now()
	if err := do(); err != nil {
		return err
	}
	return pause(ctx, time.Since(began))
}

// load does something in a transaction, which rests while it adds rows to a table.
func (p *pace) load(ctx context.Context, tx eventstore.DB, do func(ctx context.Context, tx eventstore.DB) error) error {
	bulk, ok := tx.(copier)
	if !ok {
		return do(ctx, tx)
	}
	if p.gentle.Load() {
		p.turn.Lock()
		defer p.turn.Unlock()
	}
	return do(ctx, pacedTx{tx, bulk, p})
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
			t.pace.look(ctx)
			if t.pace.gentle.Load() {
				_ = pause(ctx, time.Since(began)) // it fails as the COPY then does
			}
			began = time.Now()
		}
		return row(i)
	})
}
