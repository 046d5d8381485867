package password

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Errors of a [Pool].
var (
	// ErrOverloaded is what every [*OverloadedError] is.
	ErrOverloaded = errors.New("password: hashing queue is full")
	// ErrStopped: the pool's Run has returned or is about to.
	ErrStopped = errors.New("password: hashing pool is stopped")
)

// OverloadedError is returned when the queue is full, or the caller's share of
// it: at once, or to whoever waited and had to make room. It matches
// [ErrOverloaded].
type OverloadedError struct {
	// RetryAfter is how long the present queue takes, in whole seconds, at
	// least one.
	RetryAfter time.Duration
}

// Error says when to come back.
func (e *OverloadedError) Error() string {
	return fmt.Sprintf("%s: retry after %s", ErrOverloaded, e.RetryAfter)
}

// Is reports whether target is [ErrOverloaded].
func (e *OverloadedError) Is(target error) bool { return target == ErrOverloaded }

// PoolConfig sets up a [Pool]; its zero value is ready for use.
type PoolConfig struct {
	// Cost of new hashes, MinCost to MaxCost. Zero stands for DefaultCost.
	Cost int
	// Workers hash at the same time. Zero stands for one a processor.
	Workers int
	// Queue is how many callers may wait for a worker. Zero stands for 32 a
	// worker and at least 64: about eight seconds of work at cost 12.
	Queue int
}

// Pool hashes and verifies in a few threads of its own, beside the request
// goroutines and never in their place: on Linux the threads have the lowest
// priority, and GOMAXPROCS is raised by their number while they run. Callers
// queue, up to a bound; past it they are told so. The queue is shared out between
// networks, and within one between accounts: they are served in turn, none has
// more than a quarter while others wait, and where there is no room for somebody
// who has little, whoever has the most makes some. Imported hashes of argon2 and scrypt fill memory, 256 MiB at most at the same
// time: those that need more than is left wait, and bcrypt and PBKDF2 pass them.
// argon2 alone is computed at ordinary priority.
//
// Its methods are safe for concurrent use. They wait until [Pool.Run] runs.
type Pool struct {
	cost    int
	workers int
	bound   int
	// Tests replace the first and set the second.
	cpuTime func() time.Duration // of the calling thread
	observe func(computation)    // sees each computation once it has begun

	mu      sync.Mutex
	arrived *sync.Cond // a job was queued, or the pool stopped
	queue   share
	short   *job // that waits for memory, and is the next to get some
	busy    int
	memory  int // that the computations at work hold
	started bool
	stopped bool
	average time.Duration // of a job, moving
}

// job is one computation and the caller who waits for it.
type job struct {
	by       Caller
	method   method
	password Password
	memory   int         // that the method takes
	run      computation // begun by the worker: even normalising and keying are part of the work
	queued   bool        // until a worker has taken it; guarded by Pool.mu
	begun    time.Time
	digest   string
	err      error
	done     chan struct{} // closed when digest or err is set
}

// NewPool checks the configuration. It returns [ErrCost], or an error that
// names the field.
func NewPool(config PoolConfig) (*Pool, error) {
	if config.Cost == 0 {
		config.Cost = DefaultCost
	}
	if config.Cost < MinCost || config.Cost > MaxCost {
		return nil, ErrCost
	}
	if config.Workers < 0 || config.Queue < 0 {
		return nil, errors.New("password: Workers and Queue are not negative")
	}
	if config.Workers == 0 {
		config.Workers = processors.own()
	}
	if config.Queue == 0 {
		config.Queue = max(64, 32*config.Workers)
	}
	p := &Pool{cost: config.Cost, workers: config.Workers, bound: config.Queue, cpuTime: threadTime}
	p.arrived = sync.NewCond(&p.mu)
	return p, nil
}

// Cost is the cost of new hashes.
func (p *Pool) Cost() int { return p.cost }

// Workers is the number of workers.
func (p *Pool) Workers() int { return p.workers }

// Queued is the number of callers that wait for a worker.
func (p *Pool) Queued() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.queue.size
}

// Busy is the number of workers at work.
func (p *Pool) Busy() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.busy
}

// Hash hashes a password at the pool's cost. It returns a [*RefusedError], an
// [*OverloadedError], [ErrStopped] or the cause of ctx's end. A caller whose
// ctx ends while it waits leaves the queue and its work is not done; work that
// has begun is finished and discarded.
func (p *Pool) Hash(ctx context.Context, by Caller, password Password) (Hash, error) {
	if err := password.check(); err != nil {
		return "", err
	}
	m, err := fresh(p.cost)
	if err != nil {
		return "", err
	}
	digest, err := p.compute(ctx, by, m, password)
	if err != nil {
		return "", fmt.Errorf("hash password: %w", err)
	}
	return m.encode(digest), nil
}

// Verify reports whether hash is that of password, and, only if it is,
// whether the hash should be replaced by a new one of the pool's cost. It
// always costs one computation at the hash's own cost, right or wrong. Its
// errors are those of [Pool.Hash] and of the function [Verify].
func (p *Pool) Verify(ctx context.Context, by Caller, hash Hash, password Password) (match, rehash bool, err error) {
	if err := password.check(); err != nil {
		return false, false, err
	}
	s, err := parse(hash)
	if err != nil {
		return false, false, err
	}
	digest, err := p.compute(ctx, by, s.method, password)
	if err != nil {
		return false, false, fmt.Errorf("verify password: %w", err)
	}
	match = s.matches(digest)
	return match, match && s.outdated(p.cost), nil
}

