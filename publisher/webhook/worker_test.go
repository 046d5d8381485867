package webhook_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/eventstore"
	"usher.example/eventstore/cloudevent"
	"usher.example/identity"
	"usher.example/internal/devstack"
	"usher.example/publisher/webhook"
	"usher.example/subscription"
)

func unmarshal(body []byte, into any) error { return json.Unmarshal(body, into) }

func TestEventsAreDelivered(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *stack) {
		r := newReceiver(t)
		s.register("before@example.org") // of which it is not told
		hook, secret := s.create(r.url(), "user.*")
		s.work()
		ada := s.register("ada@example.org")
		s.append(ada, identity.RoleGranted{Role: "editor"})
		session := eventstore.SessionStream(uuid.Must(uuid.NewV7()), ada)
		if err := appendTo(t.Context(), s.log, session, identity.SessionStarted{Methods: []string{"password"}}); err != nil {
			t.Fatal(err)
		}
		s.append(ada, identity.Locked{})
		var want []cloudevent.Document
		for _, e := range s.events(hook.Position) {
			if e.Type != identity.TypeSessionStarted {
				want = append(want, sentAs(t, cloudevent.Structured(e, cloudevent.Options{Source: source})))
			}
		}
		requests := r.await(3)
		var got []cloudevent.Document
		for _, request := range requests {
			got = append(got, request.event)
			if err := verify(t, secret, request); err != nil {
				t.Errorf("the signature of %s: %v", request.body, err)
			}
			for name, value := range map[string]string{
				"Content-Type": "application/cloudevents+json; charset=utf-8", "webhook-id": request.event.ID.String(), "User-Agent": "usher-webhooks/1",
			} {
				if request.header.Get(name) != value {
					t.Errorf("%s: %q, want %q", name, request.header.Get(name), value)
				}
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("delivered (-want +got):\n%s", diff)
		}
		if !strings.Contains(string(requests[0].body), `"email":"ada@example.org"`) || requests[0].event.Address == "" {
			t.Errorf("the personal fields are not in %s", requests[0].body)
		}
		devstack.Eventually(t, "all is written down", func() bool { return len(s.deliveries(hook.ID, webhook.DeliveryDelivered)) == 3 })
		d := s.deliveries(hook.ID, "")[2]
		if d.EventID != want[0].ID || d.Type != identity.TypeUserRegistered || d.Position != 2 || d.Attempts != 1 || d.LastStatus != 204 || d.Reason != "" ||
			d.FinishedAt.IsZero() || d.LastAttemptAt.IsZero() || !d.NextAttemptAt.IsZero() {
			t.Errorf("delivery = %+v", d)
		}
		devstack.Eventually(t, "the checkpoint is at the head", func() bool { h := s.get(hook.ID); return h.Position == 5 && h.Pending == 0 && h.Dead == 0 })
		nothingLeaks(t, s, secret, "ada@example.org")
	})
}

// sentAs is a document as a receiver reads it.
func sentAs(t *testing.T, d cloudevent.Document) (read cloudevent.Document) {
	t.Helper()
	raw, err := json.Marshal(d)
	if err == nil {
		err = json.Unmarshal(raw, &read)
	}
	if err != nil {
		t.Fatal(err)
	}
	return read
}

// nothingLeaks searches what is stored and logged for personal data and secrets.
func nothingLeaks(t *testing.T, s *stack, secret webhook.Secret, personal ...string) {
	t.Helper()
	forbidden := append([]string{secret.Reveal(), strings.TrimPrefix(secret.Reveal(), "whsec_")}, personal...)
	places := map[string]string{"log output": s.output.String()}
	for _, table := range []string{"webhooks", "webhook_deliveries", "webhook_progress", "events"} {
		places[table] = dump(t, s.db, table)
	}
	if !strings.Contains(places["webhook_deliveries"], "user.registered") {
		t.Error("the search does not find what is there")
	}
	for place, text := range places {
		for _, f := range forbidden {
			if strings.Contains(text, f) {
				t.Errorf("%s has %.6s…", place, f)
			}
		}
	}
	if strings.Contains(places["log output"], "not-in-the-log") {
		t.Error("the log has an endpoint's URL, which may have a secret in it")
	}
}

