package publisher

import (
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"usher.example/internal/devstack"
)

func lookOften(c *Config) { c.LookEvery = 10 * time.Millisecond }

// A stream that somebody empties while nothing is published is filled again at once, and a durable consumer that had not
// handled everything gets the rest.
func TestPurgedStream(t *testing.T) {
	t.Parallel()
	onBothStores(t, func(t *testing.T, s *site) {
		nc := connection(t, devstack.NATS(t))
		r := s.relay(t, nc, lookOften)
		devstack.Background(t, r.Run)
		s.appendEvents(t, 100)
		s.awaitPublished(t, r)
		behind := newSubscriber(t, nc, jetstream.ConsumerConfig{Durable: "behind"})
		behind.handle(t, nc, 40)
		devstack.Eventually(t, "the relay has looked", func() bool { return r.floorOf("behind") == 40 })
		stream, err := r.js.Stream(t.Context(), DefaultStream)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Purge(t.Context()); err != nil {
			t.Fatal(err)
		}
		devstack.Eventually(t, "the stream is filled again", func() bool {
			return r.Counters().Rebuilds == 1 && r.Status().State == StateRunning && r.published.Load() == s.head(t)
		})
		s.checkStream(t, nc)
		behind.handle(t, nc, s.head(t))
		if n := r.Counters().Rebuilds; n != 1 {
			t.Errorf("%d rebuilds, want 1", n)
		}
	})
}

func (r *Relay) floorOf(durable string) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.floors.of[durable]
}

// A stream that was deleted, one whose end is gone, and one with limits that somebody gave it are mended while nothing is
// published. What erased users leave is no damage.
func TestStreamChangedByHand(t *testing.T) {
	t.Parallel()
	s, nc := newSite(t), connection(t, devstack.NATS(t))
	r := s.relay(t, nc, lookOften)
	devstack.Background(t, r.Run)
	ada := s.mustRegister(t)
	s.appendEvents(t, 20)
	s.erase(t, ada)
	s.awaitPublished(t, r)
	devstack.Eventually(t, "the relay has looked at what the erased user left", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.floors.of != nil
	})
	stream, err := r.js.Stream(t.Context(), DefaultStream)
	if err != nil {
		t.Fatal(err)
	}
	if n := r.Counters().Rebuilds; n != 0 {
		t.Fatalf("%d rebuilds after an erasure, want none", n)
	}
	limited := stream.CachedInfo().Config
	limited.MaxMsgs = 5
	if _, err := r.js.UpdateStream(t.Context(), limited); err != nil {
		t.Fatal(err)
	}
	whole := func() bool {
		info, err := r.look(t.Context())
		return err == nil && info.Config.MaxMsgs == -1 && int64(info.State.Msgs) == s.head(t)-2 && int64(info.State.LastSeq) == s.head(t)
	}
	devstack.Eventually(t, "the limit is gone, and what it took is back", whole)
	if err := r.js.DeleteStream(t.Context(), DefaultStream); err != nil {
		t.Fatal(err)
	}
	devstack.Eventually(t, "the stream is there again", func() bool {
		info, err := r.look(t.Context())
		return err == nil && int64(info.State.LastSeq) == s.head(t) && r.Status().State == StateRunning
	})
	if err := r.js.DeleteStream(t.Context(), DefaultStream); err != nil {
		t.Fatal(err)
	}
	if _, err := r.create(t.Context(), 1); err != nil { // an empty one, as if the end were lost
		t.Fatal(err)
	}
	devstack.Eventually(t, "its end is there again", func() bool {
		info, err := r.look(t.Context())
		return err == nil && int64(info.State.LastSeq) == s.head(t) && r.Status().State == StateRunning
	})
	if report, err := r.Scrub(t.Context()); err != nil || report.Damaged() || report.Last != s.head(t) {
		t.Errorf("Scrub() = %+v, %v", report, err)
	}
}

// A consumer that delivers to where requests or signals of usher's own go is removed, and no other that delivers.
func TestIntruders(t *testing.T) {
	t.Parallel()
	s, nc := newSite(t), connection(t, devstack.NATS(t))
	r := s.relay(t, nc, lookOften)
	devstack.Background(t, r.Run)
	s.appendEvents(t, 3)
	s.awaitPublished(t, r)
	stream, err := r.js.Stream(t.Context(), DefaultStream)
	if err != nil {
		t.Fatal(err)
	}
	delivers := func(name, subject string) {
		t.Helper()
		if _, err := stream.CreateOrUpdatePushConsumer(t.Context(), jetstream.ConsumerConfig{Name: name, DeliverSubject: subject, AckPolicy: jetstream.AckNonePolicy}); err != nil {
			t.Fatal(err)
		}
	}
	delivers("of-billing", "_INBOX.billing.events")
	delivers("of-crm", "crm.events")
	delivers("at-signals", "usher.nobody")
	delivers("at-requests", "$NOBODY.asks")
	left := func() (names []string) {
		list := stream.ConsumerNames(t.Context())
		for name := range list.Name() {
			names = append(names, name)
		}
		slices.Sort(names)
		return names
	}
	devstack.Eventually(t, "they are removed", func() bool { return slices.Equal(left(), []string{"of-billing", "of-crm"}) })
	if n := r.Counters().Rebuilds; n != 0 || r.Status().State != StateRunning {
		t.Errorf("%d rebuilds, and the relay is %s", n, r.Status().State)
	}
}
