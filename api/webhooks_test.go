package api

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/identity"
	"usher.example/internal/devstack"
	"usher.example/publisher"
	"usher.example/publisher/webhook"
	"usher.example/server"
)

const webhookURL = "https://93.184.215.14/hooks"

// administrate makes a stack whose answers are held against the document, and an administrator's access token.
func administrate(t *testing.T, db database) (*stack, func(method, path, body string, headers ...string) answer) {
	t.Helper()
	s := newStack(t, db, options{document: true})
	if _, _, err := s.identity.EnsureAdmin(t.Context(), "admin@example.org", secret); err != nil {
		t.Fatal(err)
	}
	admin := s.login("admin@example.org")
	return s, func(method, path, body string, headers ...string) answer {
		return s.call(method, path, body, append(headers, "Authorization", "Bearer "+admin)...)
	}
}

func TestWebhooks(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s, call := administrate(t, db)
		made := call("POST", "/v1/webhooks", `{"url":"`+webhookURL+`","events":["user.*"]}`, "Idempotency-Key", "k-1")
		s.want(made, http.StatusCreated, "")
		id := made.field(t, "id")
		if !strings.HasPrefix(made.field(t, "secret"), "whsec_") || made.field(t, "status") != "active" || made.field(t, "events") != `["user.*"]` ||
			made.field(t, "position") != strconv.FormatInt(s.head(), 10) || made.header.Get("Location") != "/v1/webhooks/"+id {
			t.Errorf("made %s", made.body)
		}
		if again := call("POST", "/v1/webhooks", `{"url":"`+webhookURL+`","events":["user.*"]}`, "Idempotency-Key", "k-1"); again.body != made.body || again.status != http.StatusCreated {
			t.Errorf("the same request again: %d %s, want %s", again.status, again.body, made.body)
		}
		s.want(call("POST", "/v1/webhooks", `{"url":"`+webhookURL+`"}`, "Idempotency-Key", "k-1"), http.StatusUnprocessableEntity, identity.CodeKeyReused)

		path := "/v1/webhooks/" + id
		shown := call("GET", path, "")
		s.want(shown, http.StatusOK, "")
		if strings.Contains(shown.body, "secret") || shown.field(t, "id") != id {
			t.Errorf("shown as %s", shown.body)
		}
		changed := call("PATCH", path, `{"url":"https://93.184.215.15/","events":[],"rotate_secret":true}`)
		s.want(changed, http.StatusOK, "")
		if changed.field(t, "url") != "https://93.184.215.15/" || changed.field(t, "events") != `["*"]` || changed.field(t, "secret") == made.field(t, "secret") ||
			!strings.HasPrefix(changed.field(t, "secret"), "whsec_") || changed.header.Get("Usher-Position") != "" {
			t.Errorf("changed to %s", changed.body)
		}
		disabled := call("PATCH", path, `{"status":"disabled"}`)
		s.want(disabled, http.StatusOK, "")
		if disabled.field(t, "status") != "disabled" || disabled.field(t, "reason") != "operator" || strings.Contains(disabled.body, "secret") ||
			disabled.header.Get("Usher-Position") != strconv.FormatInt(s.head(), 10) {
			t.Errorf("disabled: %s, at %s", disabled.body, disabled.header.Get("Usher-Position"))
		}
		if types := s.typesAfter(s.head() - 1); cmp.Diff([]string{identity.TypeWebhookDisabled}, types) != "" {
			t.Errorf("events %q, want webhook.disabled", types)
		}
		enabled := call("PATCH", path, `{"status":"active"}`)
		s.want(enabled, http.StatusOK, "")
		if enabled.field(t, "status") != "active" || strings.Contains(enabled.body, "reason") {
			t.Errorf("enabled: %s", enabled.body)
		}
		s.want(call("PATCH", path, ""), http.StatusOK, "")
		if trial := call("POST", path+"/redrive", "", "Idempotency-Key", "k-2"); trial.body != "{\"redriven\":0}\n" {
			t.Errorf("redriven: %d %s", trial.status, trial.body)
		}
		s.want(call("DELETE", path, ""), http.StatusNoContent, "")
		s.want(call("GET", path, ""), http.StatusNotFound, identity.CodeNotFound)
	})
}

