package password

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
)

// gated is a computation that waits for its gate.
type gated struct{ gate <-chan struct{} }

func (g gated) advance() bool { <-g.gate; return true }
func (gated) digest() string  { return "" }

func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	p, _ := start(t, PoolConfig{Cost: MinCost, Workers: 4})
	began, results := make(chan string, 10), make(chan error, 10)
	gate := func() (<-chan struct{}, func()) {
		c := make(chan struct{})
		open := sync.OnceFunc(func() { close(c) })
		t.Cleanup(open) // before the pool's, which waits for what has begun
		return c, open
	}
	ask := func(name string, memory int, gate <-chan struct{}) {
		go func() {
			_, err := p.compute(context.Background(), Caller{}, fake{memory, func() (computation, error) {
				began <- name
				return gated{gate}, nil
			}}, "")
			results <- err
		}()
	}
	queued := func(n int) {
		t.Helper()
		await(t, fmt.Sprint(n, " queued"), func() bool { return p.Queued() == n })
	}
	want := func(names ...string) {
		t.Helper()
		var got []string
		await(t, fmt.Sprint(names, " begin"), func() bool {
			select {
			case name := <-began:
				got = append(got, name)
			default:
			}
			return len(got) == len(names)
		})
		slices.Sort(got)
		if !slices.Equal(got, names) {
			t.Errorf("%v began, want %v", got, names)
		}
	}
	first, openFirst := gate()
	others, openOthers := gate()
	ask("three quarters", maxMemory/4*3, first)
	want("three quarters")
	ask("a quarter", maxMemory/4, others)
	want("a quarter") // there is enough for both
	ask("half", maxMemory/2, others)
	queued(1)
	ask("a byte", 1, others)
	queued(2)
	// Only what needs no memory passes those that wait for some.
	if err := p.VerifyUnknown(context.Background(), Caller{}, "correct horse"); err != nil {
		t.Errorf("VerifyUnknown = %v, want nil", err)
	}
	if p.Queued() != 2 || len(began) != 0 {
		t.Errorf("%d are queued, and %d began; want 2, 0", p.Queued(), len(began))
	}
	openFirst()
	want("a byte", "half") // both, on workers that were idle too
	ask("all", maxMemory, others)
	queued(1)
	ask("another byte", 1, others)
	queued(2)
	openOthers()
	want("all", "another byte")
	for range 6 {
		if err := <-results; err != nil {
			t.Errorf("compute = %v, want nil", err)
		}
	}
	await(t, "idle", func() bool { return p.Busy() == 0 })
	if p.memory != 0 {
		t.Errorf("%d bytes are still counted", p.memory)
	}
}

func TestComputationThatCannotBegin(t *testing.T) {
	t.Parallel()
	p, _ := start(t, PoolConfig{Cost: MinCost, Workers: 1})
	none := errors.New("no memory")
	for range 2 {
		if _, err := p.compute(context.Background(), Caller{}, fake{maxMemory, func() (computation, error) { return nil, none }}, ""); !errors.Is(err, none) {
			t.Errorf("compute = %v, want %v", err, none)
		}
	}
	if err := p.VerifyUnknown(context.Background(), Caller{}, "correct horse"); err != nil {
		t.Errorf("VerifyUnknown after it = %v, want nil", err)
	}
}
