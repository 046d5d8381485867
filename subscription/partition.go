package subscription

import (
	"fmt"

	"usher.example/eventstore/cloudevent"
)

// MaxWorkers is into how many parts the users can be divided.
const MaxWorkers = 256

// Partition is the filter for the part of one of n workers, which are counted from 0: together they get every event, and
// none gets what another gets. All events about one user are in one part, in the order of their positions, whatever the
// streams; those about no user are in the part of worker 0. It panics unless 0 <= worker < n <= MaxWorkers.
//
// Each worker is a Subscription with a Name and a Checkpoint of its own. The parts of another n are others, so whoever
// changes n gives the workers other names, and has each begin at the lowest of the old checkpoints: some events then come a
// second time, which the version of the event's stream tells.
func Partition(worker, n int) []string {
	if n < 1 || n > MaxWorkers || worker < 0 || worker >= n {
		panic(fmt.Sprintf("subscription: no part %d of %d", worker, n))
	}
	var subjects []string
	for shard := worker; shard < MaxWorkers; shard += n {
		subjects = append(subjects, cloudevent.ShardSubjects(cloudevent.ShardOf(byte(shard))))
	}
	if worker == 0 {
		subjects = append(subjects, cloudevent.ShardSubjects(cloudevent.SystemShard))
	}
	return subjects
}
