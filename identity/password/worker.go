package password

import (
	"runtime"
	"sync"
	"time"
)

// Why the workers are built like this. A goroutine that hashes holds a
// processor (a P of the Go scheduler) for up to ten milliseconds before it is
// preempted, and nobody polls the network meanwhile: with as many hashes as
// processors every other request waits. So each worker has a thread and a
// processor beside the usual number, and the kernel decides who computes; a
// thread at the lowest priority gives way to request threads at once.
//
// The lowest priority has a price. The garbage collector stops the world by
// asking every running goroutine, and a thread that gets no CPU can't answer:
// when other software keeps all processors busy, a starved hash holds up the
// collector and with it every request, for half a second in measurements. A
// worker that sees itself starved therefore hands its computation to a fresh
// thread of ordinary priority, for a while. (Fresh, because an unprivileged
// thread can't raise its own priority.)
//
// That is for bcrypt, which every login computes. Imported hashes of scrypt and
// PBKDF2 are computed in one piece, by libraries that can't stop: such a worker
// doesn't see that it is starved, and keeps its priority to the end. argon2
// computes in goroutines beside the worker, at ordinary priority. What they may
// cost bounds both, and each is replaced by bcrypt at its user's first login.

const (
	// window is the time over which a worker judges its share of CPU.
	window = 50 * time.Millisecond
	// starved is the share below which it asks for ordinary priority.
	starved = 0.25
	// Ordinary priority lasts minRespite at first, and twice as long each time
	// that the next try at the lowest ends in starvation again.
	minRespite = 5 * time.Second
	maxRespite = 2 * time.Minute
)

// work computes jobs until the pool stops, beginning with j if there is one.
// Its thread has ordinary priority for the respite, which may be none, and the
// lowest after that.
func (p *Pool) work(workers *sync.WaitGroup, j *job, respite time.Duration) {
	// Never unlocked: the thread, with its priority, ends with the goroutine.
	runtime.LockOSThread()
	if onMainThread() {
		// It doesn't end with its goroutine. Hold it until another is found.
		found := make(chan struct{})
		workers.Go(func() {
			runtime.LockOSThread()
			close(found)
			p.work(workers, j, respite)
		})
		<-found
		runtime.UnlockOSThread()
		return
	}
	began, lowered := time.Now(), false
	for {
		if !lowered && time.Since(began) >= respite {
			lowerPriority()
			began, lowered = time.Now(), true
		}
		if j == nil {
			if j = p.take(); j == nil {
				return
			}
			if j.run, j.err = j.method.begin(j.password); j.err != nil {
				p.finish(j)
				j = nil
				continue
			}
			if p.observe != nil {
				p.observe(j.run)
			}
		}
		if !p.advance(j.run, lowered) {
			next := minRespite
			if respite > 0 && time.Since(began) < maxRespite {
				next = min(2*respite, maxRespite)
			}
			workers.Go(func() { p.work(workers, j, next) })
			return
		}
		p.finish(j)
		j = nil
	}
}

// advance computes to the end and reports true, or false if the thread has the
// lowest priority and turns out to be starved of CPU.
func (p *Pool) advance(run computation, lowered bool) bool {
	began, used := time.Now(), p.cpuTime()
	for !run.advance() {
		wall := time.Since(began)
		if !lowered || wall < window {
			continue
		}
		now := p.cpuTime()
		if now > 0 && float64(now-used) < starved*float64(wall) {
			return false
		}
		began, used = began.Add(wall), now
	}
	return true
}

// processors keeps GOMAXPROCS at what it would be plus one for every worker of
// every running pool.
var processors processorCount

type processorCount struct {
	mu    sync.Mutex
	added int
}

// own is the number of processors without those of the workers.
func (c *processorCount) own() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return runtime.GOMAXPROCS(0) - c.added
}

// add changes the number by n. It is relative, so that pools that come and go
// in any order leave what they found.
func (c *processorCount) add(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.added += n
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + n)
}
