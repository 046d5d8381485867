package main

import (
	"context"
	"errors"
	"math"
	"runtime/debug"
	"testing"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// The soft limit is below what the cgroup may have, modest while that is enough, and never against whoever chose one.
func TestBoundMemory(t *testing.T) { // not parallel: the limit is the process's
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	for name, c := range map[string]struct {
		cgroup  memlimit.Provider
		setting string // GOMEMLIMIT
		want    int64
	}{
		"no limit":               {func() (uint64, error) { return 0, memlimit.ErrNoLimit }, "", modestMemory},
		"no cgroup":              {func() (uint64, error) { return 0, errors.New("no such file") }, "", modestMemory},
		"512 MiB":                {memlimit.Limit(512 << 20), "", modestMemory},
		"small":                  {memlimit.Limit(100 << 20), "", 75 << 20},
		"chosen":                 {memlimit.Limit(100 << 20), "1GiB", math.MaxInt64},
		"chosen to be unlimited": {memlimit.Limit(100 << 20), "off", math.MaxInt64},
	} {
		t.Run(name, func(t *testing.T) {
			if c.setting != "" {
				t.Setenv("GOMEMLIMIT", c.setting) // which the runtime has read, or not, when the process began
			}
			debug.SetMemoryLimit(math.MaxInt64)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			boundMemory(ctx, c.cgroup)
			if got := debug.SetMemoryLimit(-1); got != c.want {
				t.Errorf("the soft limit is %d, want %d", got, c.want)
			}
		})
	}
	for _, c := range []struct {
		hard, live uint64
		want       int64
	}{
		{math.MaxInt64, 10 << 20, modestMemory}, {math.MaxInt64, 300 << 20, 600 << 20}, {384 << 20, 300 << 20, 384 << 20},
		{64 << 20, 10 << 20, 64 << 20}, {math.MaxUint64, math.MaxInt64, math.MaxInt64},
	} {
		if got := softLimit(c.hard, c.live); got != c.want {
			t.Errorf("softLimit(%d, %d) = %d, want %d", c.hard, c.live, got, c.want)
		}
	}
}
