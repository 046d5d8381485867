package webhook_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity"
	"usher.example/internal/devstack"
	"usher.example/publisher/webhook"
	"usher.example/subscription"
)

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *stack) {
		r := newReceiver(t)
		until := time.Now().Add(30 * time.Minute).Truncate(time.Second)
		asked := map[int]string{0: "600", 1: until.UTC().Format(http.TimeFormat), 2: "100000"}
		var mu sync.Mutex
		n := 0
		r.answer(func(w http.ResponseWriter, _ *http.Request, _ received) {
			mu.Lock()
			defer mu.Unlock()
			w.Header().Set("Retry-After", asked[n])
			n++
			w.WriteHeader(http.StatusServiceUnavailable)
		})
		hook, _ := s.create(r.url())
		s.work()
		for i, want := range []time.Time{time.Now().Add(10 * time.Minute), until, time.Now().Add(time.Hour)} {
			s.register(fmt.Sprintf("user%d@example.org", i))
			devstack.Eventually(t, "the attempt is written down", func() bool {
				list := s.deliveries(hook.ID, webhook.DeliveryPending)
				return len(list) == i+1 && list[0].Attempts == 1
			})
			next := s.deliveries(hook.ID, webhook.DeliveryPending)[0].NextAttemptAt
			if d := next.Sub(want); d < -5*time.Second || d > time.Minute {
				t.Errorf("Retry-After %s: the next attempt is at %v, want %v", asked[i], next, want)
			}
		}
		r.status(http.StatusOK)
		s.forward(hook.ID, 11*time.Minute)
		devstack.Eventually(t, "the first is delivered after ten minutes", func() bool { return s.get(hook.ID).Pending == 2 })
		if d := s.deliveries(hook.ID, webhook.DeliveryDelivered); len(d) != 1 || d[0].Position != 1 {
			t.Errorf("delivered: %+v, want the first", d)
		}
	})
}

func TestRetriesBackOff(t *testing.T) {
	t.Parallel()
	s := newStack(t, newSQLite(t), func(c *webhook.Config) {
		c.RetryDelay, c.Retries, c.Random = time.Minute, 2, func() float64 { return 0.5 }
	})
	r := newReceiver(t)
	r.status(500)
	hook, _ := s.create(r.url())
	s.work()
	s.register("ada@example.org")
	for attempt, wait := range []time.Duration{time.Minute + 7500*time.Millisecond, 2*time.Minute + 15*time.Second} {
		var d webhook.Delivery
		devstack.Eventually(t, "the attempt is written down", func() bool {
			list := s.deliveries(hook.ID, "")
			if len(list) > 0 {
				d = list[0]
			}
			return d.Attempts == attempt+1
		})
		if got := d.NextAttemptAt.Sub(d.LastAttemptAt); got < wait || got > wait+5*time.Second {
			t.Errorf("after attempt %d it waits for %v, want %v", attempt+1, got, wait)
		}
		s.forward(hook.ID, wait)
	}
	devstack.Eventually(t, "it is dead after the last", func() bool { return s.get(hook.ID).Dead == 1 })
}

// forward puts the clock forward and wakes the webhook's sender, which sleeps by the clock on the wall.
func (s *stack) forward(id uuid.UUID, d time.Duration) {
	s.tb.Helper()
	s.clock.forward(d)
	if _, err := s.service.Redrive(s.tb.Context(), id, uuid.Nil); err != nil {
		s.tb.Fatal(err)
	}
}

func TestGone(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *stack) {
		r := newReceiver(t)
		r.status(http.StatusGone)
		hook, _ := s.create(r.url(), "user.*")
		s.work()
		s.register("ada@example.org")
		devstack.Eventually(t, "it is disabled", func() bool { return s.get(hook.ID).Status == webhook.StatusDisabled })
		if got := s.get(hook.ID); got.Reason != identity.WebhookGone || got.Dead != 0 || got.Pending != 1 {
			t.Errorf("webhook = %+v", got)
		}
		events := s.events(1)
		if len(events) != 1 || events[0].Type != identity.TypeWebhookDisabled || events[0].Metadata.Actor != identity.ActorSystem {
			t.Errorf("events = %+v, want webhook.disabled", events)
		}
		s.register("eve@example.org")
		r.status(http.StatusOK)
		seen := len(r.all())
		active := webhook.StatusActive
		if _, err := s.service.Update(t.Context(), hook.ID, webhook.Change{Status: &active}, eventstore.Metadata{}); err != nil {
			t.Fatal(err)
		}
		positions := map[string]bool{}
		for _, got := range r.await(seen + 2)[seen:] {
			positions[got.event.Position] = true
		}
		if diff := cmp.Diff(map[string]bool{"1": true, "3": true}, positions); diff != "" {
			t.Errorf("after it is active again, it goes on where it stopped (-want +got):\n%s", diff)
		}
	})
}

