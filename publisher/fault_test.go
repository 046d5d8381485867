package publisher

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/eventstore"
	"usher.example/internal/devstack"
)

func streamInfo(t testing.TB, nc *nats.Conn) *jetstream.StreamInfo {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	s, err := js.Stream(t.Context(), DefaultStream)
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo()
}

func lastSequence(t testing.TB, nc *nats.Conn) int64 {
	t.Helper()
	return int64(streamInfo(t, nc).State.LastSeq)
}

// Of three relays one works. When it goes, whether in good order or not, another takes over.
func TestStandbys(t *testing.T) {
	t.Parallel()
	s, server := newSite(t), devstack.NATS(t)
	var relays []*Relay
	var stops []func()
	for range 3 {
		r := s.relay(t, connection(t, server))
		relays = append(relays, r)
		stops = append(stops, devstack.Background(t, r.Run))
	}
	halt := s.keepAppending(t, 4)
	for left := len(relays); left > 0; left-- {
		leader := -1
		devstack.Eventually(t, "one relay runs", func() bool {
			for i, r := range relays {
				if r.Status().State == StateRunning && r.published.Load() == r.head.Load() {
					leader = i
				}
			}
			return leader >= 0
		})
		for i, r := range relays {
			if i != leader && r.Status().State == StateRunning {
				t.Errorf("relay %d runs beside relay %d", i, leader)
			}
		}
		if left == 1 {
			halt()
			s.awaitPublished(t, relays[leader])
		}
		stops[leader]()
	}
	s.checkStream(t, connection(t, server))
}

// Three relays that know of no lease. The expected sequence lets one message through for each position.
func TestThreeRelaysAtOnce(t *testing.T) {
	t.Parallel()
	onBothStores(t, func(t *testing.T, s *site) {
		server := devstack.NATS(t)
		if err := s.relay(t, connection(t, server)).Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var relays []*Relay
		for range 3 {
			r := s.relay(t, connection(t, server), func(c *Config) { c.Window = 64; c.Poll = 10 * time.Millisecond })
			relays = append(relays, r)
			wg.Go(func() { r.follow(ctx) })
		}
		halt := s.keepAppending(t, 16)
		resyncs := func() (n int64) {
			for _, r := range relays {
				n += r.Counters().Resyncs
			}
			return n
		}
		nc := connection(t, server)
		devstack.Eventually(t, "the relays get in each other's way", func() bool {
			return resyncs() > int64(15**dose) && lastSequence(t, nc) > int64(200**dose)
		})
		halt()
		head := s.head(t)
		devstack.Eventually(t, "everything is published", func() bool { return lastSequence(t, nc) >= head })
		stop()
		wg.Wait()
		s.checkStream(t, nc)
		t.Logf("%d events, %d resyncs", head, resyncs())
	})
}

func TestServerKilled(t *testing.T) {
	t.Parallel()
	s, server := newSite(t), devstack.NATSProcess(t, t.TempDir(), 0)
	nc := connection(t, server)
	r := s.relay(t, nc)
	devstack.Background(t, r.Run)
	halt := s.keepAppending(t, 16)
	for range 4 * *dose {
		before := r.published.Load()
		devstack.Eventually(t, "some are published", func() bool { return r.published.Load() > before+100 })
		if eventstore.Pause(t.Context(), rand.N(20*time.Millisecond)) != nil {
			t.FailNow()
		}
		server.Kill()
		if err := server.Restart(); err != nil {
			t.Fatal(err)
		}
	}
	halt()
	s.awaitPublished(t, r)
	s.checkStream(t, nc)
	t.Logf("%d events, %+v", s.head(t), r.Counters())
}

// The log takes appends while the broker is away, and the backlog is published when it is back.
func TestBrokerDown(t *testing.T) {
	t.Parallel()
	s, server := newSite(t), devstack.NATS(t)
	nc := connection(t, server)
	r := s.relay(t, nc)
	devstack.Background(t, r.Run)
	s.appendEvents(t, 100)
	s.awaitPublished(t, r)
	server.Shutdown()
	devstack.Eventually(t, "the relay says that it can't publish", func() bool {
		return r.Status().State == StateRetrying && r.Status().Error != ""
	})
	s.appendEvents(t, 3000)
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	s.awaitPublished(t, r)
	s.checkStream(t, nc)
	if got := r.Status(); got.State != StateRunning || got.Error != "" || got.Lag != 0 {
		t.Errorf("Status() = %+v, want running without error or lag", got)
	}
}

// A relay that starts while there is no broker publishes once there is one.
func TestStartsWithoutBroker(t *testing.T) {
	t.Parallel()
	s, server := newSite(t), devstack.NATS(t)
	nc := connection(t, server)
	server.Shutdown()
	s.appendEvents(t, 100)
	r := s.relay(t, nc)
	devstack.Background(t, r.Run)
	devstack.Eventually(t, "the relay says that it can't publish", func() bool { return r.Status().State == StateRetrying })
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	s.awaitPublished(t, r)
	s.checkStream(t, nc)
}

func TestClusterLeaderStopped(t *testing.T) {
	t.Parallel()
	s, cluster := newSite(t), devstack.NATSCluster(t, 3)
	nc := connection(t, cluster)
	r := s.relay(t, nc, func(c *Config) { c.Stream.Replicas = 3 })
	devstack.Background(t, r.Run)
	halt := s.keepAppending(t, 8)
	for range 2 * *dose {
		before := r.published.Load()
		devstack.Eventually(t, "some are published", func() bool { return r.published.Load() > before+200 })
		leader := cluster.Server(streamLeader(t, nc))
		leader.Shutdown()
		before = r.published.Load()
		devstack.Eventually(t, "the others go on", func() bool { return r.published.Load() > before+200 })
		if err := leader.Restart(); err != nil {
			t.Fatal(err)
		}
		if err := cluster.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	halt()
	s.awaitPublished(t, r)
	s.checkStream(t, nc)
	t.Logf("%d events, %+v", s.head(t), r.Counters())
}

func streamLeader(t testing.TB, nc *nats.Conn) string {
	t.Helper()
	var leader string
	devstack.Eventually(t, "the stream has a leader", func() bool {
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		s, err := js.Stream(t.Context(), DefaultStream)
		if err != nil || s.CachedInfo().Cluster == nil {
			return false
		}
		leader = s.CachedInfo().Cluster.Leader
		return leader != ""
	})
	return leader
}
