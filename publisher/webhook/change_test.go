package webhook_test

import (
	"context"
	"errors"
	"testing"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity"
	"usher.example/internal/devstack"
	"usher.example/publisher/webhook"
)

// secrets are those of a webhook as they are stored.
func (s *stack) secrets(id uuid.UUID) (sealed string) {
	s.tb.Helper()
	var raw []byte
	if err := s.db.QueryRow(s.tb.Context(), "SELECT secrets FROM webhooks WHERE id = $1", id).Scan(&raw); err != nil {
		s.tb.Fatal(err)
	}
	return string(raw)
}

// shows checks that deliveries of a webhook are signed with a secret.
func (s *stack) shows(r *receiver, id uuid.UUID, secret webhook.Secret) {
	s.tb.Helper()
	n := r.count()
	if trial, err := s.service.Test(s.tb.Context(), id, uuid.Nil); err != nil || !trial.Delivered {
		s.tb.Fatalf("Test() = %+v, %v", trial, err)
	}
	if err := verify(s.tb, secret, r.await(n + 1)[n]); err != nil {
		s.tb.Errorf("what is sent is not signed with the secret that was shown: %v", err)
	}
}

var disabled = webhook.StatusDisabled

// A secret is in force only where its caller was shown it, whatever of a change fails.
func TestRotateAndDisableAtOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *stack) {
		ctx, both := t.Context(), webhook.Change{RotateSecret: true, Status: &disabled}
		r := newReceiver(t)
		hook, _ := s.create(r.url())
		before := s.secrets(hook.ID)

		closed := eventstore.New(s.db, s.master, eventstore.Options{})
		if err := closed.Close(ctx); err != nil {
			t.Fatal(err)
		}
		_, err := s.newService(func(c *webhook.Config) { c.Log = closed }).Update(ctx, hook.ID, both, eventstore.Metadata{})
		if !errors.Is(err, eventstore.ErrClosed) || s.secrets(hook.ID) != before || s.get(hook.ID).Status != webhook.StatusActive {
			t.Errorf("it can't be disabled: %v, and the webhook is %+v", err, s.get(hook.ID))
		}

		_, err = s.newService(func(c *webhook.Config) { c.DB = unable{s.db} }).Update(ctx, hook.ID, both, eventstore.Metadata{})
		if !errors.Is(err, eventstore.ErrUnavailable) || s.secrets(hook.ID) != before {
			t.Errorf("it can't be changed: %v, and the secret is another: %v", err, s.secrets(hook.ID) != before)
		}

		// Done again it does what is left.
		changed, err := s.service.Update(ctx, hook.ID, both, eventstore.Metadata{})
		if err != nil || changed.Status != disabled || len(s.events(0)) != 1 {
			t.Fatalf("Update() = %+v, %v, with %d events", changed, err, len(s.events(0)))
		}
		s.shows(r, hook.ID, changed.Secret)
	})
}

// unable is a database in which no transaction can be begun.
type unable struct{ eventstore.DB }

func (unable) Transact(context.Context, func(eventstore.DB) error) error {
	return eventstore.ErrUnavailable
}

// The answer to the commit of a rotation is lost, and the secret is not.
func TestRotationWhoseAnswerIsLost(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *stack) {
		r := newReceiver(t)
		hook, _ := s.create(r.url())
		service := s.newService(func(c *webhook.Config) { c.DB = &forgetful{DB: s.db, in: 1} })
		changed, err := service.Update(t.Context(), hook.ID, webhook.Change{RotateSecret: true}, eventstore.Metadata{})
		if err != nil || changed.ID != hook.ID {
			t.Fatalf("Update() = %+v, %v", changed, err)
		}
		s.shows(r, hook.ID, changed.Secret)
	})
}

// What can't be rotated is not disabled either.
func TestRefusedRotationDisablesNothing(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *stack) {
		hook, _ := s.create(someURL)
		var err error
		for range 10 {
			if _, err = s.service.Update(t.Context(), hook.ID, webhook.Change{RotateSecret: true}, eventstore.Metadata{}); err != nil {
				break
			}
		}
		if !errors.Is(err, webhook.ErrConflict) {
			t.Fatalf("many rotations = %v, want ErrConflict", err)
		}
		_, err = s.service.Update(t.Context(), hook.ID, webhook.Change{RotateSecret: true, Status: &disabled}, eventstore.Metadata{})
		if got := s.get(hook.ID); !errors.Is(err, webhook.ErrConflict) || got.Status != webhook.StatusActive {
			t.Errorf("Update() = %v, and it is %s, want ErrConflict of one that is active", err, got.Status)
		}
	})
}