func TestWebhooksRefuse(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s, call := administrate(t, db)
		id := call("POST", "/v1/webhooks", `{"url":"`+webhookURL+`"}`).field(t, "id")
		nobody := uuid.Must(uuid.NewV7()).String()
		for _, c := range []struct {
			method, path, body string
			status             int
			code               identity.Code
			has                string
		}{
			{"POST", "", `{}`, 400, identity.CodeInvalidRequest, `\"url\" is needed`},
			{"POST", "", `{"url":"` + webhookURL + `","filter":1}`, 400, identity.CodeInvalidRequest, "filter"},
			{"POST", "", `{"url":"` + webhookURL + `","events":"user.*"}`, 400, identity.CodeInvalidRequest, "events"},
			{"POST", "", `{"url":"` + webhookURL + `","from":0}`, 400, identity.CodeInvalidRequest, "from 1"},
			{"POST", "", `{"url":"` + webhookURL + `","from":99999}`, 400, identity.CodeInvalidRequest, "from 1 to"},
			{"POST", "", `{"url":"not a URL"}`, 422, identity.CodeInvalidURL, "https"},
			{"POST", "", `{"url":"http://93.184.215.14/"}`, 422, identity.CodeInvalidURL, "use https"},
			{"POST", "", `{"url":"https://u:p@93.184.215.14/"}`, 422, identity.CodeInvalidURL, "credentials"},
			{"POST", "", `{"url":"https://169.254.169.254/latest/meta-data"}`, 422, identity.CodeInvalidURL, "WEBHOOK_ALLOW"},
			{"POST", "", `{"url":"https://[fd00:ec2::254]/"}`, 422, identity.CodeInvalidURL, "WEBHOOK_ALLOW"},
			{"POST", "", `{"url":"` + webhookURL + `","events":["user.vanished"]}`, 422, identity.CodeUnknownEvent, "user.registered"},
			{"PATCH", "/" + id, `{"status":"asleep"}`, 400, identity.CodeInvalidRequest, "active or disabled"},
			{"PATCH", "/" + id, `{"events":["x"]}`, 422, identity.CodeUnknownEvent, "user.registered"},
			{"PATCH", "/" + id, `{"url":"https://10.0.0.1"}`, 422, identity.CodeInvalidURL, "WEBHOOK_ALLOW"},
			{"PATCH", "/" + id, `{"id":"x"}`, 400, identity.CodeInvalidRequest, "id"},
			{"PATCH", "/" + nobody, `{}`, 404, identity.CodeNotFound, "no such webhook"},
			{"DELETE", "/" + nobody, "", 404, identity.CodeNotFound, "no such webhook"},
			{"GET", "/" + nobody, "", 404, identity.CodeNotFound, "no such webhook"},
			{"GET", "/x", "", 404, identity.CodeNotFound, "no such webhook"},
			{"GET", "/" + nobody + "/deliveries", "", 404, identity.CodeNotFound, "no such webhook"},
			{"GET", "/" + id + "/deliveries?status=lost", "", 400, identity.CodeInvalidRequest, "pending, delivered or dead"},
			{"GET", "/" + id + "/deliveries?limit=201", "", 400, identity.CodeInvalidRequest, "limit"},
			{"GET", "/" + id + "/deliveries?cursor=x", "", 400, server.CodeInvalidCursor, ""},
			{"GET", "?cursor=x", "", 400, server.CodeInvalidCursor, ""},
			{"GET", "?status=active", "", 400, identity.CodeInvalidRequest, "status"},
			{"POST", "/" + nobody + "/redrive", "", 404, identity.CodeNotFound, "no such webhook"},
			{"POST", "/" + id + "/redrive", `{"x":1}`, 400, identity.CodeInvalidRequest, "x"},
			{"POST", "/" + id + "/deliveries/" + nobody + "/redrive", "", 404, identity.CodeNotFound, "no such delivery"},
			{"POST", "/" + id + "/deliveries/x/redrive", "", 404, identity.CodeNotFound, "no such delivery"},
			{"POST", "/" + nobody + "/test", "", 404, identity.CodeNotFound, "no such webhook"},
		} {
			a := call(c.method, "/v1/webhooks"+c.path, c.body)
			s.want(a, c.status, c.code)
			if !strings.Contains(a.body, c.has) {
				t.Errorf("%s %s %s: %s, want %q", c.method, c.path, c.body, a.body, c.has)
			}
		}
		for range 4 {
			s.want(call("PATCH", "/v1/webhooks/"+id, `{"rotate_secret":true}`), http.StatusOK, "")
		}
		s.want(call("PATCH", "/v1/webhooks/"+id, `{"rotate_secret":true}`), http.StatusConflict, identity.CodeConflict)
		s.want(call("POST", "/v1/webhooks/"+id+"/test", "", "Idempotency-Key", "a b"), http.StatusBadRequest, identity.CodeInvalidRequest)
	})
}

