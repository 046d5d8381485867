package main

import (
	"context"
	"math"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

const (
	// shareOfLimit of what the process's cgroup may have is for Go: the rest is the program itself, SQLite and the kernel's buffers.
	shareOfLimit = 0.75
	// modestMemory is what a process gets by with, whatever it does: half of what deploy/kubernetes gives the smallest. Up to there the
	// garbage collector may take its time, see gcPercent.
	modestMemory = 128 << 20
	lookAtMemory = time.Second
)

// boundMemory sets soft limits to the memory of the process until ctx ends: from what its cgroup may have, and beyond what is modest
// to twice what is in use. GOMEMLIMIT, where whoever started the process has set it, is left alone.
func boundMemory(ctx context.Context, cgroup memlimit.Provider) {
	if memoryChosen() {
		return
	}
	hard, err := memlimit.ApplyRatio(cgroup, shareOfLimit)()
	if err != nil { // there is no limit, or no cgroup
		hard = math.MaxInt64
	}
	debug.SetMemoryLimit(softLimit(hard, 0))
	if hard <= modestMemory {
		return
	}
	go func() {
		live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		tick := time.NewTicker(lookAtMemory)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				metrics.Read(live)
				debug.SetMemoryLimit(softLimit(hard, live[0].Value.Uint64()))
			case <-ctx.Done():
				return
			}
		}
	}()
}

// softLimit is that of a process with so much in use.
func softLimit(hard, live uint64) int64 {
	return int64(min(hard, max(modestMemory, 2*live), math.MaxInt64))
}
