package webhook_test

import (
	"errors"
	"fmt"
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

const someURL = "https://93.184.215.14/hooks?token=not-in-the-log"

func TestCreate(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *stack) {
		s.register("ada@example.org")
		s.register("eve@example.org")
		ctx := t.Context()
		hook, secret, err := s.service.Create(ctx, webhook.Wish{URL: someURL, Events: []string{"user.*", "user.*"}})
		if err != nil {
			t.Fatal(err)
		}
		if len(secret.Reveal()) != len("whsec_")+44 || !strings.HasPrefix(secret.Reveal(), "whsec_") {
			t.Errorf("the secret has %d characters", len(secret.Reveal()))
		}
		if hook.URL != someURL || hook.Status != webhook.StatusActive || hook.Position != 2 || cmp.Diff([]string{"user.*"}, hook.Events) != "" {
			t.Errorf("Create() = %+v", hook)
		}
		if diff := cmp.Diff(hook, s.get(hook.ID)); diff != "" {
			t.Errorf("Get (-created +got):\n%s", diff)
		}
		early, _, err := s.service.Create(ctx, webhook.Wish{URL: someURL, From: 2})
		if err != nil || early.Position != 1 || cmp.Diff([]string{"*"}, early.Events) != "" {
			t.Errorf("Create() from 2 = %+v, %v, want the events after 1", early, err)
		}
		if next, _, err := s.service.Create(ctx, webhook.Wish{URL: someURL, From: 3}); err != nil || next.Position != 2 {
			t.Errorf("Create() from the next event = %+v, %v", next, err)
		}
		for name, c := range map[string]struct {
			wish webhook.Wish
			want error
		}{
			"no URL":             {webhook.Wish{}, webhook.ErrInvalidURL},
			"a private address":  {webhook.Wish{URL: "https://10.0.0.1/"}, webhook.ErrInvalidURL},
			"no TLS":             {webhook.Wish{URL: "http://93.184.215.14/"}, webhook.ErrInvalidURL},
			"an unknown event":   {webhook.Wish{URL: someURL, Events: []string{"user.vanished"}}, webhook.ErrUnknownEvent},
			"before the log":     {webhook.Wish{URL: someURL, From: -1}, &identity.Error{Code: identity.CodeInvalidRequest}},
			"far after the head": {webhook.Wish{URL: someURL, From: 4}, &identity.Error{Code: identity.CodeInvalidRequest}},
		} {
			if _, _, err := s.service.Create(ctx, c.wish); !errors.Is(err, c.want) {
				t.Errorf("%s: %v, want %v", name, err, c.want)
			}
		}
		list, err := s.service.List(ctx, uuid.Nil, 2)
		if err != nil || len(list) != 2 || list[0].ID != hook.ID || list[1].ID != early.ID {
			t.Errorf("List() = %+v, %v", list, err)
		}
		if list, err = s.service.List(ctx, early.ID, 2); err != nil || len(list) != 1 {
			t.Errorf("the second page = %+v, %v, want one webhook", list, err)
		}
		if _, err := s.service.Get(ctx, uuid.Must(uuid.NewV7())); !errors.Is(err, webhook.ErrNotFound) {
			t.Errorf("Get() of none = %v", err)
		}
	})
}