// webhookWithDeadLetter makes a webhook whose endpoint can't be reached, and a delivery that is dead.
func (s *stack) webhookWithDeadLetter() (hook, delivery uuid.UUID) {
	s.tb.Helper()
	w, _, err := s.server.Webhooks.Create(s.tb.Context(), webhook.Wish{URL: "http://127.0.0.1:1/"})
	if err != nil {
		s.tb.Fatal(err)
	}
	if _, err := s.db.Exec(s.tb.Context(), `INSERT INTO webhook_deliveries (webhook, position, subject, is_user, event_id, type, status, attempts, reason, created_at)
		VALUES ($1, 1, $2, false, $2, 'user.registered', 'dead', 4, 'answered 500', $3)`, w.ID, uuid.Must(uuid.NewV7()), time.Now()); err != nil {
		s.tb.Fatal(err)
	}
	if _, err := s.db.Exec(s.tb.Context(), "UPDATE webhook_progress SET dead = 1 WHERE webhook = $1", w.ID); err != nil {
		s.tb.Fatal(err)
	}
	list, err := s.server.Webhooks.Deliveries(s.tb.Context(), w.ID, webhook.DeliveryFilter{})
	if err != nil || len(list) != 1 {
		s.tb.Fatalf("the deliveries are %+v, %v", list, err)
	}
	return w.ID, list[0].ID
}

func TestWebhookPages(t *testing.T) {
	t.Parallel()
	s, call := administrate(t, openSQLite(t))
	var want, got []string
	for i := range 5 {
		want = append(want, call("POST", "/v1/webhooks", fmt.Sprintf(`{"url":"%s/%d"}`, webhookURL, i)).field(t, "id"))
	}
	type listed struct {
		Items      []struct{ ID string }
		NextCursor string `json:"next_cursor"`
	}
	for cursor, pages := "", 0; pages == 0 || cursor != ""; pages++ {
		a := call("GET", "/v1/webhooks?limit=2&cursor="+cursor, "")
		s.want(a, http.StatusOK, "")
		var page listed
		if err := json.Unmarshal([]byte(a.body), &page); err != nil {
			t.Fatal(err)
		}
		for _, item := range page.Items {
			got = append(got, item.ID)
		}
		if cursor = page.NextCursor; cursor != "" {
			s.want(call("GET", "/v1/users/"+want[0]+"/events?cursor="+cursor, ""), http.StatusBadRequest, server.CodeInvalidCursor)
		}
		if pages > 3 {
			t.Fatal("it does not end")
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("pages (-want +got):\n%s", diff)
	}
}

// sendWebhooks publishes the log, and a worker sends what webhooks want of it, until the test ends.
func (s *stack) sendWebhooks() {
	s.tb.Helper()
	conn, err := devstack.NATS(s.tb).Connect(nats.ReconnectBufSize(-1))
	if err != nil {
		s.tb.Fatal(err)
	}
	s.tb.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		s.tb.Fatal(err)
	}
	relay, err := publisher.New(publisher.Config{Log: s.log, DB: s.db, Conn: conn, Source: "https://usher.test", Logger: s.server.Logger, ScrubEvery: -1})
	if err != nil {
		s.tb.Fatal(err)
	}
	devstack.Background(s.tb, relay.Run)
	devstack.Background(s.tb, (&webhook.Worker{Service: s.server.Webhooks, JetStream: js, Poll: 20 * time.Millisecond}).Run)
}

