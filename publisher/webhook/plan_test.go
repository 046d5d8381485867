package webhook_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"

	"usher.example/identity"
	"usher.example/internal/devstack"
	"usher.example/publisher/webhook"
)

// A table of deliveries that is full of another webhook's is never gone through, neither by the worker, whose plans were made
// while the table was empty, nor by those who look at deliveries, redrive or purge them.
func TestDeliveriesAreNotScanned(t *testing.T) {
	t.Parallel()
	s := newStack(t, newPostgres(t), func(c *webhook.Config) { c.Retries, c.FailuresInARow = 0, 1000 })
	r := newReceiver(t)
	r.answer(func(w http.ResponseWriter, _ *http.Request, got received) {
		if got.event.Type == identity.TypeUserLocked {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	hook, _ := s.create(r.url(), "user.*")
	full, _ := s.create("http://127.0.0.1:1/", "session.*")
	stop := s.work()
	deliver := func() {
		t.Helper()
		user := s.register("ada@example.org")
		s.append(user, identity.Locked{}, identity.Unlocked{})
		head := int64(len(s.events(0)))
		devstack.Eventually(t, "all is written down", func() bool { h := s.get(hook.ID); return h.Position == head && h.Pending == 0 })
	}
	look := func() {
		t.Helper()
		for _, status := range []webhook.DeliveryStatus{"", webhook.DeliveryPending, webhook.DeliveryDelivered, webhook.DeliveryDead} {
			s.deliveries(hook.ID, status)
		}
		if n, err := s.service.Redrive(t.Context(), hook.ID, uuid.Nil); err != nil || n == 0 {
			t.Errorf("Redrive() = %d, %v", n, err)
		}
		if _, err := s.service.Purge(t.Context(), time.Now().Add(-month)); err != nil {
			t.Error(err)
		}
	}
	for range 10 { // until there are plans that are kept
		deliver()
		look()
	}
	s.ended(full.ID, webhook.DeliveryDelivered, 50_000, 1_000_000, time.Now())
	s.ended(full.ID, webhook.DeliveryDead, 10_000, 2_000_000, time.Now())
	for range 5 {
		deliver()
		look()
	}
	stop()
	// A backend reports what it did when it is idle for a while, and at the latest when it ends.
	s.db.Close()
	db, err := openDatabase(t.Context(), s.place)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var scans int
	if err := db.QueryRow(t.Context(), "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'webhook_deliveries'").Scan(&scans); err != nil || scans > 0 {
		t.Errorf("the table was scanned %d times, %v, want none", scans, err)
	}
}