func TestCreateIsIdempotent(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *stack) {
		ctx := t.Context()
		w := webhook.Wish{URL: someURL, Events: []string{"user.*"}, CommandID: identity.CommandID("webhook", "k")}
		type made struct {
			hook   webhook.Webhook
			secret webhook.Secret
		}
		all := make([]made, 8)
		var wg sync.WaitGroup
		for i := range all {
			wg.Go(func() {
				var err error
				if all[i].hook, all[i].secret, err = s.service.Create(ctx, w); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for _, m := range all {
			if m.hook.ID != all[0].hook.ID || m.secret != all[0].secret || m.secret.Reveal() == "" {
				t.Errorf("the same wish made %s and %s", m.hook.ID, all[0].hook.ID)
			}
		}
		other := w
		other.Events = []string{"session.*"}
		if _, _, err := s.service.Create(ctx, other); !errors.Is(err, webhook.ErrKeyReused) {
			t.Errorf("another wish with the same command id: %v, want ErrKeyReused", err)
		}
		if _, err := s.service.Update(ctx, all[0].hook.ID, webhook.Change{RotateSecret: true}, eventstore.Metadata{}); err != nil {
			t.Fatal(err)
		}
		if _, secret, err := s.service.Create(ctx, w); err != nil || secret != all[0].secret {
			t.Errorf("after a rotation: %v, want the first answer", err)
		}
		s.clock.forward(25 * time.Hour)
		if _, _, err := s.service.Create(ctx, w); !errors.Is(err, webhook.ErrConflict) {
			t.Errorf("after the first secret is gone: %v, want ErrConflict", err)
		}
		if list, err := s.service.List(ctx, uuid.Nil, 10); err != nil || len(list) != 1 {
			t.Errorf("%d webhooks, %v, want one", len(list), err)
		}
	})
}

func TestTooManyWebhooks(t *testing.T) {
	t.Parallel()
	s := newStack(t, newSQLite(t))
	for range webhook.MaxWebhooks {
		s.create(someURL)
	}
	if _, _, err := s.service.Create(t.Context(), webhook.Wish{URL: someURL}); !errors.Is(err, webhook.ErrConflict) {
		t.Errorf("one webhook too many: %v, want ErrConflict", err)
	}
}

// waiting says whether somebody waits for a lock of the database.
func (s *stack) waiting() bool {
	var n int
	err := s.db.QueryRow(s.tb.Context(), "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").Scan(&n)
	return err == nil && n > 0
}

// Of processes that make the last webhook at the same time, one does.
func TestTooManyWebhooksAtOnce(t *testing.T) {
	t.Parallel()
	s := newStack(t, newPostgres(t))
	for range webhook.MaxWebhooks - 1 {
		s.create(someURL)
	}
	second := make(chan error, 1)
	err := s.db.Transact(t.Context(), func(tx eventstore.DB) error {
		_, err := tx.Exec(t.Context(), `INSERT INTO webhooks (id, url, events, secrets, request, created_at, updated_at)
			SELECT $1, url, events, secrets, request, created_at, updated_at FROM webhooks LIMIT 1`, uuid.Must(uuid.NewV7()))
		if err != nil {
			return err
		}
		go func() {
			_, _, err := s.service.Create(t.Context(), webhook.Wish{URL: someURL})
			second <- err
		}()
		devstack.Eventually(t, "the second waits, or is done", func() bool { return s.waiting() || len(second) > 0 })
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-second; !errors.Is(err, webhook.ErrConflict) {
		t.Errorf("the second = %v, want %v", err, webhook.ErrConflict)
	}
}

// Whoever enables a webhook and whoever deletes it don't wait for each other.
func TestEnableWhileDeleting(t *testing.T) {
	t.Parallel()
	s := newStack(t, newPostgres(t))
	hook, _ := s.create(someURL)
	disabled, active := webhook.StatusDisabled, webhook.StatusActive
	if _, err := s.service.Update(t.Context(), hook.ID, webhook.Change{Status: &disabled}, eventstore.Metadata{}); err != nil {
		t.Fatal(err)
	}
	enabled := make(chan error, 1)
	err := s.db.Transact(t.Context(), func(tx eventstore.DB) error { // as Delete does
		if _, err := tx.Exec(t.Context(), "DELETE FROM webhook_progress WHERE webhook = $1", hook.ID); err != nil {
			return err
		}
		go func() {
			_, err := s.service.Update(t.Context(), hook.ID, webhook.Change{Status: &active}, eventstore.Metadata{})
			enabled <- err
		}()
		devstack.Eventually(t, "the other waits", s.waiting)
		_, err := tx.Exec(t.Context(), "DELETE FROM webhook_states WHERE webhook = $1", hook.ID)
		if err == nil {
			_, err = tx.Exec(t.Context(), "DELETE FROM webhooks WHERE id = $1", hook.ID)
		}
		return err
	})
	if err != nil {
		t.Errorf("to delete it: %v", err)
	}
	if err := <-enabled; !errors.Is(err, webhook.ErrNotFound) {
		t.Errorf("to enable it: %v, want %v", err, webhook.ErrNotFound)
	}
}

func TestUpdate(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *stack) {
		ctx := t.Context()
		hook, secret := s.create(someURL, "user.*")
		address, filters := "https://93.184.215.15/", []string{"key.rotated"}
		changed, err := s.service.Update(ctx, hook.ID, webhook.Change{URL: &address}, eventstore.Metadata{})
		if err != nil || changed.URL != address || changed.Events[0] != "user.*" || changed.Secret.Reveal() != "" || !changed.UpdatedAt.After(hook.UpdatedAt) {
			t.Errorf("Update(URL) = %+v, %v", changed, err)
		}
		changed, err = s.service.Update(ctx, hook.ID, webhook.Change{Events: &filters, RotateSecret: true}, eventstore.Metadata{})
		if err != nil || changed.URL != address || cmp.Diff(filters, changed.Events) != "" || changed.Secret == secret || changed.Secret.Reveal() == "" {
			t.Errorf("Update(events, rotate) = %+v, %v", changed, err)
		}
		bad, badFilters, badStatus := "https://10.0.0.1/", []string{"x"}, webhook.Status("asleep")
		for name, c := range map[string]struct {
			id     uuid.UUID
			change webhook.Change
			want   error
		}{
			"a private address": {hook.ID, webhook.Change{URL: &bad}, webhook.ErrInvalidURL},
			"an unknown event":  {hook.ID, webhook.Change{Events: &badFilters}, webhook.ErrUnknownEvent},
			"an unknown status": {hook.ID, webhook.Change{Status: &badStatus}, &identity.Error{Code: identity.CodeInvalidRequest}},
			"no such webhook":   {uuid.Must(uuid.NewV7()), webhook.Change{URL: &address, RotateSecret: true}, webhook.ErrNotFound},
			"none at all":       {uuid.Must(uuid.NewV7()), webhook.Change{}, webhook.ErrNotFound},
		} {
			if _, err := s.service.Update(ctx, c.id, c.change, eventstore.Metadata{}); !errors.Is(err, c.want) {
				t.Errorf("%s: %v, want %v", name, err, c.want)
			}
		}
		changed.UpdatedAt = s.get(hook.ID).UpdatedAt
		if diff := cmp.Diff(changed.Webhook, s.get(hook.ID)); diff != "" {
			t.Errorf("what was refused changed something:\n%s", diff)
		}
	})
}

func TestDisable(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *stack) {
		ctx := t.Context()
		hook, _ := s.create(someURL)
		admin := uuid.Must(uuid.NewV7())
		m := eventstore.Metadata{Correlation: uuid.Must(uuid.NewV7()), Actor: identity.ActorUser(admin), Address: "192.0.2.1", UserAgent: "test"}
		disabled, active := webhook.StatusDisabled, webhook.StatusActive
		for round := range 2 {
			// Those who do it at once do it once.
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					if got, err := s.service.Update(ctx, hook.ID, webhook.Change{Status: &disabled}, m); err != nil || got.Status != disabled || got.Reason != identity.WebhookOperator {
						t.Errorf("disable: %+v, %v", got, err)
					}
				})
			}
			wg.Wait()
			events := s.events(0)
			if len(events) != round+1 {
				t.Fatalf("%d events, want %d", len(events), round+1)
			}
			e := events[round]
			p, err := identity.Decode[identity.WebhookDisabled](e)
			if err != nil || p.Webhook != hook.ID || p.Reason != identity.WebhookOperator {
				t.Errorf("the event is %+v, %v", p, err)
			}
			if e.Stream.Kind != eventstore.KindSystem || e.Version != round+1 || e.Metadata.Actor != m.Actor || e.Metadata.Address != "" {
				t.Errorf("the event is %+v", e)
			}
			got, err := s.service.Update(ctx, hook.ID, webhook.Change{Status: &active}, m)
			if err != nil || got.Status != active || got.Reason != "" {
				t.Errorf("enable: %+v, %v", got, err)
			}
		}
	})
}