// Reused reports whether a new password is one of those whose hashes are given,
// latest first. It computes one after the other until one matches, each like a
// Verify, and looks at MaxHistory of them at most. A hash that can't be read
// matches nothing: it keeps nobody from a new password. Its errors are those of
// [Pool.Hash].
func (p *Pool) Reused(ctx context.Context, by Caller, hashes []Hash, password Password) (bool, error) {
	for _, hash := range hashes[:min(len(hashes), MaxHistory)] {
		match, _, err := p.Verify(ctx, by, hash, password)
		switch {
		case errors.Is(err, ErrUnknownScheme), errors.Is(err, ErrCost):
		case match || err != nil:
			return match, err
		}
	}
	return false, nil
}

// VerifyUnknown does the work of a Verify at the pool's cost for an account
// that doesn't exist, so that the time of the answer doesn't tell. Its errors
// are those of [Pool.Hash].
func (p *Pool) VerifyUnknown(ctx context.Context, by Caller, password Password) error {
	if err := password.check(); err != nil {
		return err
	}
	m, err := fresh(p.cost)
	if err != nil {
		return err
	}
	if _, err := p.compute(ctx, by, m, password); err != nil {
		return fmt.Errorf("verify password: %w", err)
	}
	return nil
}

// compute queues one computation and waits for its digest.
func (p *Pool) compute(ctx context.Context, by Caller, m method, password Password) (string, error) {
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	j := &job{by: by, method: m, password: password, memory: m.memory(), done: make(chan struct{})}
	if err := p.enqueue(j); err != nil {
		return "", err
	}
	select {
	case <-j.done:
		return j.digest, j.err
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if j.queued {
		p.dequeue(j, false)
	}
	return "", context.Cause(ctx)
}

// enqueue queues a job, in the place of another if need be.
func (p *Pool) enqueue(j *job) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return ErrStopped
	}
	instead, ok := p.queue.admit(p.bound, j.by.path())
	if !ok {
		return p.overloaded()
	}
	if instead != nil {
		p.dequeue(instead, false)
		instead.err = p.overloaded()
		close(instead.done)
	}
	p.queue.push(j, j.by.path())
	j.queued = true
	p.arrived.Signal()
	return nil
}

// dequeue takes a job out of the queue.
func (p *Pool) dequeue(j *job, served bool) {
	p.queue.remove(j, j.by.path(), served)
	j.queued = false
	if p.short == j {
		p.short = nil
		p.arrived.Broadcast() // those behind it may go on
	}
}

// overloaded says how long the queue as it stands will take.
func (p *Pool) overloaded() *OverloadedError {
	wait := p.average * time.Duration(p.queue.size) / time.Duration(p.workers)
	return &OverloadedError{RetryAfter: max(time.Second, (wait + time.Second - 1).Truncate(time.Second))}
}

// take waits for a job and takes it; nil means that the pool has stopped.
func (p *Pool) take() *job {
	p.mu.Lock()
	defer p.mu.Unlock()
	var j *job
	for j = p.queue.next(p.canBegin); j == nil; j = p.queue.next(p.canBegin) {
		if p.stopped {
			return nil
		}
		p.arrived.Wait()
	}
	p.dequeue(j, true)
	j.begun = time.Now()
	p.busy++
	p.memory += j.memory
	return j
}

// canBegin says whether there is memory for a job. Those that need none pass
// one that waits for memory; those that need some don't, or it might wait for
// ever.
func (p *Pool) canBegin(j *job) bool {
	if j.memory == 0 {
		return true
	}
	if p.short == nil && p.memory+j.memory > maxMemory {
		p.short = j
	}
	return (p.short == nil || p.short == j) && p.memory+j.memory <= maxMemory
}

// finish hands the digest to the caller, or the error of a job that didn't begin.
func (p *Pool) finish(j *job) {
	if j.err == nil {
		j.digest = j.run.digest()
	}
	close(j.done)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy--
	if j.memory > 0 {
		p.memory -= j.memory
		p.arrived.Broadcast() // there may be enough now for several
	}
	took := time.Since(j.begun)
	if p.average == 0 {
		p.average = took
	}
	p.average += (took - p.average) / 8
}

// Run works until ctx ends, then refuses whoever is queued or comes later
// with [ErrStopped], finishes what is being hashed and returns nil. It owns no
// goroutine past its return. A pool runs once: a second Run returns ErrStopped.
func (p *Pool) Run(ctx context.Context) error {
	p.mu.Lock()
	if p.started {
		p.mu.Unlock()
		return ErrStopped
	}
	p.started = true
	p.mu.Unlock()

	processors.add(p.workers)
	defer processors.add(-p.workers)

	var workers sync.WaitGroup
	for range p.workers {
		workers.Go(func() { p.work(&workers, nil, 0) })
	}
	<-ctx.Done()

	p.mu.Lock()
	p.stopped = true
	p.queue.each(func(j *job) {
		j.queued, j.err = false, ErrStopped
		close(j.done)
	})
	p.queue, p.short = share{}, nil
	p.mu.Unlock()
	p.arrived.Broadcast()
	workers.Wait()
	return nil
}