// dump reads a table as text, whatever its columns are.
func dump(t *testing.T, db database, table string) string {
	t.Helper()
	query := "SELECT row_to_json(t)::text FROM " + table + " t"
	if db.Dialect() == eventstore.SQLite {
		query = "SELECT group_concat('coalesce(CAST(' || name || ' AS TEXT), '''')', ' || '' '' || ') FROM pragma_table_info('" + table + "')"
		var columns string
		if err := db.QueryRow(t.Context(), query).Scan(&columns); err != nil {
			t.Fatal(err)
		}
		query = "SELECT " + columns + " FROM " + table
	}
	rows, err := db.Query(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var all strings.Builder
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			t.Fatal(err)
		}
		all.WriteString(text + "\n")
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all.String()
}

func TestPersonalFieldsAreOmitted(t *testing.T) {
	t.Parallel()
	s := newStack(t, newSQLite(t), func(c *webhook.Config) { c.OmitPersonal = true })
	r := newReceiver(t)
	s.create(r.url())
	s.work()
	s.register("ada@example.org")
	got := r.await(1)[0]
	if strings.Contains(string(got.body), "ada@example.org") || got.event.Personal != cloudevent.PersonalOmitted || got.event.Address != "" {
		t.Errorf("sent %s", got.body)
	}
}

// What waits for an endpoint while its user is erased is sent without what was personal, although the key was in memory.
func TestErasedUser(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *stack) {
		r := newReceiver(t)
		r.answer(func(w http.ResponseWriter, _ *http.Request, got received) {
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = w.Write(got.body) // and so tells back what it was sent
		})
		hook, secret := s.create(r.url())
		stop := s.work()
		ada := s.register("ada@example.org")
		first := r.await(1)[0]
		if !strings.Contains(string(first.body), "ada@example.org") {
			t.Fatalf("sent %s", first.body)
		}
		devstack.Eventually(t, "it is dead", func() bool { return s.get(hook.ID).Dead == 1 })
		dead := s.deliveries(hook.ID, webhook.DeliveryDead)[0]
		if !strings.Contains(dead.Response, `"ada@example.org"`) {
			t.Errorf("the answer is not kept: %+v", dead)
		}
		nothingLeaks(t, s, secret, "ada@example.org")
		stop()
		s.append(ada, identity.Erased{})
		r.status(http.StatusOK)
		seen := len(r.all())
		if _, err := s.service.Redrive(t.Context(), hook.ID, uuid.Nil); err != nil {
			t.Fatal(err)
		}
		s.work()
		got := r.await(seen + 2)[seen:]
		if got[0].event.ID != first.event.ID || strings.Contains(string(got[0].body), "ada@example.org") || got[0].event.Personal != cloudevent.PersonalForgotten {
			t.Errorf("after the user was erased: sent %s", got[0].body)
		}
		if got[1].event.Type != identity.TypeUserErased || got[1].event.Subject != ada {
			t.Errorf("then sent %s", got[1].body)
		}
		devstack.Eventually(t, "both are delivered", func() bool { return len(s.deliveries(hook.ID, webhook.DeliveryDelivered)) == 2 })
		if d := s.deliveries(hook.ID, "")[1]; d.Response != "" {
			t.Errorf("the answer is still there: %+v", d)
		}
	})
}

