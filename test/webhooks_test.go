package test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// endpoint is where a webhook leads: it checks what it gets as any receiver does, with the library of Standard Webhooks.
type endpoint struct {
	server *httptest.Server
	known  chan struct{} // closed once the secret is

	refuse func(position int64, attempt int) bool // whether to answer an attempt with 503; may be nil

	mu       sync.Mutex
	secret   string
	status   int
	types    []string // of what was taken
	traces   []string // the header traceparent, of the same
	broken   []string // what was wrong with it
	attempts map[int64]int
	took     []delivered
}

// delivered is an event that an endpoint took.
type delivered struct {
	position          int64
	id, subject, kind string
}

func newEndpoint(t *testing.T) *endpoint {
	t.Helper()
	e := &endpoint{known: make(chan struct{}), attempts: map[int64]int{}}
	e.server = httptest.NewServer(e)
	t.Cleanup(e.server.Close)
	return e
}

func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	<-e.known
	e.mu.Lock()
	defer e.mu.Unlock()
	var event struct {
		ID, Type, Subject string
		Position          int64 `json:",string"` // none in a test
	}
	if err == nil {
		err = json.Unmarshal(body, &event)
	}
	if err == nil {
		var verifier *standardwebhooks.Webhook
		if verifier, err = standardwebhooks.NewWebhook(e.secret); err == nil {
			err = verifier.Verify(body, r.Header)
		}
	}
	if err == nil && event.ID != r.Header.Get("webhook-id") {
		err = fmt.Errorf("the event %s has the webhook-id %s", event.ID, r.Header.Get("webhook-id"))
	}
	if err != nil {
		e.broken = append(e.broken, err.Error())
	}
	if e.attempts[event.Position]++; e.refuse != nil && e.refuse(event.Position, e.attempts[event.Position]) {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	if e.status == http.StatusOK {
		e.types, e.traces = append(e.types, event.Type), append(e.traces, r.Header.Get("Traceparent"))
		e.took = append(e.took, delivered{event.Position, event.ID, event.Subject, event.Type})
	}
	w.WriteHeader(e.status)
}

func (e *endpoint) set(secret string, status int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.secret == "" {
		close(e.known)
	}
	e.secret, e.status = secret, status
}

// taken waits until the endpoint took a number of events, all of them good, and answers with their types.
func (e *endpoint) taken(t *testing.T, n int) []string {
	t.Helper()
	var types []string
	eventually(t, fmt.Sprintf("%d events are taken", n), func() error {
		e.mu.Lock()
		defer e.mu.Unlock()
		if len(e.broken) > 0 {
			t.Fatalf("an event is not good: %v", e.broken)
		}
		if types = slices.Clone(e.types); len(types) < n {
			return fmt.Errorf("took %q", types)
		}
		return nil
	})
	return types
}

// wantAll waits until the endpoint took every event of a log, and fails unless each had the id that it has there whenever
// it came, and came after all that happened to the same user before.
func (e *endpoint) wantAll(t *testing.T, log []event) {
	t.Helper()
	var all []delivered
	eventually(t, "every event is delivered", func() error {
		e.mu.Lock()
		defer e.mu.Unlock()
		if len(e.broken) > 0 {
			t.Fatalf("an event is not good: %v", e.broken)
		}
		all = slices.Clone(e.took)
		came := map[int64]bool{}
		for _, d := range all {
			came[d.position] = true
		}
		for _, want := range log {
			if !came[want.Position] {
				return fmt.Errorf("%d of %d were, and not that of position %d", len(came), len(log), want.Position)
			}
		}
		return nil
	})
	came, newest := map[int64]bool{}, map[string]int64{}
	for _, d := range all {
		if d.position < 1 || d.position > int64(len(log)) {
			t.Errorf("position %d was delivered, and the log ends at %d", d.position, len(log))
			continue
		}
		if want := log[d.position-1]; d.id != want.ID || d.kind != want.Type {
			t.Errorf("position %d was delivered as %s %s, and is %s %s", d.position, d.kind, d.id, want.Type, want.ID)
		}
		if came[d.position] || d.subject == "" {
			continue
		}
		if came[d.position] = true; d.position < newest[d.subject] {
			t.Errorf("user %s: position %d was delivered after %d", d.subject, d.position, newest[d.subject])
		}
		newest[d.subject] = d.position
	}
	t.Logf("%d deliveries of %d events", len(all), len(log))
}

type madeWebhook struct{ ID, Secret string }

// addWebhook makes a webhook for an endpoint by command.
func (d *deployment) addWebhook(e *endpoint, args ...string) madeWebhook {
	d.t.Helper()
	var made madeWebhook
	if err := json.Unmarshal([]byte(d.command(append([]string{"webhooks", "add", e.server.URL, "--json"}, args...)...)), &made); err != nil {
		d.t.Fatal(err)
	}
	e.set(made.Secret, http.StatusOK)
	return made
}

