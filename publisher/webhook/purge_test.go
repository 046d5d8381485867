package webhook_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
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
)

const month = 30 * 24 * time.Hour

// ended stores deliveries of a webhook that ended at a time, at the positions below one that the log is far from.
func (s *stack) ended(id uuid.UUID, status webhook.DeliveryStatus, n int, below int64, at time.Time) {
	s.tb.Helper()
	numbers := "generate_series(1, $2::int) AS n(i)"
	if s.db.Dialect() == eventstore.SQLite {
		numbers = "(WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r WHERE i < $2) SELECT i FROM r) AS n"
	}
	err := s.db.Transact(s.tb.Context(), func(tx eventstore.DB) error {
		_, err := tx.Exec(s.tb.Context(), `
			INSERT INTO webhook_deliveries (webhook, position, subject, is_user, event_id, type, status, attempts, reason, created_at, finished_at)
			SELECT $1, $3 - i, $6, FALSE, $6, 'user.registered', $4, 1, '', $5, $5 FROM `+numbers, id, n, below, string(status), at, uuid.New())
		if err == nil && status == webhook.DeliveryDead {
			_, err = tx.Exec(s.tb.Context(), "UPDATE webhook_progress SET dead = dead + $2 WHERE webhook = $1", id, n)
		}
		return err
	})
	if err != nil {
		s.tb.Fatal(err)
	}
}

// stored counts the deliveries of a webhook in a state.
func (s *stack) stored(id uuid.UUID, status webhook.DeliveryStatus) (n int) {
	s.tb.Helper()
	if err := s.db.QueryRow(s.tb.Context(), "SELECT count(*) FROM webhook_deliveries WHERE webhook = $1 AND status = $2", id, string(status)).Scan(&n); err != nil {
		s.tb.Fatal(err)
	}
	return n
}

// What ended before the time goes, in more than one batch; what ended after it, and what is pending, stays.
func TestPurge(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *stack) {
		s.service = s.newService(func(c *webhook.Config) { c.RetryDelay = time.Hour })
		hook, _ := s.create("http://127.0.0.1:1/", "user.*")
		other, _ := s.create("http://127.0.0.1:1/", "user.*")
		s.register("ada@example.org")
		stop := s.work()
		devstack.Eventually(t, "the events are pending", func() bool {
			return s.stored(hook.ID, webhook.DeliveryPending)+s.stored(other.ID, webhook.DeliveryPending) == 2
		})
		stop()
		limit := time.Now().Add(-month)
		s.ended(hook.ID, webhook.DeliveryDead, 2500, 10_000, limit.Add(-time.Hour))
		s.ended(hook.ID, webhook.DeliveryDead, 7, 20_000, limit.Add(time.Hour))
		s.ended(hook.ID, webhook.DeliveryDelivered, 1000, 30_000, limit.Add(-time.Hour))
		s.ended(hook.ID, webhook.DeliveryDelivered, 3, 40_000, limit.Add(time.Hour))
		s.ended(other.ID, webhook.DeliveryDead, 5, 10_000, limit.Add(-time.Hour))
		if _, err := s.db.Exec(t.Context(), "UPDATE webhook_deliveries SET created_at = $1 WHERE status = 'pending'", limit.Add(-month)); err != nil {
			t.Fatal(err)
		}

		want := webhook.Purged{Delivered: 1000, Dead: 2505}
		if found, err := s.service.Purgeable(t.Context(), limit); err != nil || found != want {
			t.Errorf("Purgeable() = %+v, %v, want %+v", found, err, want)
		}
		if done, err := s.service.Purge(t.Context(), limit); err != nil || done != want {
			t.Errorf("Purge() = %+v, %v, want %+v", done, err, want)
		}
		if done, err := s.service.Purge(t.Context(), limit); err != nil || done != (webhook.Purged{}) {
			t.Errorf("Purge() again = %+v, %v, want nothing", done, err)
		}
		left := map[webhook.DeliveryStatus]int{}
		for _, status := range []webhook.DeliveryStatus{webhook.DeliveryDead, webhook.DeliveryDelivered, webhook.DeliveryPending} {
			left[status] = s.stored(hook.ID, status)
		}
		if diff := cmp.Diff(map[webhook.DeliveryStatus]int{webhook.DeliveryDead: 7, webhook.DeliveryDelivered: 3, webhook.DeliveryPending: 1}, left); diff != "" {
			t.Errorf("deliveries (-want +got):\n%s", diff)
		}
		if h, o := s.get(hook.ID), s.get(other.ID); h.Dead != 7 || h.Pending != 1 || o.Dead != 0 {
			t.Errorf("dead = %d and %d, pending = %d; want 7, 0 and 1", h.Dead, o.Dead, h.Pending)
		}
	})
}

