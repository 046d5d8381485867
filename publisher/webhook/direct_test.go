package webhook_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/eventstore/cloudevent"
	"usher.example/identity"
	"usher.example/internal/devstack"
	"usher.example/publisher/webhook"
)

// What was sent and could not be written down, because another process had taken the webhook over, or because this one died
// just then, is sent again, under the same id.
func TestSentAndNotRecorded(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *stack) {
		r := newReceiver(t)
		hook, _ := s.create(r.url())
		var once sync.Once
		r.answer(func(w http.ResponseWriter, _ *http.Request, _ received) {
			once.Do(func() {
				if _, err := s.db.Exec(t.Context(), "UPDATE webhook_progress SET epoch = epoch + 1 WHERE webhook = $1", hook.ID); err != nil {
					t.Error(err)
				}
			})
			w.WriteHeader(http.StatusNoContent)
		})
		s.work()
		s.register("ada@example.org")
		got := r.await(2)
		if got[0].header.Get("webhook-id") != got[1].header.Get("webhook-id") {
			t.Errorf("sent as %s and again as %s", got[0].header.Get("webhook-id"), got[1].header.Get("webhook-id"))
		}
		devstack.Eventually(t, "it is written down", func() bool { h := s.get(hook.ID); return h.Position == 1 && h.Pending == 0 })
		if d := s.deliveries(hook.ID, ""); len(d) != 1 || d[0].Status != webhook.DeliveryDelivered || d[0].Attempts != 1 || r.count() != 2 {
			t.Errorf("after %d requests, deliveries = %+v", r.count(), d)
		}
	})
}

// A request that hangs keeps nobody else's events back, and does not keep the checkpoint back either.
func TestHangingRequestHoldsUpNobody(t *testing.T) {
	t.Parallel()
	const users = 600
	onBoth(t, func(t *testing.T, s *stack) {
		s.service = s.newService(func(c *webhook.Config) { c.Timeout = time.Minute })
		r := newReceiver(t)
		goOn := make(chan struct{})
		stuck := s.register("stuck@example.org")
		r.answer(func(w http.ResponseWriter, _ *http.Request, got received) {
			if got.event.Subject == stuck {
				<-goOn
			}
			w.WriteHeader(http.StatusNoContent)
		})
		hook, _, err := s.service.Create(t.Context(), webhook.Wish{URL: r.url(), From: 1})
		if err != nil {
			t.Fatal(err)
		}
		s.work()
		s.append(stuck, identity.Locked{}, identity.Unlocked{})
		for i := range users {
			s.register(fmt.Sprintf("user%d@example.org", i))
		}
		devstack.Eventually(t, "all others are written down", func() bool {
			h := s.get(hook.ID)
			return h.Position == users+3 && h.Pending == 3
		})
		close(goOn)
		devstack.Eventually(t, "all are", func() bool { return s.get(hook.ID).Pending == 0 })
		if n := r.count(); n != users+3 {
			t.Errorf("%d requests, want %d: none failed", n, users+3)
		}
	})
}

// Some answers take so long that the delivery is stored meanwhile, some are failures, and the next events of the user come
// from the stream all the time: they arrive in order, one at a time, however they were sent.
func TestOrderWhileSomeAreStored(t *testing.T) {
	t.Parallel()
	const users, events = 20, 40
	onBoth(t, func(t *testing.T, s *stack) {
		s.service = s.newService(func(c *webhook.Config) { c.Retries, c.RetryDelay = 1000, time.Millisecond })
		r := newReceiver(t)
		var mu sync.Mutex
		taken, busy := map[uuid.UUID][]string{}, map[uuid.UUID]bool{}
		r.answer(func(w http.ResponseWriter, _ *http.Request, got received) {
			user, luck := got.event.Subject, rand.IntN(100)
			mu.Lock()
			if busy[user] {
				t.Errorf("two requests at once about user %s", user)
			}
			busy[user] = true
			mu.Unlock()
			if luck == 0 {
				time.Sleep(400 * time.Millisecond) // what makes this endpoint slow
			}
			mu.Lock()
			defer mu.Unlock()
			busy[user] = false
			if luck > 95 {
				w.WriteHeader(http.StatusInternalServerError)
				return
			}
			taken[user] = append(taken[user], got.event.Position)
		})
		hook, _ := s.create(r.url())
		s.work()
		load := s.appendAbout(users, events)
		load.Wait()
		devstack.Eventually(t, "all are through", func() bool {
			h := s.get(hook.ID)
			return h.Position == users*(events+1) && h.Pending == 0
		})
		want := s.byUser()
		mu.Lock()
		defer mu.Unlock()
		if diff := cmp.Diff(want, taken); diff != "" {
			t.Errorf("taken by user (-want +got):\n%s", diff)
		}
	})
}

