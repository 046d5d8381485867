package password

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// niceness of the thread that a worker runs on, seen from inside a job.
func niceness(t *testing.T, p *Pool) int {
	t.Helper()
	var raw int
	var err error
	if _, failed := p.compute(context.Background(), Caller{}, fake{begun: func() (computation, error) {
		raw, err = unix.Getpriority(unix.PRIO_PROCESS, 0)
		return newBcryptRun("", [saltBytes]byte{}, MinCost), nil
	}}, ""); failed != nil {
		t.Fatal(failed)
	}
	if err != nil {
		t.Fatal(err)
	}
	return 20 - raw // the system call answers 1 to 40
}

// loweredThreads counts the threads of this process at the lowest priority.
func loweredThreads(t *testing.T) int {
	t.Helper()
	stats, err := filepath.Glob("/proc/self/task/*/stat")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, path := range stats {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // it ended meanwhile
		}
		// The name of the thread, in parentheses, may hold spaces; nice is the 17th field after it.
		fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
		if fields[16] == "19" {
			n++
		}
	}
	return n
}

func TestWorkersLeaveTheMainThreadAlone(t *testing.T) {
	t.Parallel()
	p, _ := start(t, PoolConfig{Cost: MinCost, Workers: 4})
	for range 40 {
		main := false
		if _, err := p.compute(context.Background(), Caller{}, fake{begun: func() (computation, error) {
			main = onMainThread()
			return newBcryptRun("", [saltBytes]byte{}, MinCost), nil
		}}, ""); err != nil || main {
			t.Fatalf("job on the main thread: %v, %v", main, err)
		}
	}
}

func TestWorkersGiveWay(t *testing.T) {
	// Not parallel: it looks at the threads of the process.
	p, stop := start(t, PoolConfig{Cost: MinCost, Workers: 2})
	if got := niceness(t, p); got != 19 {
		t.Errorf("niceness of a worker = %d, want 19", got)
	}
	await(t, "two threads of low priority", func() bool { return loweredThreads(t) == 2 })
	stop()
	await(t, "no thread of low priority left", func() bool { return loweredThreads(t) == 0 })
}

// untilRaised goes on until its thread has another priority than the lowest.
type untilRaised struct {
	deadline time.Time
	raw      int // as the system call answers: 1 is the lowest, 20 the ordinary one
	err      error
}

func (u *untilRaised) advance() bool {
	u.raw, u.err = unix.Getpriority(unix.PRIO_PROCESS, 0)
	return u.err != nil || u.raw > 1 || time.Now().After(u.deadline)
}

func (*untilRaised) digest() string { return "" }

func TestStarvedWorkerGetsOrdinaryPriority(t *testing.T) {
	t.Parallel()
	p, err := NewPool(PoolConfig{Cost: 11, Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	p.cpuTime = func() time.Duration { return time.Nanosecond } // a clock that stands: no CPU at all
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	before := niceness(t, p)
	if before != 19 {
		t.Errorf("niceness before = %d, want 19", before)
	}
	h, err := p.Hash(ctx, Caller{}, "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	raised := &untilRaised{deadline: time.Now().Add(20 * time.Second)}
	if _, err := p.compute(ctx, Caller{}, fake{begun: func() (computation, error) { return raised, nil }}, ""); err != nil {
		t.Fatal(err)
	}
	if raised.err != nil || raised.raw <= 1 {
		t.Errorf("niceness after = %d, %v, want an ordinary one", 20-raised.raw, raised.err)
	}
	if !verify(t, h, "correct horse") {
		t.Error("the hash that changed threads doesn't verify")
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
}
