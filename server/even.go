package server

import (
	"context"
	"time"
)

// EvenTime is what answers take that must not tell, by their time either, whether anybody has an address; those that take
// longer take a multiple of it.
const EvenTime = 200 * time.Millisecond

// EvenOut waits until an answer to a request that began at a time has taken as long as others.
func EvenOut(ctx context.Context, begin time.Time) {
	timer := time.NewTimer(EvenTime - time.Since(begin)%EvenTime)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
