package password

import (
	"time"

	"golang.org/x/sys/unix"
)

// lowerPriority gives the calling thread the lowest priority there is (nice
// 19). On Linux niceness belongs to a thread, and raising it needs no
// privilege. A sandbox that forbids the call anyway only loses the effect.
func lowerPriority() {
	_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), 19)
}

// onMainThread reports whether the calling thread is the one that the process
// began with, whose priority is shown as that of the process.
func onMainThread() bool { return unix.Gettid() == unix.Getpid() }

// threadTime is the CPU time of the calling thread, or 0 if unknown.
func threadTime() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
