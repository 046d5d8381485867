package eventstore

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
)

// committer writes whatever appends are waiting in one commit. A lone append is committed at once by its own caller,
// which saves two handovers between goroutines. Those that come while a commit is on its way share the next one, from
// a goroutine that begins when there are some and ends when there are none.
type committer struct {
	store    Store
	limit    int
	onCommit func(CommitStats)

	mu      sync.Mutex
	queue   []*waiter
	working bool
	closed  bool
	idle    chan struct{} // closed when closed and nothing is at work
}

// CommitStats describes one commit.
type CommitStats struct {
	Appends  int           // that were in the batch
	Events   int           // that were written
	Head     int64         // the last position written, 0 if none was
	Duration time.Duration // of the commit itself
}

const (
	maxBatch          = 1000    // appends that share a commit,
	maxBatchBytes     = 4 << 20 // and about what is in them, which is in memory several times until it is sent
	defaultQueueLimit = 4096
)

// waiter is an append on its way. sent and the queue's membership are guarded by the committer's mutex.
type waiter struct {
	*Prepared
	sent    bool
	outcome chan Outcome // buffered: the committer never waits for a caller; nil for an append that goes alone
}

func newCommitter(store Store, limit int, onCommit func(CommitStats)) *committer {
	if limit <= 0 {
		limit = defaultQueueLimit
	}
	return &committer{store: store, limit: limit, onCommit: onCommit, idle: make(chan struct{})}
}

func (c *committer) waiting() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.queue)
}

func (c *committer) commit(ctx context.Context, p *Prepared) (Result, error) {
	if ctx.Err() != nil {
		return Result{}, context.Cause(ctx)
	}
	w := &waiter{Prepared: p}
	alone, err := c.enter(w)
	if err != nil {
		return Result{}, err
	}
	if alone {
		o := c.write(ctx, []*waiter{w})[0]
		c.proceed()
		return o.Result, o.Err
	}
	select {
	case o := <-w.outcome:
		return o.Result, o.Err
	case <-ctx.Done():
		if c.takeBack(w) {
			return Result{}, context.Cause(ctx)
		}
	}
	// It was sent. The answer may be here already; if not, nobody knows it.
	select {
	case o := <-w.outcome:
		return o.Result, o.Err
	default:
		return Result{}, fmt.Errorf("%w: %w", ErrOutcomeUnknown, context.Cause(ctx))
	}
}

// enter lets an append in: alone, to be committed by its caller, where nothing is under way; else into the queue.
func (c *committer) enter(w *waiter) (alone bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return false, ErrClosed
	case !c.working:
		c.working = true
		return true, nil
	case len(c.queue) >= c.limit:
		return false, ErrOverloaded
	}
	w.outcome = make(chan Outcome, 1)
	c.queue = append(c.queue, w)
	return false, nil
}

// proceed goes on with the appends that came while a lone one was committed.
func (c *committer) proceed() {
	if batch := c.next(); batch != nil {
		go c.work(batch)
	}
}

// takeBack removes a waiter that was not sent yet.
func (c *committer) takeBack(w *waiter) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w.sent {
		return false
	}
	c.queue = slices.DeleteFunc(c.queue, func(q *waiter) bool { return q == w })
	return true
}

// work commits batches until no append is waiting. Callers come and go, but what was sent is finished.
func (c *committer) work(batch []*waiter) {
	for ; batch != nil; batch = c.next() {
		for i, o := range c.write(context.Background(), batch) {
			batch[i].outcome <- o
		}
		c.gather(len(batch))
	}
}

// gatherFor is how long the queue may stand still before the next batch goes.
const gatherFor = 50 * time.Microsecond

// gather lets those who were answered come back with their next appends and join the next batch: it yields while the
// queue grows by that, and stops once it has stood still for a moment or all of them are back. Without it the callers
// split into two halves that take turns, and commits carry half as much. A lone append never comes here.
func (c *committer) gather(answered int) {
	known, since := c.waiting(), time.Now()
	for all := known + answered; known < all && time.Since(since) < gatherFor; {
		runtime.Gosched()
		if n := c.waiting(); n != known {
			known, since = n, time.Now()
		}
	}
}

