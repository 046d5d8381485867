package test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// load registers users from many callers until it is told to stop.
type load struct {
	c        *client
	name     string
	stopped  atomic.Bool
	answered atomic.Int64
	callers  sync.WaitGroup

	mu            sync.Mutex
	registrations []registration
	refused       map[int]int // answers that were not 201, by status
	broken        int         // requests that were not answered
}

// startLoad starts the callers. The name keeps their addresses apart from those of other loads. A caller whose request is
// not answered stops.
func startLoad(c *client, name string, callers int) *load {
	l := &load{c: c, name: name, refused: map[int]int{}}
	for caller := range callers {
		l.callers.Go(func() {
			// The pauses bound how much a fast machine does beyond what is asserted.
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for i := 0; !l.stopped.Load() && l.one(fmt.Sprintf("%s-%d-%d@example.org", name, caller, i)); i++ {
				<-tick.C
			}
		})
	}
	return l
}

// one registers a user and says whether that was answered.
func (l *load) one(email string) bool {
	r, err := l.c.register(email)
	l.mu.Lock()
	defer l.mu.Unlock()
	var refused errNot201
	switch {
	case err == nil:
		l.registrations = append(l.registrations, r)
		l.answered.Add(1)
	case errors.As(err, &refused):
		l.refused[refused.status]++
	default:
		l.broken++
		return false
	}
	return true
}

// await waits until some more registrations were answered.
func (l *load) await(t *testing.T, more int64) {
	t.Helper()
	goal := l.answered.Load() + more
	eventually(t, "the load goes on", func() error {
		if now := l.answered.Load(); now < goal {
			l.mu.Lock()
			defer l.mu.Unlock()
			return fmt.Errorf("%d of %d registrations were answered; not 201: %v, not answered: %d", now, goal, l.refused, l.broken)
		}
		return nil
	})
}

// end stops the callers and answers with the registrations that were answered.
func (l *load) end() []registration {
	l.stopped.Store(true)
	l.callers.Wait()
	return l.registrations
}

func TestDevKilled(t *testing.T) {
	t.Parallel()
	d := newDeployment(t, "RATE_LIMITS=off") // one client stands for many
	var registrations []registration
	rounds := 3 * *dose
	for round := range rounds {
		p, c := d.startDev()
		if round == 0 {
			d.takeAdmin(p)
		}
		load := startLoad(c, fmt.Sprintf("round%d", round), 16)
		load.await(t, 20+rand.Int64N(100))
		p.kill()
		registrations = append(registrations, load.end()...)
		if len(load.refused) > 0 {
			t.Errorf("round %d: answers that were not 201: %v", round, load.refused)
		}
		wantRegistered(t, d.history(), registrations)
	}
	p, c := d.startDev()
	log := d.history()
	wantRegistered(t, log, registrations)
	wantOnce(t, log)
	d.wantPublished(log)
	d.wantReadModel(c, log)
	t.Logf("%d registrations were answered in %d rounds, %d are in the log of %d events", len(registrations), rounds, registeredUsers(log)-1, len(log))
	p.stop(t)
}

func TestTerminatedUnderLoad(t *testing.T) {
	t.Parallel()
	d, _ := newRunningServer(t)
	p, c := d.startServe("--with", "publisher,projections")
	load := startLoad(c, "load", 16)
	load.await(t, 100)
	p.signal(t, terminate)
	p.wantStopped(t)
	registrations := load.end()
	for status := range load.refused {
		if status != http.StatusServiceUnavailable {
			t.Errorf("answers that were not 201: %v", load.refused)
		}
	}
	log := d.history()
	wantRegistered(t, log, registrations)
	wantOnce(t, log)

	p, c = d.startServe("--with", "publisher,projections")
	d.wantPublished(log)
	d.wantReadModel(c, d.history())
	p.stop(t)
}
