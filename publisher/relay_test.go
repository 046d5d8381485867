package publisher

import (
	"context"
	"testing"
	"time"

	"usher.example/internal/devstack"
)

func TestFlush(t *testing.T) {
	t.Parallel()
	onBothStores(t, func(t *testing.T, s *site) {
		nc := connection(t, devstack.NATS(t))
		r := s.relay(t, nc, func(c *Config) { c.BatchSize = 100 })
		if err := r.Flush(t.Context()); err != nil { // of an empty log
			t.Fatal(err)
		}
		for range 2 {
			s.appendEvents(t, 750)
			if err := r.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.checkStream(t, nc)
		}
		status, err := ReadStatus(t.Context(), s.Log, s.store, DefaultStream, time.Now())
		if want := (Status{Head: 1500, Published: 1500, State: StateStopped}); err != nil || status != want {
			t.Errorf("ReadStatus() = %+v, %v, want %+v", status, err, want)
		}
	})
}

func TestRunFollowsTheLog(t *testing.T) {
	t.Parallel()
	s, nc := newSite(t), connection(t, devstack.NATS(t))
	r := s.relay(t, nc)
	stop := devstack.Background(t, r.Run)
	halt := s.keepAppending(t, 8)
	devstack.Eventually(t, "some are published", func() bool { return r.published.Load() > 500 })
	halt()
	s.awaitPublished(t, r)
	stop()
	s.checkStream(t, nc)
	head := s.head(t)
	status, err := ReadStatus(t.Context(), s.Log, s.store, DefaultStream, time.Now())
	if want := (Status{Head: head, Published: head, State: StateStopped}); err != nil || status != want {
		t.Errorf("ReadStatus() = %+v, %v, want %+v", status, err, want)
	}
}

// The log of another process wakes the relay by core NATS, long before the poll does.
func TestAnnounce(t *testing.T) {
	t.Parallel()
	server := devstack.NATS(t)
	s, nc := newSite(t), connection(t, server)
	r := s.relay(t, nc, func(c *Config) { c.Poll = time.Hour })
	devstack.Background(t, r.Run)
	s.appendEvents(t, 1)
	s.awaitPublished(t, r)

	other := openSite(t, s.dsn)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- Announce(ctx, other.Log, connection(t, server)) }()
	devstack.Eventually(t, "Announce watches", func() bool { // what is appended before is found with the first after
		other.appendEvents(t, 1)
		return r.published.Load() > 1
	})
	for range 5 {
		other.appendEvents(t, 1)
		s.awaitPublished(t, r)
	}
	stop()
	if err := <-done; err != nil {
		t.Errorf("Announce() = %v", err)
	}
}
