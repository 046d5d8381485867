//go:build !linux

package password

import "time"

// lowerPriority does nothing: elsewhere a thread has no priority of its own
// that could be set without cgo.
func lowerPriority() {}

// onMainThread doesn't matter here, because no thread is changed.
func onMainThread() bool { return false }

// threadTime is not known here.
func threadTime() time.Duration { return 0 }