// A webhook's life, by commands and by the API, with a worker in a process of its own.
func TestWebhooks(t *testing.T) {
	t.Parallel()
	d, _ := newRunningServer(t)
	d.env = append(d.env, "WEBHOOK_ALLOW=127.0.0.0/8", "OUTBOX_WEBHOOK_MAX_RETRIES=1", "OUTBOX_RETRY_DELAY_SECONDS=1", "OUTBOX_WEBHOOK_TIMEOUT_SECONDS=5")
	server, c := d.startServe("--with", "publisher,projections")
	worker := d.start("webhooks", "run")
	e := newEndpoint(t)

	name, value := bearer(c.login(t, d.admin))
	made := into[madeWebhook](t, c.want(t, http.StatusCreated, "POST", "/v1/webhooks",
		map[string]any{"url": e.server.URL + "/?token=unprinted", "events": []string{"user.registered"}}, name, value))
	d.keepSecret(strings.TrimPrefix(made.Secret, "whsec_"))
	d.keepSecret("unprinted")
	e.set(made.Secret, http.StatusOK)
	c.mustRegister(t, "ada@example.org")
	e.taken(t, 1)
	if out := d.command("webhooks", "test", made.ID); !strings.Contains(out, "delivered") {
		t.Errorf("webhooks test prints %q", out)
	}
	if types := e.taken(t, 2); types[1] != "webhook.test" {
		t.Errorf("types %q", types)
	}

	// Out of order for a while: dead letters, which are sent again when somebody says so.
	e.set(made.Secret, http.StatusInternalServerError)
	c.mustRegister(t, "grace@example.org")
	c.mustRegister(t, "linus@example.org")
	type delivery struct {
		ID, Status, Reason string
		Attempts           int
	}
	list := func(status string) []delivery {
		t.Helper()
		var list []delivery
		if err := json.Unmarshal([]byte(d.command("webhooks", "deliveries", made.ID, "--status", status, "--json")), &list); err != nil {
			t.Fatal(err)
		}
		return list
	}
	eventually(t, "two deliveries are dead", func() error {
		if dead := list("dead"); len(dead) != 2 || dead[0].Attempts != 2 || dead[0].Reason != "answered 500" {
			return fmt.Errorf("dead: %+v", dead)
		}
		return nil
	})
	if out, _, err := d.try("webhooks", "test", made.ID); err == nil || !strings.Contains(out, "answered 500") {
		t.Errorf("webhooks test succeeds: %s", out)
	}
	if out := d.command("check", "--component", "webhooks"); !strings.Contains(out, "nothing but failure") {
		t.Errorf("usher check says nothing of it:\n%s", out)
	}
	e.set(made.Secret, http.StatusOK)
	if out := d.command("webhooks", "redrive", made.ID, list("dead")[0].ID, "--json"); !strings.Contains(out, `"redriven": 1`) {
		t.Errorf("webhooks redrive of one: %s", out)
	}
	e.taken(t, 3)
	again := into[struct{ Redriven int }](t, c.want(t, http.StatusOK, "POST", "/v1/webhooks/"+made.ID+"/redrive", nil, name, value))
	if again.Redriven != 1 {
		t.Errorf("redrive of all: %+v", again)
	}
	e.taken(t, 4)
	eventually(t, "all is well", func() error {
		if out := d.command("check", "--component", "webhooks"); !strings.HasPrefix(out, "all ") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})

	d.command("webhooks", "remove", made.ID, "--yes")
	if out := d.command("webhooks", "list", "--json"); strings.TrimSpace(out) != "[]" {
		t.Errorf("after it was removed: %s", out)
	}
	for _, p := range []*process{worker, server} {
		p.alive(t)
		p.stop(t)
	}
}

// In usher dev an endpoint on this machine may be tried, and a command makes a webhook while it runs.
func TestWebhooksInDev(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	p, c := d.startDev()
	d.takeAdmin(p)
	e := newEndpoint(t)
	d.addWebhook(e, "--events", "user.*", "--from", "1")
	c.mustRegister(t, "ada@example.org")
	if types := e.taken(t, 2); slices.Contains(types, "key.rotated") || !slices.Contains(types, "user.registered") {
		t.Errorf("types %q", types)
	}
	if _, stderr, err := d.try("webhooks", "add", "http://10.0.0.1/"); err == nil || !strings.Contains(stderr, "WEBHOOK_ALLOW") {
		t.Errorf("a private address is taken: %v %s", err, stderr)
	}
	p.stop(t)
}