// appendAbout registers users side by side, and appends events about each, until the group is waited for.
func (s *stack) appendAbout(users, events int) *sync.WaitGroup {
	var load sync.WaitGroup
	for i := range users {
		load.Go(func() {
			user, err := registerIn(s.tb.Context(), s.log, fmt.Sprintf("user%d@example.org", i))
			for range events / 2 {
				if err == nil {
					err = appendTo(s.tb.Context(), s.log, eventstore.UserStream(user), identity.Locked{}, identity.Unlocked{})
				}
			}
			if err != nil {
				s.tb.Error(err)
			}
		})
	}
	return &load
}

// byUser is the positions of all events, in their order, by user.
func (s *stack) byUser() map[uuid.UUID][]string {
	positions := map[uuid.UUID][]string{}
	for _, e := range s.events(0) {
		positions[e.Stream.Subject] = append(positions[e.Stream.Subject], fmt.Sprint(e.Position))
	}
	return positions
}

// Dead letters are redriven while later events of the same users come from the stream: each event is taken once, never two of
// a user at once, and the counts are right in the end.
func TestRedriveBesideTheStream(t *testing.T) {
	t.Parallel()
	const users, events = 5, 100
	onBoth(t, func(t *testing.T, s *stack) {
		s.service = s.newService(func(c *webhook.Config) { c.Retries, c.FailuresInARow = 0, 1000 })
		r := newReceiver(t)
		var mu sync.Mutex
		busy, taken := map[uuid.UUID]bool{}, map[string]int{}
		var mended atomic.Bool
		r.answer(func(w http.ResponseWriter, _ *http.Request, got received) {
			mu.Lock()
			if busy[got.event.Subject] {
				t.Errorf("two requests at once about user %s", got.event.Subject)
			}
			busy[got.event.Subject] = true
			mu.Unlock()
			fails := !mended.Load() && rand.IntN(4) == 0
			if fails {
				w.WriteHeader(http.StatusInternalServerError)
			}
			mu.Lock()
			defer mu.Unlock()
			busy[got.event.Subject] = false
			if !fails {
				taken[got.event.Position]++
			}
		})
		hook, _ := s.create(r.url())
		s.work()
		load := s.appendAbout(users, events)
		redriven, loaded := 0, make(chan struct{})
		go func() {
			load.Wait()
			close(loaded)
		}()
		for done := false; !done; {
			select {
			case <-loaded:
				// However slow the worker is, it has met failures by then, and has more before it.
				done = redriven > 0
				mended.Store(done)
			default:
			}
			n, err := s.service.Redrive(t.Context(), hook.ID, uuid.Nil)
			if err != nil {
				t.Fatal(err)
			}
			redriven += n
		}
		devstack.Eventually(t, "all are through", func() bool {
			if _, err := s.service.Redrive(t.Context(), hook.ID, uuid.Nil); err != nil {
				t.Fatal(err)
			}
			h := s.get(hook.ID)
			return h.Position == users*(events+1) && h.Pending == 0 && h.Dead == 0
		})
		mu.Lock()
		defer mu.Unlock()
		for _, e := range s.events(0) {
			if n := taken[fmt.Sprint(e.Position)]; n != 1 {
				t.Errorf("position %d was taken %d times, want once", e.Position, n)
			}
		}
		if n := s.stored(hook.ID, webhook.DeliveryDelivered); n != users*(events+1) {
			t.Errorf("%d deliveries are written down, want %d", n, users*(events+1))
		}
	})
}

// The stream may still have what was personal when the user's key is gone already. It is not sent.
func TestStreamHasMoreThanMayBeSent(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *stack) {
		r := newReceiver(t)
		s.create(r.url())
		ada, eve := s.register("ada@example.org"), s.register("eve@example.org")
		s.awaitPublished(2)
		if _, err := s.db.Exec(t.Context(), "DELETE FROM user_keys WHERE user_id = $1", ada); err != nil {
			t.Fatal(err)
		}
		s.work()
		for _, got := range r.await(2) {
			if told := strings.Contains(string(got.body), "@example.org"); told != (got.event.Subject == eve) {
				t.Errorf("sent %s", got.body)
			}
			if got.event.Subject == ada && (got.event.Personal != cloudevent.PersonalForgotten || got.event.Address != "") {
				t.Errorf("sent %s", got.body)
			}
		}
	})
}