func TestWebhookDeliveries(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s, call := administrate(t, db)
		s.sendWebhooks()
		status, ids := make(chan int, 100), make(chan string, 100)
		endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			ids <- r.Header.Get("webhook-id")
			w.WriteHeader(<-status)
			_, _ = io.WriteString(w, "what the endpoint says")
		}))
		t.Cleanup(endpoint.Close)
		id := call("POST", "/v1/webhooks", `{"url":"`+endpoint.URL+`","events":["user.registered"]}`).field(t, "id")
		path := "/v1/webhooks/" + id
		for range 3 {
			status <- 410
		}
		trial := call("POST", path+"/test", "", "Idempotency-Key", "k")
		s.want(trial, http.StatusOK, "")
		if trial.field(t, "delivered") != "false" || trial.field(t, "status") != "410" || trial.field(t, "response") != "what the endpoint says" {
			t.Errorf("test: %s", trial.body)
		}
		if again := call("POST", path+"/test", "", "Idempotency-Key", "k"); again.field(t, "id") != trial.field(t, "id") {
			t.Errorf("the same test again has the id %s, want %s", again.field(t, "id"), trial.field(t, "id"))
		}
		if a, b := <-ids, <-ids; a != b || a != trial.field(t, "id") {
			t.Errorf("webhook-id %s and %s", a, b)
		}

		s.user("ada@example.org")
		devstack.Eventually(t, "it is disabled by a 410", func() bool { return call("GET", path, "").field(t, "status") == "disabled" })
		pending := call("GET", path+"/deliveries?status=pending", "")
		s.want(pending, http.StatusOK, "")
		for _, text := range []string{`"type":"user.registered"`, `"attempts":1`, `"last_status":410`, `"reason":"answered 410"`, `"response":"what the endpoint says"`, `"next_attempt_at"`} {
			if !strings.Contains(pending.body, text) {
				t.Errorf("pending: %s lacks %s", pending.body, text)
			}
		}
		// An endpoint may repeat what it was sent, and whoever runs the service reads nothing personal.
		s.user("operator@example.net", identity.RoleGranted{Role: identity.RoleOperator})
		seen := s.want(s.as(s.login("operator@example.net"), "GET", path+"/deliveries?status=pending", ""), http.StatusOK, "")
		if !strings.Contains(seen.body, `"last_status":410`) || strings.Contains(seen.body, "what the endpoint says") {
			t.Errorf("pending, for an operator: %s", seen.body)
		}
		status <- 200
		status <- 200 // for the operator, who has registered as well
		s.want(call("PATCH", path, `{"status":"active"}`), http.StatusOK, "")
		devstack.Eventually(t, "it is delivered", func() bool {
			return strings.Contains(call("GET", path+"/deliveries?status=delivered", "").body, "user.registered")
		})
		for i := range 3 {
			status <- 200
			s.user(fmt.Sprintf("user%d@example.org", i))
		}
		devstack.Eventually(t, "all are delivered", func() bool {
			return call("GET", path, "").field(t, "pending") == "0" && strings.Count(call("GET", path+"/deliveries", "").body, "event_id") == 5
		})
		first := call("GET", path+"/deliveries?limit=3", "")
		second := call("GET", path+"/deliveries?limit=3&cursor="+first.field(t, "next_cursor"), "")
		s.want(second, http.StatusOK, "")
		if strings.Count(first.body, "event_id") != 3 || strings.Count(second.body, "event_id") != 2 || strings.Contains(second.body, "next_cursor") {
			t.Errorf("pages %s and %s", first.body, second.body)
		}
		var page struct{ Items []struct{ ID string } }
		if err := json.Unmarshal([]byte(second.body), &page); err != nil {
			t.Fatal(err)
		}
		s.want(call("POST", path+"/deliveries/"+page.Items[0].ID+"/redrive", ""), http.StatusConflict, identity.CodeConflict)
		s.want(call("GET", path+"/deliveries?status=dead&cursor="+first.field(t, "next_cursor"), ""), http.StatusBadRequest, server.CodeInvalidCursor)
		if strings.Contains(s.output.String(), endpoint.URL) {
			t.Error("an endpoint's URL is logged")
		}
	})
}