// An endpoint that takes deliveries quickly has many made ready for it. When it hangs then, and users are erased meanwhile,
// they are made ready anew before they are sent.
func TestErasedWhileAnEndpointHangs(t *testing.T) {
	t.Parallel()
	const users, quick = 300, 150
	onBoth(t, func(t *testing.T, s *stack) {
		r := newReceiver(t)
		var taken atomic.Int64
		goOn := make(chan struct{})
		r.answer(func(w http.ResponseWriter, _ *http.Request, _ received) {
			if taken.Add(1) > quick {
				<-goOn
			}
			w.WriteHeader(http.StatusOK)
		})
		hook, _ := s.create(r.url(), identity.TypeUserRegistered)
		left := map[uuid.UUID]bool{}
		for i := range users {
			left[s.register(fmt.Sprintf("user%d@example.org", i))] = true
		}
		s.awaitPublished(users)
		s.work()
		seen := len(r.await(quick + 8)) // as many requests as are made at once
		for _, got := range r.all() {
			delete(left, got.event.Subject)
		}
		for user := range left {
			s.append(user, identity.Erased{})
		}
		began := time.Now()
		devstack.Eventually(t, "what was read is old", func() bool { return time.Since(began) > time.Second })
		close(goOn)
		devstack.Eventually(t, "all are delivered", func() bool { p := s.get(hook.ID); return p.Pending == 0 && p.Position >= users })
		for _, got := range r.all()[seen:] {
			if left[got.event.Subject] && strings.Contains(string(got.body), "@example.org") {
				t.Fatalf("sent of a user who is erased: %s", got.body)
			}
		}
	})
}

func TestRotation(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *stack) {
		r := newReceiver(t)
		hook, first := s.create(r.url())
		s.work()
		changed, err := s.service.Update(t.Context(), hook.ID, webhook.Change{RotateSecret: true}, eventstore.Metadata{})
		if err != nil {
			t.Fatal(err)
		}
		second := changed.Secret
		var got received
		devstack.Eventually(t, "deliveries have two signatures", func() bool {
			n := len(r.all())
			s.register("ada@example.org")
			got = r.await(n + 1)[n]
			return strings.Contains(got.header.Get("webhook-signature"), " v1,")
		})
		if a, b := verify(t, first, got), verify(t, second, got); a != nil || b != nil {
			t.Errorf("by the old secret: %v, by the new one: %v", a, b)
		}
	})
}

func TestTest(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *stack) {
		r := newReceiver(t)
		hook, secret := s.create(r.url(), "user.*")
		id := uuid.Must(uuid.NewV7())
		trial, err := s.service.Test(t.Context(), hook.ID, id)
		if err != nil || !trial.Delivered || trial.Status != 204 || trial.ID != id || trial.Reason != "" {
			t.Errorf("Test() = %+v, %v", trial, err)
		}
		got := r.await(1)[0]
		if err := verify(t, secret, got); err != nil {
			t.Error(err)
		}
		if got.event.ID != id || got.event.Type != webhook.TestType || string(got.event.Data) != `{"webhook":"`+hook.ID.String()+`"}` || got.event.Position != "" {
			t.Errorf("sent %s", got.body)
		}
		r.answer(func(w http.ResponseWriter, _ *http.Request, _ received) {
			http.Error(w, "not today", http.StatusTeapot)
		})
		if trial, err = s.service.Test(t.Context(), hook.ID, uuid.Nil); err != nil || trial.Delivered || trial.Status != 418 || trial.Reason != "answered 418" || trial.Response != "not today\n" || trial.ID == id {
			t.Errorf("Test() = %+v, %v", trial, err)
		}
		r.server.Close()
		if trial, err = s.service.Test(t.Context(), hook.ID, uuid.Nil); err != nil || trial.Delivered || trial.Status != 0 || trial.Reason == "" || strings.Contains(trial.Reason, "token") {
			t.Errorf("Test() = %+v, %v", trial, err)
		}
		if len(s.deliveries(hook.ID, "")) != 0 {
			t.Error("a test was stored")
		}
	})
}