func TestNothingButFailureForDays(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *stack) {
		s.service = s.newService(func(c *webhook.Config) { c.Retries = 0 })
		r := newReceiver(t)
		r.status(500)
		hook, _ := s.create(r.url(), "user.*")
		s.work()
		dead := func(n int) {
			t.Helper()
			s.register("ada@example.org")
			devstack.Eventually(t, "it is dead", func() bool { return s.get(hook.ID).Dead == n })
		}
		dead(1)
		s.clock.forward(4 * 24 * time.Hour)
		dead(2)
		r.status(200)
		s.register("ada@example.org")
		devstack.Eventually(t, "one is delivered", func() bool { h := s.get(hook.ID); return h.Pending == 0 && h.FailingSince.IsZero() })
		r.status(500)
		dead(3)
		s.clock.forward(5*24*time.Hour - time.Minute)
		dead(4)
		if got := s.get(hook.ID); got.Status != webhook.StatusActive || got.FailingSince.IsZero() {
			t.Errorf("just before five days are over: %+v", got)
		}
		s.clock.forward(time.Minute)
		dead(5)
		devstack.Eventually(t, "it is disabled", func() bool { return s.get(hook.ID).Status == webhook.StatusDisabled })
		if got := s.get(hook.ID); got.Reason != identity.WebhookFailing {
			t.Errorf("webhook = %+v", got)
		}
	})
}

func TestRedrive(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *stack) {
		s.service = s.newService(func(c *webhook.Config) { c.Retries = 0 })
		r := newReceiver(t)
		r.status(500)
		hook, _ := s.create(r.url())
		s.work()
		ada := s.register("ada@example.org")
		s.append(ada, identity.Locked{}, identity.Unlocked{}, identity.Locked{})
		devstack.Eventually(t, "all are dead", func() bool { h := s.get(hook.ID); return h.Dead == 4 && h.Pending == 0 })
		r.status(200)
		seen := len(r.all())
		dead := s.deliveries(hook.ID, webhook.DeliveryDead)
		if n, err := s.service.Redrive(t.Context(), hook.ID, dead[1].ID); n != 1 || err != nil {
			t.Errorf("Redrive of one = %d, %v", n, err)
		}
		got := r.await(seen + 1)
		if got[seen].event.ID != dead[1].EventID {
			t.Errorf("position %s was sent, want %d", got[seen].event.Position, dead[1].Position)
		}
		devstack.Eventually(t, "it is delivered", func() bool { return s.get(hook.ID).Pending == 0 })
		if n, err := s.service.Redrive(t.Context(), hook.ID, dead[1].ID); !errors.Is(err, webhook.ErrConflict) {
			t.Errorf("Redrive of what was delivered = %d, %v, want ErrConflict", n, err)
		}
		if _, err := s.service.Redrive(t.Context(), hook.ID, uuid.Must(uuid.NewV7())); !errors.Is(err, webhook.ErrNotFound) {
			t.Errorf("Redrive of none = %v, want ErrNotFound", err)
		}
		if n, err := s.service.Redrive(t.Context(), hook.ID, uuid.Nil); n != 3 || err != nil {
			t.Errorf("Redrive of all = %d, %v", n, err)
		}
		var positions []string
		for _, g := range r.await(seen + 4)[seen+1:] {
			positions = append(positions, g.event.Position)
		}
		if diff := cmp.Diff([]string{"1", "2", "4"}, positions); diff != "" {
			t.Errorf("positions (-want +got):\n%s", diff)
		}
		devstack.Eventually(t, "nothing is left", func() bool { h := s.get(hook.ID); return h.Pending == 0 && h.Dead == 0 })
		if n, err := s.service.Redrive(t.Context(), hook.ID, uuid.Nil); n != 0 || err != nil {
			t.Errorf("Redrive of nothing = %d, %v", n, err)
		}
	})
}

// An endpoint that hangs with all its requests holds up no other.
func TestSlowEndpointHoldsUpNobody(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *stack) {
		s.service = s.newService(func(c *webhook.Config) { c.Timeout = time.Minute })
		slow, fast := newReceiver(t), newReceiver(t)
		slow.answer(func(_ http.ResponseWriter, r *http.Request, _ received) { <-r.Context().Done() })
		s.create(slow.url())
		s.create(fast.url())
		s.work()
		for i := range 50 {
			s.register(fmt.Sprintf("user%d@example.org", i))
		}
		slow.await(8)
		fast.await(50)
		if n := len(slow.all()); n != 8 {
			t.Errorf("the slow endpoint has %d requests at once, want 8", n)
		}
	})
}

