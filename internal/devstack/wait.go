package devstack

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"time"
)

// patience is how long a test waits for what takes a moment. It bounds what never comes and says nothing of how long
// anything should take: a machine that does other work as well is slow for seconds on end.
const patience = time.Minute

// Eventually waits until a condition holds, and fails the test if it does not within a minute.
func Eventually(tb TB, what string, holds func() bool) {
	tb.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for begin := time.Now(); !holds(); <-tick.C {
		if time.Since(begin) > patience {
			tb.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// Background runs a worker until the test ends, or stop is called, whichever is first. The worker has to end by itself soon
// after its context did, and what it fails with fails the test; being cancelled is no failure.
func Background(tb TB, worker func(context.Context) error) (stop func()) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
	done := make(chan error, 1)
	go func() { done <- worker(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil && !errors.Is(err, context.Canceled) {
				tb.Errorf("a worker failed: %v", err)
			}
		case <-time.After(patience):
			tb.Errorf("a worker does not end within %v", patience)
		}
	})
	tb.Cleanup(stop)
	return stop
}

// Output is a buffer that goroutines write to and tests read meanwhile: what is logged, or what a process prints.
type Output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// Contains reports whether a text was written so far.
func (o *Output) Contains(text string) bool { return strings.Contains(o.String(), text) }

// Count tells how often a text was written so far.
func (o *Output) Count(text string) int { return strings.Count(o.String(), text) }