// A message that was published before its event type got a new schema version is not sent as it is.
func TestStreamHasAnOldSchemaVersion(t *testing.T) {
	t.Parallel()
	s := newStack(t, newSQLite(t))
	upcasters := eventstore.Upcasters{identity.TypeUserLocked: {func(p eventstore.Payload) (eventstore.Payload, error) {
		p.Data = []byte(`{"renamed":true}`)
		return p, nil
	}}}
	s.service = s.newService(func(c *webhook.Config) {
		c.Log = eventstore.New(s.db, s.master, eventstore.Options{Upcasters: upcasters})
	})
	r := newReceiver(t)
	s.create(r.url(), identity.TypeUserLocked)
	s.append(s.register("ada@example.org"), identity.Locked{})
	s.awaitPublished(2)
	s.work()
	got := r.await(1)[0]
	if string(got.event.Data) != `{"renamed":true}` || !strings.HasSuffix(got.event.DataSchema, ":v2") {
		t.Errorf("sent %s", got.body)
	}
}

// A dead letter that is redriven goes before what waits of the same user, also where that came from the stream by then and
// waits for an answer. Only what is on its way already goes before it.
func TestRedrivenGoesBeforeWhatWaits(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *stack) {
		s.service = s.newService(func(c *webhook.Config) { c.Retries = 0 })
		r := newReceiver(t)
		r.status(http.StatusInternalServerError)
		hook, _ := s.create(r.url())
		s.work()
		ada := s.register("ada@example.org")
		devstack.Eventually(t, "the first is dead", func() bool { return s.get(hook.ID).Dead == 1 })
		goOn := make(chan struct{})
		r.answer(func(w http.ResponseWriter, _ *http.Request, got received) {
			if got.event.Position == "2" {
				<-goOn
			}
			w.WriteHeader(http.StatusNoContent)
		})
		s.append(ada, identity.Locked{}, identity.Unlocked{})
		r.await(2)
		if n, err := s.service.Redrive(t.Context(), hook.ID, uuid.Nil); n != 1 || err != nil {
			t.Fatalf("Redrive() = %d, %v", n, err)
		}
		devstack.Eventually(t, "all three are pending", func() bool { return s.get(hook.ID).Pending == 3 })
		close(goOn)
		var positions []string
		for _, got := range r.await(4) {
			positions = append(positions, got.event.Position)
		}
		if diff := cmp.Diff([]string{"1", "2", "1", "3"}, positions); diff != "" {
			t.Errorf("positions (-want +got):\n%s", diff)
		}
		devstack.Eventually(t, "nothing is left", func() bool { h := s.get(hook.ID); return h.Pending == 0 && h.Dead == 0 })
	})
}

// forgetful is a database that loses the answer to one commit in some.
type forgetful struct {
	eventstore.DB
	in   int
	lost atomic.Int64
}

func (f *forgetful) Transact(ctx context.Context, do func(eventstore.DB) error) error {
	err := f.DB.Transact(ctx, do)
	if err == nil && rand.IntN(f.in) == 0 {
		f.lost.Add(1)
		return fmt.Errorf("commit: %w", eventstore.ErrUnavailable)
	}
	return err
}

// What was written down by a commit whose answer was lost is not written down, counted or sent again.
func TestAnswersToCommitsAreLost(t *testing.T) {
	t.Parallel()
	const users, events = 5, 20
	onBoth(t, func(t *testing.T, s *stack) {
		r := newReceiver(t)
		var failed atomic.Int64
		r.answer(func(w http.ResponseWriter, _ *http.Request, _ received) {
			if rand.IntN(10) == 0 {
				failed.Add(1)
				w.WriteHeader(http.StatusInternalServerError)
			}
		})
		hook, _ := s.create(r.url())
		db := &forgetful{DB: s.db, in: 4}
		s.service = s.newService(func(c *webhook.Config) { c.DB, c.Retries, c.RetryDelay = db, 1000, time.Millisecond })
		s.work(func(w *webhook.Worker) { w.LeaseTTL = 10 * time.Second })
		for i := range users {
			user := s.register(fmt.Sprintf("user%d@example.org", i))
			for range events / 2 {
				s.append(user, identity.Locked{}, identity.Unlocked{})
			}
		}
		const all = users * (events + 1)
		devstack.Eventually(t, "all are through", func() bool { h := s.get(hook.ID); return h.Position == all && h.Pending == 0 })
		if n := s.stored(hook.ID, webhook.DeliveryDelivered); n != all || s.get(hook.ID).Dead != 0 {
			t.Errorf("%d deliveries are written down, want %d", n, all)
		}
		if n := int64(r.count()); n != all+failed.Load() {
			t.Errorf("%d requests, of which %d failed, want %d that did not", n, failed.Load(), all)
		}
		if db.lost.Load() == 0 {
			t.Error("no answer was lost")
		}
	})
}
