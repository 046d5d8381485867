package subscription_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/eventstore"
	"usher.example/eventstore/cloudevent"
	"usher.example/identity"
	"usher.example/subscription"
)

// Whatever the number of workers, the parts together are everything and no two have anything in common.
func TestPartsAreDisjoint(t *testing.T) {
	t.Parallel()
	for n := 1; n <= subscription.MaxWorkers; n++ {
		taken := map[string]int{}
		for worker := range n {
			part := subscription.Partition(worker, n)
			if len(part) < subscription.MaxWorkers/n {
				t.Errorf("worker %d of %d has %d shards", worker, n, len(part))
			}
			for _, subject := range part {
				taken[subject]++
			}
		}
		if len(taken) != subscription.MaxWorkers+1 || taken["usher.v1.system.>"] != 1 || taken["usher.v1.00.>"] != 1 || taken["usher.v1.ff.>"] != 1 {
			t.Fatalf("%d workers have %d shards together, want %d", n, len(taken), subscription.MaxWorkers+1)
		}
	}
	for _, wrong := range [][2]int{{0, 0}, {1, 1}, {-1, 2}, {0, subscription.MaxWorkers + 1}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Partition(%d, %d) does not panic", wrong[0], wrong[1])
				}
			}()
			subscription.Partition(wrong[0], wrong[1])
		}()
	}
}

// Three workers divide the events, each user's in order; then five do, from the lowest checkpoint on.
func TestPartitionedSubscription(t *testing.T) {
	t.Parallel()
	s := setup(t)
	users := newUsers(40)
	s.append(t, 200, users...)
	s.announce(t)
	s.publish(t, cloudevent.Options{})

	work := func(n int, from int64) []*ledger {
		ledgers := make([]*ledger, n)
		for worker := range n {
			ledgers[worker] = newLedger()
			ledgers[worker].checkpoint = from
			sub := s.on(ledgers[worker])
			sub.Name, sub.Subjects = fmt.Sprintf("worker-%d-of-%d", worker, n), subscription.Partition(worker, n)
			stop := start(t, sub)
			ledgers[worker].await(t, s.lastOf(t, sub.Subjects))
			if err := stop(); err != nil {
				t.Fatal(err)
			}
		}
		return ledgers
	}
	wantDivided := func(ledgers []*ledger, versions int, from int64) {
		t.Helper()
		var positions []int64
		for worker, l := range ledgers {
			for _, e := range l.events {
				positions = append(positions, e.Position)
				if part := subscription.Partition(worker, len(ledgers)); !slices.Contains(part, subscription.Shard(e.Stream.Subject)) {
					t.Errorf("worker %d of %d got %s of %s", worker, len(ledgers), e.Type, e.Stream.Subject)
				}
			}
		}
		slices.Sort(positions)
		if int64(len(positions)) != s.head(t)-from || int64(len(slices.Compact(positions))) != s.head(t)-from {
			t.Errorf("%d workers got %d events, want each of the %d after %d once", len(ledgers), len(positions), s.head(t)-from, from)
		}
		for _, user := range users {
			all := 0
			for _, l := range ledgers {
				got := l.versionsOf(user)
				if all += len(got); !slices.IsSorted(got) || len(got) != 0 && len(got) != versions {
					t.Errorf("a worker got the versions %v of %s, want %d or none", got, user, versions)
				}
			}
			if all != versions {
				t.Errorf("%d events of %s, want %d", all, user, versions)
			}
		}
	}
	three := work(3, 0)
	wantDivided(three, 5, 0)

	lowest := three[0].checkpoint
	for _, l := range three {
		lowest = min(lowest, l.checkpoint)
	}
	s.append(t, 80, users...)
	s.publish(t, cloudevent.Options{})
	var handled []int64 // after the lowest checkpoint, before there were five
	for _, l := range three {
		for _, e := range l.events {
			if e.Position > lowest {
				handled = append(handled, e.Position)
			}
		}
	}
	five := work(5, lowest)
	got := 0
	for _, l := range five {
		got += len(l.events)
	}
	if want := int(s.head(t) - lowest); got != want {
		t.Errorf("five workers got %d events, want the %d after the lowest checkpoint, %d of them again", got, want, len(handled))
	}
	for _, user := range users {
		var versions []int
		for _, l := range slices.Concat(three, five) {
			versions = append(versions, l.versionsOf(user)...)
		}
		slices.Sort(versions)
		if !ascending(slices.Compact(versions), 7) {
			t.Errorf("versions %v of %s, want 1 to 7", versions, user)
		}
	}
}

// announce appends an event that is about no user.
func (s *stack) announce(tb testing.TB) {
	tb.Helper()
	if _, err := s.log.Append(tb.Context(), eventstore.Append{
		Stream: eventstore.SystemStream("keys"), Expected: eventstore.AnyVersion,
		Events: []eventstore.NewEvent{identity.NewEvent(identity.KeyRotated{KeyID: "key-1", Algorithm: "ES256", SignsFrom: time.Now().UTC()})},
	}); err != nil {
		tb.Fatal(err)
	}
}

// lastOf is the last position of the stream under some filters.
func (s *stack) lastOf(tb testing.TB, subjects []string) (last int64) {
	tb.Helper()
	for _, subject := range subjects {
		m, err := s.stream(tb).GetLastMsgForSubject(tb.Context(), subject)
		if err == nil {
			last = max(last, int64(m.Sequence))
		}
	}
	return last
}

// A consumer that the relay paused, because its filter names a user's subjects, goes on as soon as its service has another.
func TestPausedForItsFilter(t *testing.T) {
	t.Parallel()
	s, l := setup(t), newLedger()
	users := newUsers(2)
	s.append(t, 20, users...)
	s.publish(t, cloudevent.Options{})
	until := time.Now().Add(time.Hour)
	sub := s.on(l)
	if _, err := s.stream(t).CreateConsumer(t.Context(), jetstream.ConsumerConfig{
		Durable: sub.Name, AckPolicy: jetstream.AckAllPolicy, MaxDeliver: -1, FilterSubject: "usher.v1." + uuid.NewString() + ".>",
		PauseUntil: &until, Metadata: map[string]string{cloudevent.MetadataPerUser: "true", "owner": "billing"},
	}); err != nil {
		t.Fatal(err)
	}
	sub.Subjects = []string{subscription.Kind(eventstore.KindUser)}
	start(t, sub)
	l.await(t, 20)
	l.exact(t, s)
	consumer, err := s.stream(t).Consumer(t.Context(), sub.Name)
	if err != nil {
		t.Fatal(err)
	}
	info := consumer.CachedInfo()
	if _, marked := info.Config.Metadata[cloudevent.MetadataPerUser]; marked || info.Paused || info.Config.Metadata["owner"] != "billing" {
		t.Errorf("the consumer is paused: %v, with metadata %v", info.Paused, info.Config.Metadata)
	}
}