// After some deliveries died in a row, an endpoint gets one request at a time, until one succeeds.
func TestFailingEndpointGetsOneRequestAtATime(t *testing.T) {
	t.Parallel()
	s := newStack(t, newSQLite(t), func(c *webhook.Config) { c.Retries, c.FailuresInARow = 0, 2 })
	r := newReceiver(t)
	var mu sync.Mutex
	now, most := 0, 0
	var let chan struct{}
	r.answer(func(w http.ResponseWriter, _ *http.Request, _ received) {
		mu.Lock()
		now++
		most = max(most, now)
		wait := let
		mu.Unlock()
		if wait != nil {
			<-wait
		}
		mu.Lock()
		now--
		mu.Unlock()
		w.WriteHeader(500)
	})
	hook, _ := s.create(r.url())
	s.work()
	for i := range 2 {
		s.register(fmt.Sprintf("early%d@example.org", i))
	}
	devstack.Eventually(t, "two are dead", func() bool { return s.get(hook.ID).Dead == 2 })
	mu.Lock()
	most, let = 0, make(chan struct{})
	mu.Unlock()
	for i := range 10 {
		s.register(fmt.Sprintf("late%d@example.org", i))
	}
	devstack.Eventually(t, "ten wait", func() bool { return s.get(hook.ID).Pending == 10 })
	close(let)
	devstack.Eventually(t, "they are dead, too", func() bool { return s.get(hook.ID).Dead == 12 })
	if most != 1 {
		t.Errorf("%d requests at once, want 1", most)
	}
}

// However deliveries fail, those of one user arrive in order, and nobody waits for somebody else's.
func TestOrderOfEachUser(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *stack) {
		s.service = s.newService(func(c *webhook.Config) { c.Retries, c.RetryDelay = 1000, time.Millisecond })
		r := newReceiver(t)
		var mu sync.Mutex
		taken := map[uuid.UUID][]string{}
		random := rand.New(rand.NewPCG(1, 2))
		stuck := s.register("stuck@example.org")
		blocked := true
		r.answer(func(w http.ResponseWriter, _ *http.Request, got received) {
			mu.Lock()
			defer mu.Unlock()
			user := got.event.Subject
			if user == stuck && blocked || random.IntN(3) == 0 {
				w.WriteHeader(500)
				return
			}
			taken[user] = append(taken[user], got.event.Position)
		})
		hook, _, err := s.service.Create(t.Context(), webhook.Wish{URL: r.url(), From: 1})
		if err != nil {
			t.Fatal(err)
		}
		s.work()
		users := []uuid.UUID{stuck}
		for i := range 5 {
			users = append(users, s.register(fmt.Sprintf("user%d@example.org", i)))
		}
		for range 10 {
			for _, user := range users {
				s.append(user, identity.Locked{}, identity.Unlocked{})
			}
		}
		devstack.Eventually(t, "all others are through", func() bool { return s.get(hook.ID).Pending == 21 })
		mu.Lock()
		blocked = false
		if n := len(taken[stuck]); n > 0 {
			t.Errorf("%d events of the user whose first one failed", n)
		}
		mu.Unlock()
		devstack.Eventually(t, "all are through", func() bool { return s.get(hook.ID).Pending == 0 })
		want := s.byUser()
		mu.Lock()
		defer mu.Unlock()
		if diff := cmp.Diff(want, taken); diff != "" {
			t.Errorf("taken by user (-want +got):\n%s", diff)
		}
	})
}

// Past the bound nothing more is stored, and nothing is lost: the log has it.
func TestStoredDeliveriesAreBounded(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *stack) {
		r := newReceiver(t)
		hook, _ := s.create(r.url())
		if _, err := s.db.Exec(t.Context(), "UPDATE webhook_progress SET dead = $2 WHERE webhook = $1", hook.ID, webhook.MaxDead); err != nil {
			t.Fatal(err)
		}
		other := newReceiver(t)
		s.create(other.url())
		s.work()
		s.register("ada@example.org")
		other.await(1)
		if got := s.get(hook.ID); got.Pending != 0 || got.Position != 0 || len(r.all()) != 0 {
			t.Errorf("with %d dead letters it goes on: %+v", got.Dead, got)
		}
		if _, err := s.db.Exec(t.Context(), "UPDATE webhook_progress SET dead = 0, changes = changes + 1 WHERE webhook = $1", hook.ID); err != nil {
			t.Fatal(err)
		}
		r.await(1)
	})
}

