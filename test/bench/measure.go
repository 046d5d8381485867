package main

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"time"
)

// side is one of the things that are measured against each other.
type side struct {
	name string
	// prepare is called before each round and not measured. It may be nil.
	prepare func(ctx context.Context) error
	// run works for about the given time. Work that has begun by then is finished and counted.
	run func(ctx context.Context, length time.Duration) (tally, error)
	// counts are the processes whose CPU time is the side's; every process of the benchmark when empty.
	counts []*process
}

// tally is what a side got done.
type tally struct {
	ops   int
	times map[string][]time.Duration // how long something took, by what it is
	bytes map[string]int64           // how large something is, by what it is
}

// sample is one round of one side.
type sample struct {
	tally
	wall, cpu time.Duration
	others    float64 // the share of the machine's CPU that strangers used
}

// rounds has the sides take turns, in the opposite order every other time, so that whatever drifts meets them all
// alike. Each side has a short turn first that is not counted: connections open, statements are prepared, pages are read.
func rounds(ctx context.Context, a *accounts, sides []side, n int, length time.Duration, tell func(side string, round int)) (map[string][]sample, error) {
	samples := make(map[string][]sample, len(sides))
	for round := range n + 1 {
		for i := range sides {
			s := &sides[i]
			if round%2 == 0 {
				s = &sides[len(sides)-1-i]
			}
			tell(s.name, round)
			l := length
			if round == 0 {
				l = min(length, 500*time.Millisecond)
			}
			one, err := measure(ctx, a, s, l)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
			if round > 0 {
				samples[s.name] = append(samples[s.name], one)
			}
		}
	}
	return samples, nil
}

func measure(ctx context.Context, a *accounts, s *side, length time.Duration) (sample, error) {
	if s.prepare != nil {
		if err := s.prepare(ctx); err != nil {
			return sample{}, fmt.Errorf("prepare: %w", err)
		}
	}
	runtime.GC() // nobody pays for another's garbage
	start, err := a.read()
	if err != nil {
		return sample{}, err
	}
	began := time.Now()
	done, err := s.run(ctx, length)
	wall := time.Since(began)
	if err != nil {
		return sample{}, err
	}
	if done.ops == 0 {
		return sample{}, fmt.Errorf("nothing was done in %v", wall)
	}
	end, err := a.read()
	if err != nil {
		return sample{}, err
	}
	one := sample{tally: done, wall: wall}
	one.cpu, one.others = end.since(start, s.counts)
	return one, nil
}

// hammer calls do over and over from a number of callers. The first error ends it.
func hammer(ctx context.Context, callers int, length time.Duration, do func(ctx context.Context, caller int) error) (tally, error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	end := time.Now().Add(length)
	done := make([]int, callers)
	var group sync.WaitGroup
	for caller := range callers {
		group.Go(func() {
			for time.Now().Before(end) && ctx.Err() == nil {
				if err := do(ctx, caller); err != nil {
					stop(err)
					return
				}
				done[caller]++
			}
		})
	}
	group.Wait()
	var t tally
	for _, n := range done {
		t.ops += n
	}
	return t, context.Cause(ctx)
}

// quantity is something about a sample that can be compared.
type quantity struct {
	name  string
	of    func(sample) float64
	print func(float64) string
}

// rate is operations a second.
var rate = quantity{"rate", func(s sample) float64 { return float64(s.ops) / s.wall.Seconds() }, printRate}

// cpu is microseconds of CPU an operation.
var cpu = quantity{"CPU", func(s sample) float64 { return float64(s.cpu.Microseconds()) / float64(s.ops) }, printCount}

// quantile is a quantile, in milliseconds, of how long something took.
func quantile(name, what string, q float64) quantity {
	return quantity{name, func(s sample) float64 {
		return float64(quantileOf(s.times[what], q)) / float64(time.Millisecond)
	}, printMillis}
}

// size is how large something is, in mebibytes.
func size(what string) quantity {
	return quantity{what, func(s sample) float64 { return float64(s.bytes[what]) / (1 << 20) }, printMebibytes}
}

// quantileOf is the smallest of the values that at least the share q of them does not exceed.
func quantileOf(values []time.Duration, q float64) time.Duration {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}

// spread is the median of some values, and their range.
type spread struct{ median, low, high float64 }

func spreadOf(values []float64) spread {
	sorted := slices.SortedFunc(slices.Values(values), cmp.Compare[float64])
	n := len(sorted)
	if n == 0 {
		return spread{}
	}
	return spread{(sorted[(n-1)/2] + sorted[n/2]) / 2, sorted[0], sorted[n-1]}
}

// values is a quantity of each sample.
func (q quantity) values(samples []sample) []float64 {
	list := make([]float64, len(samples))
	for i, s := range samples {
		list[i] = q.of(s)
	}
	return list
}

// ratios is the quantity of one side over that of the other, in each round.
func (q quantity) ratios(subject, yardstick []sample) []float64 {
	list := make([]float64, min(len(subject), len(yardstick)))
	for i := range list {
		list[i] = q.of(subject[i]) / q.of(yardstick[i])
	}
	return list
}