// next takes the batch that goes next: in the order of arrival, with at most one append to a stream, for a reservation
// and for a command id, within the bounds of a batch. An append that has to wait for another keeps its place, and makes
// later ones to its stream wait.
func (c *committer) next() []*waiter {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queue) == 0 {
		c.working = false
		if c.closed {
			close(c.idle)
		}
		return nil
	}
	taken := newClaims(min(len(c.queue), maxBatch))
	var batch []*waiter
	rest := c.queue[:0]
	bytes, full := 0, false
	for _, w := range c.queue {
		full = full || len(batch) == maxBatch || len(batch) > 0 && bytes+w.size() > maxBatchBytes // none overtakes a large one
		if !full && taken.add(w.Prepared) {
			bytes += w.size()
			w.sent = true
			batch = append(batch, w)
		} else {
			rest = append(rest, w)
		}
	}
	clear(c.queue[len(rest):])
	c.queue = rest
	return batch
}

// claims is what the appends of a batch have for themselves.
type claims struct {
	ids    map[uuid.UUID]struct{} // streams and command ids
	values map[string]struct{}    // reservation keys
}

func newClaims(size int) claims {
	return claims{ids: make(map[uuid.UUID]struct{}, 2*size), values: make(map[string]struct{}, size)}
}

// add says whether an append can join. If not, its stream is taken all the same.
func (c claims) add(p *Prepared) bool {
	_, taken := c.ids[p.Stream.ID]
	if p.CommandID != uuid.Nil && !taken {
		_, taken = c.ids[p.CommandID]
	}
	for _, keys := range [][][]byte{p.ReserveKeys, p.ReleaseKeys} {
		for _, key := range keys {
			if _, held := c.values[string(key)]; held {
				taken = true
			}
		}
	}
	c.ids[p.Stream.ID] = struct{}{}
	if taken {
		return false
	}
	if p.CommandID != uuid.Nil {
		c.ids[p.CommandID] = struct{}{}
	}
	for _, keys := range [][][]byte{p.ReserveKeys, p.ReleaseKeys} {
		for _, key := range keys {
			c.values[string(key)] = struct{}{}
		}
	}
	return true
}

// write commits a batch. An error that blames an append halves the batch until the append is alone, so that it fails
// without its neighbours.
func (c *committer) write(ctx context.Context, batch []*waiter) []Outcome {
	prepared := make([]*Prepared, len(batch))
	for i, w := range batch {
		prepared[i] = w.Prepared
	}
	start := time.Now()
	outcomes, err := c.store.Commit(ctx, prepared)
	switch {
	case err == nil:
		c.onCommit(statsOf(batch, outcomes, time.Since(start)))
		return outcomes
	case len(batch) == 1 || errors.Is(err, ErrUnavailable) || errors.Is(err, ErrOutcomeUnknown):
		return slices.Repeat([]Outcome{{Err: err}}, len(batch))
	}
	half := len(batch) / 2
	return append(c.write(ctx, batch[:half]), c.write(ctx, batch[half:])...)
}

func statsOf(batch []*waiter, outcomes []Outcome, took time.Duration) CommitStats {
	s := CommitStats{Appends: len(batch), Duration: took}
	for i, o := range outcomes {
		if o.Err == nil && !o.Repeated {
			s.Events += len(batch[i].Events)
			s.Head = max(s.Head, o.Position)
		}
	}
	return s
}

func (c *committer) close(ctx context.Context) error {
	c.mu.Lock()
	if !c.closed {
		c.closed = true
		if !c.working {
			close(c.idle)
		}
	}
	c.mu.Unlock()
	select {
	case <-c.idle:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("close the log: %w", context.Cause(ctx))
	}
}