// Purges run beside a worker that is busy: every event arrives, in order, and the counts stay exact. A webhook that took no
// events because it had too many dead letters goes on.
func TestPurgeBesideAWorker(t *testing.T) {
	t.Parallel()
	const users, old = 40, 5000
	onBoth(t, func(t *testing.T, s *stack) {
		s.service = s.newService(func(c *webhook.Config) { c.Retries = 0 })
		r := newReceiver(t)
		var mu sync.Mutex
		refused := 0
		r.answer(func(w http.ResponseWriter, _ *http.Request, got received) {
			if strings.HasSuffix(got.event.Type, ".unlocked") { // a dead letter of today
				mu.Lock()
				refused++
				mu.Unlock()
				w.WriteHeader(http.StatusInternalServerError)
			}
		})
		hook, _ := s.create(r.url(), "user.*")
		limit := time.Now().Add(-month)
		s.ended(hook.ID, webhook.DeliveryDead, old, 100_000, limit.Add(-time.Hour))
		s.ended(hook.ID, webhook.DeliveryDelivered, old, 200_000, limit.Add(-time.Hour))
		const more = webhook.MaxDead - old // as if there were so many
		if _, err := s.db.Exec(t.Context(), "UPDATE webhook_progress SET dead = dead + $2 WHERE webhook = $1", hook.ID, more); err != nil {
			t.Fatal(err)
		}
		s.work()

		ctx, cancel := context.WithCancel(t.Context())
		var load, purges sync.WaitGroup
		var purged webhook.Purged
		purges.Go(func() {
			for ctx.Err() == nil {
				done, err := s.service.Purge(ctx, limit)
				if err != nil && !errors.Is(err, context.Canceled) {
					t.Errorf("Purge() = %v", err)
				}
				purged.Dead += done.Dead
			}
		})
		for i := range 4 {
			load.Go(func() {
				for j := range users / 4 {
					user, err := registerIn(t.Context(), s.log, fmt.Sprintf("u%d.%d@example.org", i, j))
					if err == nil {
						err = appendTo(t.Context(), s.log, eventstore.UserStream(user), identity.Locked{}, identity.Unlocked{}, identity.Locked{})
					}
					if err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		load.Wait()
		devstack.Eventually(t, "every event was sent", func() bool {
			h := s.get(hook.ID)
			return h.Pending == 0 && h.Position >= 4*users && s.stored(hook.ID, webhook.DeliveryDead) == users
		})
		cancel()
		purges.Wait()
		if h := s.get(hook.ID); h.Dead != more+users || purged.Dead != old || refused != users {
			t.Errorf("dead = %d, %d purged, %d refused; want %d, %d and %d", h.Dead, purged.Dead, refused, more+users, old, users)
		}
		last := map[uuid.UUID]int{}
		for _, got := range r.all() {
			position, err := strconv.Atoi(got.event.Position)
			if err != nil || position <= last[got.event.Subject] {
				t.Errorf("user %s: position %s after %d", got.event.Subject, got.event.Position, last[got.event.Subject])
			}
			last[got.event.Subject] = position
		}
		if len(last) != users || r.count() != 4*users {
			t.Errorf("%d requests about %d users, want %d about %d", r.count(), len(last), 4*users, users)
		}
	})
}
