package webhook_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/internal/devstack"
	"usher.example/publisher/webhook"
)

// What a worker had of a webhook goes some time after it was deleted, its lease too.
func TestNothingIsLeftOfADeletedWebhook(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *stack) {
		kept, _ := s.create(newReceiver(t).url())
		hook, _ := s.create(newReceiver(t).url())
		stop := s.work()
		devstack.Eventually(t, "both are at work", func() bool { return s.get(hook.ID).Running && s.get(kept.ID).Running })
		stop()
		if err := s.service.Delete(t.Context(), hook.ID); err != nil {
			t.Fatal(err)
		}
		s.work()
		devstack.Eventually(t, "the lease of the one that is left is the only one", func() bool {
			var n int
			err := s.db.QueryRow(t.Context(), "SELECT count(*) FROM leases WHERE name = $1 OR name = $2", "webhook/"+hook.ID.String(), "webhook/"+kept.ID.String()).Scan(&n)
			return err == nil && n == 1
		})
		devstack.Eventually(t, "it is at work", func() bool { return s.get(kept.ID).Running })
	})
}

// keeping is a broker that does not let one durable consumer be deleted.
type keeping struct {
	jetstream.JetStream
	kept string
}

func (k keeping) DeleteConsumer(ctx context.Context, stream, consumer string) error {
	if consumer == k.kept {
		return errors.New("not now")
	}
	return k.JetStream.DeleteConsumer(ctx, stream, consumer)
}

// A durable consumer that can't be deleted keeps none of the others.
func TestTidyGoesOn(t *testing.T) {
	t.Parallel()
	s := newStack(t, newSQLite(t))
	s.create(newReceiver(t).url())
	left := []string{"webhook-a", "webhook-b", "webhook-c"}
	devstack.Eventually(t, "there is a stream", func() bool { _, err := s.js.Stream(t.Context(), "USHER"); return err == nil })
	for _, name := range left {
		if _, err := s.js.CreateConsumer(t.Context(), "USHER", jetstream.ConsumerConfig{Durable: name}); err != nil {
			t.Fatal(err)
		}
	}
	const kept = "webhook-a" // the server lists it first
	s.work(func(w *webhook.Worker) { w.JetStream = keeping{s.js, kept} })
	devstack.Eventually(t, "the others are deleted", func() bool {
		for _, name := range left {
			if _, err := s.js.Consumer(t.Context(), "USHER", name); (err == nil) != (name == kept) {
				return false
			}
		}
		return true
	})
	devstack.Eventually(t, "the one that is left is told of", func() bool { return strings.Contains(s.output.String(), "delete the consumer webhook-a: not now") })
}

// A webhook whose row makes no sense holds up no other.
func TestWebhookThatCantBeRead(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *stack) {
		r := newReceiver(t)
		bad, _ := s.create(newReceiver(t).url())
		hook, _ := s.create(r.url())
		if _, err := s.db.Exec(t.Context(), "UPDATE webhooks SET events = '{}' WHERE id = $1", bad.ID); err != nil {
			t.Fatal(err)
		}
		s.work()
		s.register("ada@example.org")
		r.await(1)
		devstack.Eventually(t, "it is told of", func() bool { return strings.Contains(s.output.String(), "webhook can't be used") })
		if list, err := s.service.List(t.Context(), uuid.Nil, 10); err != nil || len(list) != 2 {
			t.Errorf("List() = %v, %v, want both", list, err)
		}
		devstack.Eventually(t, "it is delivered", func() bool { return len(s.deliveries(hook.ID, webhook.DeliveryDelivered)) == 1 })
		if purged, err := s.service.Purge(t.Context(), time.Now().Add(time.Hour)); err != nil || purged.Delivered != 1 {
			t.Errorf("Purge() = %+v, %v", purged, err)
		}
		if err := s.service.Delete(t.Context(), bad.ID); err != nil {
			t.Errorf("Delete() = %v", err)
		}
	})
}
