package server

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"usher.example/identity"
)

func TestLimits(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	l := newLimits(func() time.Time { return now })
	three, one := &Quota{3, 10 * time.Second}, &Quota{1, time.Minute}
	spend := func(of *Quota, network string) string {
		err := l.spend(of, network)
		var e *identity.Error
		if errors.As(err, &e) && e.Code == CodeRateLimited {
			return e.RetryAfter.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		return "ok"
	}
	for i, step := range []struct {
		after   time.Duration
		of      *Quota
		network string
		want    string
	}{
		{0, three, "a", "ok"},
		{0, three, "a", "ok"},
		{0, three, "a", "ok"},
		{0, three, "a", "10s"},
		{0, three, "b", "ok"}, // each network for itself
		{0, one, "a", "ok"},   // and each quota
		{0, one, "a", "1m0s"},
		{4 * time.Second, three, "a", "6s"}, // what is refused costs nothing
		{6 * time.Second, three, "a", "ok"},
		{0, three, "a", "10s"},
		{25 * time.Second, three, "a", "ok"},
		{0, three, "a", "ok"},
		{0, three, "a", "5s"},
		{time.Hour, three, "a", "ok"}, // no more comes back than there was
		{0, three, "a", "ok"},
		{0, three, "a", "ok"},
		{0, three, "a", "10s"},
	} {
		now = now.Add(step.after)
		if got := spend(step.of, step.network); got != step.want {
			t.Errorf("step %d: %s, want %s", i, got, step.want)
		}
	}
	// The memory is bounded: whoever has not asked for longest is forgotten.
	for i := range maxSpenders {
		spend(one, fmt.Sprint(i))
	}
	if got := l.spent.Len(); got != maxSpenders {
		t.Errorf("%d networks are remembered, want %d", got, maxSpenders)
	}
}

func TestLimitsAtOnce(t *testing.T) {
	t.Parallel()
	now := time.Now()
	l := newLimits(func() time.Time { return now })
	of := &Quota{100, time.Second}
	var passed atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				if l.spend(of, "a") == nil {
					passed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if passed.Load() != 100 {
		t.Errorf("%d passed, want 100", passed.Load())
	}
}