func TestDelete(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *stack) {
		hook, _ := s.create(someURL)
		other, _ := s.create(someURL)
		if err := s.service.Delete(t.Context(), hook.ID); err != nil {
			t.Fatal(err)
		}
		if err := s.service.Delete(t.Context(), hook.ID); !errors.Is(err, webhook.ErrNotFound) {
			t.Errorf("Delete() again = %v, want ErrNotFound", err)
		}
		for _, table := range []string{"webhooks", "webhook_states", "webhook_progress"} {
			var n int
			if err := s.db.QueryRow(t.Context(), "SELECT count(*) FROM "+table).Scan(&n); err != nil || n != 1 {
				t.Errorf("%s has %d rows, %v, want that of %s", table, n, err, other.ID)
			}
		}
		for name, err := range map[string]error{
			"Deliveries": func() error {
				_, err := s.service.Deliveries(t.Context(), hook.ID, webhook.DeliveryFilter{})
				return err
			}(),
			"Redrive": func() error { _, err := s.service.Redrive(t.Context(), hook.ID, uuid.Nil); return err }(),
			"Test":    func() error { _, err := s.service.Test(t.Context(), hook.ID, uuid.Nil); return err }(),
		} {
			if !errors.Is(err, webhook.ErrNotFound) {
				t.Errorf("%s of a deleted webhook = %v, want ErrNotFound", name, err)
			}
		}
	})
}

func TestDeliveriesRefuses(t *testing.T) {
	t.Parallel()
	s := newStack(t, newSQLite(t))
	hook, _ := s.create(someURL)
	for _, f := range []webhook.DeliveryFilter{{Status: "lost"}, {Limit: -1}, {Limit: webhook.MaxLimit + 1}} {
		if _, err := s.service.Deliveries(t.Context(), hook.ID, f); identity.CodeOf(err) != identity.CodeInvalidRequest {
			t.Errorf("Deliveries(%+v) = %v", f, err)
		}
	}
	if list := s.deliveries(hook.ID, ""); fmt.Sprint(list) != "[]" {
		t.Errorf("deliveries of a new webhook: %v", list)
	}
}