// A deleted webhook's consumer goes, too, and nobody else's.
func TestConsumersOfDeletedWebhooks(t *testing.T) {
	t.Parallel()
	s := newStack(t, newSQLite(t))
	r := newReceiver(t)
	hook, _ := s.create(r.url())
	kept, _ := s.create(r.url())
	stop := s.work()
	s.register("ada@example.org")
	r.await(2)
	stop()
	if err := s.service.Delete(t.Context(), hook.ID); err != nil {
		t.Fatal(err)
	}
	s.work()
	consumer := func(id uuid.UUID) error {
		_, err := s.js.Consumer(t.Context(), subscription.Stream, "webhook-"+id.String())
		return err
	}
	devstack.Eventually(t, "the consumer is gone", func() bool { return consumer(hook.ID) == jetstream.ErrConsumerNotFound })
	if err := consumer(kept.ID); err != nil {
		t.Errorf("the other webhook's consumer: %v", err)
	}
}

func TestDeleteWhileAtWork(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *stack) {
		r := newReceiver(t)
		hook, _ := s.create(r.url())
		other, _ := s.create(r.url())
		s.work()
		s.register("ada@example.org")
		r.await(2)
		if err := s.service.Delete(t.Context(), hook.ID); err != nil {
			t.Fatal(err)
		}
		s.register("eve@example.org")
		devstack.Eventually(t, "the other goes on", func() bool { return len(s.deliveries(other.ID, webhook.DeliveryDelivered)) == 2 })
		var rows int
		if err := s.db.QueryRow(t.Context(), "SELECT count(*) FROM webhook_deliveries WHERE webhook = $1", hook.ID).Scan(&rows); err != nil || rows != 0 {
			t.Errorf("%d deliveries of the deleted webhook, %v", rows, err)
		}
	})
}

// While it is disabled nothing is sent, and then everything since.
func TestDisabledWebhookGoesOnWhereItStopped(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *stack) {
		r := newReceiver(t)
		hook, _ := s.create(r.url(), "user.registered")
		other := newReceiver(t)
		s.create(other.url(), "user.registered")
		s.work()
		s.register("a@example.org")
		r.await(1)
		disabled, active := webhook.StatusDisabled, webhook.StatusActive
		if _, err := s.service.Update(t.Context(), hook.ID, webhook.Change{Status: &disabled}, eventstore.Metadata{}); err != nil {
			t.Fatal(err)
		}
		devstack.Eventually(t, "it is let go of", func() bool {
			var held int
			err := s.db.QueryRow(t.Context(), "SELECT count(*) FROM leases WHERE name = $1 AND expires_at > $2", "webhook/"+hook.ID.String(), time.Now().UTC()).Scan(&held)
			return err == nil && held == 0
		})
		for i := range 5 {
			s.register(fmt.Sprintf("b%d@example.org", i))
		}
		other.await(6)
		if n := len(r.all()); n != 1 {
			t.Errorf("%d requests while it is disabled", n-1)
		}
		if _, err := s.service.Update(t.Context(), hook.ID, webhook.Change{Status: &active}, eventstore.Metadata{}); err != nil {
			t.Fatal(err)
		}
		got := r.await(6)
		var positions []string
		for _, g := range got {
			positions = append(positions, g.event.Position)
		}
		slices.Sort(positions)
		if diff := cmp.Diff([]string{"1", "3", "4", "5", "6", "7"}, positions); diff != "" {
			t.Errorf("positions (-want +got):\n%s", diff)
		}
	})
}

// Requests that are on their way when the worker is told to stop are finished and written down.
func TestStopFinishesRequests(t *testing.T) {
	t.Parallel()
	s := newStack(t, newSQLite(t))
	r := newReceiver(t)
	arrived, answer := make(chan struct{}), make(chan struct{})
	r.answer(func(w http.ResponseWriter, _ *http.Request, _ received) {
		close(arrived)
		<-answer
	})
	hook, _ := s.create(r.url())
	w := &webhook.Worker{Service: s.service, JetStream: s.js, Poll: 20 * time.Millisecond}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	s.register("ada@example.org")
	<-arrived
	cancel()
	close(answer)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if d := s.deliveries(hook.ID, webhook.DeliveryDelivered); len(d) != 1 {
		t.Errorf("%d deliveries are written down, want the one that was answered", len(d))
	}
}