// An event that has to be read again and can't be is set aside, so that its user's later events go out.
func TestEventThatCantBeRead(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *stack) {
		r := newReceiver(t)
		damaged := make(chan struct{})
		r.answer(func(w http.ResponseWriter, _ *http.Request, got received) {
			if got.event.Position == "1" {
				<-damaged
				w.WriteHeader(http.StatusInternalServerError)
			}
		})
		hook, _ := s.create(r.url())
		s.work()
		ada := s.register("ada@example.org")
		s.append(ada, identity.Locked{})
		r.await(1)
		if _, err := s.db.Exec(t.Context(), "UPDATE events SET personal = $1 WHERE position = 1", []byte("damaged")); err != nil {
			t.Fatal(err)
		}
		close(damaged)
		if got := r.await(2)[1]; got.event.Position != "2" {
			t.Errorf("then position %s was sent", got.event.Position)
		}
		if d := s.deliveries(hook.ID, webhook.DeliveryDead); len(d) != 1 || d[0].Position != 1 || !strings.Contains(d[0].Reason, "can't be read") {
			t.Errorf("dead letters: %+v", d)
		}
	})
}

// awaitPublished waits until the stream has so many events.
func (s *stack) awaitPublished(n uint64) {
	s.tb.Helper()
	devstack.Eventually(s.tb, "the events are published", func() bool {
		stream, err := s.js.Stream(s.tb.Context(), subscription.Stream)
		return err == nil && stream.CachedInfo().State.LastSeq == n
	})
}

// After the database was restored from a backup, the stream has events that did not happen: they are not sent.
func TestRestoredLog(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *stack) {
		r := newReceiver(t)
		hook, _ := s.create(r.url())
		s.register("ada@example.org")
		s.register("eve@example.org")
		s.awaitPublished(2)
		if _, err := s.db.Exec(t.Context(), "DELETE FROM events WHERE position = 2"); err != nil {
			t.Fatal(err)
		}
		s.work()
		devstack.Eventually(t, "it is noticed", func() bool { return strings.Contains(s.output.String(), "events that the log does not have") })
		if got := s.get(hook.ID); got.Position > 1 || len(r.all()) > 1 {
			t.Errorf("%d requests, and the webhook is %+v", len(r.all()), got)
		}
	})
}

// A message that is not the log's is not sent either where one that is comes after it.
func TestForeignMessageInBetween(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *stack) {
		r := newReceiver(t)
		hook, _ := s.create(r.url())
		for _, name := range []string{"ada", "eve", "joe"} {
			s.register(name + "@example.org")
		}
		s.awaitPublished(3)
		if _, err := s.db.Exec(t.Context(), "UPDATE events SET event_id = $1 WHERE position = 2", uuid.New()); err != nil {
			t.Fatal(err)
		}
		s.work()
		devstack.Eventually(t, "it is noticed", func() bool { return strings.Contains(s.output.String(), "events that the log does not have") })
		if got := s.get(hook.ID); got.Position > 1 || len(r.all()) > 1 {
			t.Errorf("%d requests, and the webhook is %+v", len(r.all()), got)
		}
	})
}

// What was delivered is kept for a week.
func TestDeliveredDeliveriesAreDropped(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *stack) {
		r := newReceiver(t)
		hook, _ := s.create(r.url())
		stop := s.work()
		s.register("ada@example.org")
		devstack.Eventually(t, "it is delivered", func() bool { return len(s.deliveries(hook.ID, webhook.DeliveryDelivered)) == 1 })
		stop()
		s.clock.forward(8 * 24 * time.Hour)
		s.register("eve@example.org")
		s.work()
		devstack.Eventually(t, "the old one is gone, and the new one is there", func() bool {
			list := s.deliveries(hook.ID, "")
			return len(list) == 1 && list[0].Position == 2 && list[0].Status == webhook.DeliveryDelivered
		})
	})
}

func TestBrokerGoesAway(t *testing.T) {
	t.Parallel()
	s := newStack(t, newSQLite(t))
	r := newReceiver(t)
	s.create(r.url())
	s.work()
	s.register("a@example.org")
	r.await(1)
	s.broker.Shutdown()
	for i := range 5 {
		s.register(fmt.Sprintf("b%d@example.org", i))
	}
	if err := s.broker.Restart(); err != nil {
		t.Fatal(err)
	}
	seen := map[uuid.UUID]bool{}
	for _, g := range r.await(6) {
		seen[g.event.ID] = true
	}
	if len(seen) != 6 {
		t.Errorf("%d events, want 6", len(seen))
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	s := newStack(t, newSQLite(t), func(c *webhook.Config) { c.Retries = 1 })
	r := newReceiver(t)
	s.create(r.url())
	s.work()
	s.register("a@example.org")
	r.await(1)
	r.status(500)
	s.register("b@example.org")
	devstack.Eventually(t, "the metrics tell of it", func() bool {
		return gathered(t, s.metrics) == `usher_webhook_deliveries_total{dead} 1
usher_webhook_deliveries_total{delivered} 1
usher_webhook_deliveries_total{retry} 1
usher_webhook_delivery_seconds 3
`
	})
}