// Of those who rotate at the same moment each gets a secret that is in force.
func TestRotateAtTheSameMoment(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *stack) {
		r := newReceiver(t)
		hook, _ := s.create(r.url())
		secrets := make(chan webhook.Secret, 3)
		for range cap(secrets) {
			go func() {
				changed, err := s.service.Update(t.Context(), hook.ID, webhook.Change{RotateSecret: true}, eventstore.Metadata{})
				if err != nil {
					t.Errorf("Update() = %v", err)
				}
				secrets <- changed.Secret
			}()
		}
		for range cap(secrets) {
			s.shows(r, hook.ID, <-secrets)
		}
	})
}

// gated is a store that does something before each commit.
type gated struct {
	eventstore.Store
	before func()
}

func (g gated) Commit(ctx context.Context, batch []*eventstore.Prepared) ([]eventstore.Outcome, error) {
	g.before()
	return g.Store.Commit(ctx, batch)
}

// rows is how many rows a table has.
func (s *stack) rows(table string) (n int) {
	s.tb.Helper()
	if err := s.db.QueryRow(s.tb.Context(), "SELECT count(*) FROM "+table).Scan(&n); err != nil {
		s.tb.Fatal(err)
	}
	return n
}

func (s *stack) wantNothingLeft() {
	s.tb.Helper()
	for _, table := range []string{"webhooks", "webhook_states", "webhook_progress", "webhook_deliveries"} {
		if n := s.rows(table); n != 0 {
			s.tb.Errorf("%s has %d rows of a webhook that was deleted", table, n)
		}
	}
	if n := len(s.events(0)); n != 0 {
		s.tb.Errorf("%d events tell of a webhook that was deleted", n)
	}
}

// A webhook that is deleted while it is being disabled does not come back in part.
func TestDeletedWhileDisabling(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *stack) {
		hook, _ := s.create(someURL)
		log := eventstore.New(gated{s.db, func() {
			if err := s.service.Delete(t.Context(), hook.ID); err != nil {
				t.Error(err)
			}
		}}, s.master, eventstore.Options{})
		service := s.newService(func(c *webhook.Config) { c.Log = log })
		if _, err := service.Update(t.Context(), hook.ID, webhook.Change{Status: &disabled}, eventstore.Metadata{}); !errors.Is(err, webhook.ErrNotFound) {
			t.Errorf("Update() = %v, want %v", err, webhook.ErrNotFound)
		}
		s.wantNothingLeft()
	})
}

// So does one whose deletion is under way, and neither waits for the other.
func TestDisableWhileDeleting(t *testing.T) {
	t.Parallel()
	s := newStack(t, newPostgres(t))
	hook, _ := s.create(someURL)
	done := make(chan error, 1)
	err := s.db.Transact(t.Context(), func(tx eventstore.DB) error { // as Delete does
		for i, table := range []string{"webhook_progress WHERE webhook", "webhook_states WHERE webhook", "webhooks WHERE id"} {
			if _, err := tx.Exec(t.Context(), "DELETE FROM "+table+" = $1", hook.ID); err != nil {
				return err
			}
			if i == 1 {
				go func() {
					_, err := s.service.Update(t.Context(), hook.ID, webhook.Change{Status: &disabled}, eventstore.Metadata{})
					done <- err
				}()
				devstack.Eventually(t, "the other waits", s.waiting)
			}
		}
		return nil
	})
	if err != nil {
		t.Errorf("to delete it: %v", err)
	}
	if err := <-done; !errors.Is(err, webhook.ErrNotFound) {
		t.Errorf("to disable it: %v, want %v", err, webhook.ErrNotFound)
	}
	s.wantNothingLeft()
}

// A worker that is to disable a webhook for what its endpoint does leaves it alone where it was deleted meanwhile.
func TestDeletedWhileItsEndpointIsGone(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *stack) {
		r := newReceiver(t)
		r.status(410)
		hook, _ := s.create(r.url(), identity.TypeUserRegistered)
		tried := make(chan struct{}, 1)
		log := eventstore.New(gated{s.db, func() {
			if err := s.service.Delete(t.Context(), hook.ID); err != nil {
				t.Error(err)
			}
			tried <- struct{}{}
		}}, s.master, eventstore.Options{})
		service := s.newService(func(c *webhook.Config) { c.Log = log })
		stop := s.work(func(w *webhook.Worker) { w.Service = service })
		s.register("ada@example.org")
		<-tried
		stop()
		if n := s.rows("webhook_states"); n != 0 {
			t.Errorf("%d rows are left of the webhook", n)
		}
	})
}
