package projections_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"usher.example/eventstore"
	"usher.example/identity"
	"usher.example/internal/devstack"
	"usher.example/projections"
	"usher.example/publisher"
	"usher.example/subscription"
)

// BenchmarkLatency appends 200 registrations a second through the real relay and measures how long after its append
// was answered an event is with a subscriber, and in the read model of users. An operation is one event.
func BenchmarkLatency(b *testing.B) {
	for name, open := range map[string]func(testing.TB) (database, string){"postgres": openPostgres, "sqlite": openSQLite} {
		b.Run(name, func(b *testing.B) {
			db, _ := open(b)
			benchLatency(b, newStack(b, db))
		})
	}
}

func benchLatency(b *testing.B, s *stack) {
	if err := s.js.DeleteStream(b.Context(), subscription.Stream); err != nil {
		b.Fatal(err)
	}
	conn, err := s.broker.Connect(nats.ReconnectBufSize(-1))
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	relay, err := publisher.New(publisher.Config{Log: s.log, DB: s.db, Conn: conn, Source: "urn:usher:bench"})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() { _ = relay.Run(ctx) })
	running.Go(func() { _ = publisher.Announce(ctx, s.log, conn) })

	r := s.runner()
	r.LeaseTTL, r.Poll = 0, 0
	start(b, r)
	var mu sync.Mutex
	handled := map[int64]time.Time{}
	subscriber := subscription.Subscription{
		JetStream: s.js, Name: "bench", Checkpoint: func(context.Context) (int64, error) {
			mu.Lock()
			defer mu.Unlock()
			return int64(len(handled)), nil
		},
		Handle: func(_ context.Context, events []eventstore.Event) error {
			now := time.Now()
			mu.Lock()
			defer mu.Unlock()
			for _, e := range events {
				handled[e.Position] = now
			}
			return nil
		},
		Logger: s.runner().Logger,
	}
	running.Go(func() { _ = subscriber.Run(ctx) })
	s.register(b)
	s.await(b)
	devstack.Eventually(b, "the subscriber follows", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(handled) == 1
	})
	devstack.Eventually(b, "the projection follows", func() bool {
		list, err := s.checkpoints.List(b.Context())
		return err == nil && list[0].State == projections.StateRunning
	})

	b.ResetTimer()
	answered := make([]time.Time, b.N)
	positions := make([]int64, b.N)
	shown := make([]time.Time, b.N)
	pace := time.NewTicker(5 * time.Millisecond)
	defer pace.Stop()
	var waiting sync.WaitGroup
	for i := range b.N {
		<-pace.C
		waiting.Go(func() {
			id := uuid.Must(uuid.NewV7())
			var p identity.Registered
			p.Personal.Email = "someone@example.org"
			result, err := s.log.Append(ctx, eventstore.Append{Stream: eventstore.UserStream(id), CreateKey: true,
				Events: []eventstore.NewEvent{identity.NewEvent(p)}})
			if err != nil {
				b.Error(err)
				return
			}
			answered[i], positions[i] = time.Now(), result.Position
			if err := s.checkpoints.Await(ctx, projections.UsersName, result.Position); err != nil {
				b.Error(err)
			}
			shown[i] = time.Now()
		})
	}
	waiting.Wait()
	b.StopTimer()
	devstack.Eventually(b, "the subscriber has all", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(handled) == b.N+1
	})
	var toSubscriber, toReadModel []time.Duration
	for i := range b.N {
		toSubscriber = append(toSubscriber, max(handled[positions[i]].Sub(answered[i]), 0))
		toReadModel = append(toReadModel, max(shown[i].Sub(answered[i]), 0))
	}
	for name, ds := range map[string][]time.Duration{"subscriber": toSubscriber, "read-model": toReadModel} {
		slices.Sort(ds)
		b.ReportMetric(float64(ds[len(ds)/2].Microseconds())/1000, name+"-p50-ms")
		b.ReportMetric(float64(ds[len(ds)*99/100].Microseconds())/1000, name+"-p99-ms")
	}
	b.ReportMetric(0, "ns/op")
}
