package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"usher.example/internal/devstack"
)

const terminate = syscall.SIGTERM

// newRunningServer makes a deployment on a database of its own and a NATS server of its own, in another process.
func newRunningServer(t *testing.T) (*deployment, *devstack.NATSChild) {
	t.Helper()
	broker := devstack.NATSProcess(t, t.TempDir(), 0)
	return newServeDeployment(t, database(t), broker.URL()), broker
}

func TestServeWithEverything(t *testing.T) {
	t.Parallel()
	d, _ := newRunningServer(t)
	p, c := d.startServe("--with", "publisher,projections")
	d.walkThrough(c)
	for _, path := range []string{"/livez", "/readyz", "/openapi.yaml", "/.well-known/jwks.json"} {
		if err := c.status(http.StatusOK, path); err != nil {
			t.Error(err)
		}
	}
	_, metrics := p.listening(t)
	if err := d.client(metrics).status(http.StatusOK, "/metrics"); err != nil {
		t.Error(err)
	}
	p.stop(t)
}

func TestServePublishProjectApart(t *testing.T) {
	t.Parallel()
	d, _ := newRunningServer(t)
	server, c := d.startServe()
	relay := d.start("publish", "--continuous")
	worker := d.start("project")
	d.walkThrough(c)

	worker.stop(t)
	admin := c.login(t, d.admin)
	grace := c.mustRegister(t, "grace@example.org")
	name, value := bearer(admin)
	behind, err := c.call("GET", "/v1/users", nil, name, value, "Usher-Min-Position", strconv.FormatInt(grace.position, 10))
	if err != nil {
		t.Fatal(err)
	}
	wantProblem(t, behind, http.StatusServiceUnavailable, "behind")
	c.login(t, credentials{grace.Email, userPassword}) // for which no read model is needed
	worker = d.start("project", "users")
	if u := c.users(t, admin, grace.position)[grace.ID]; u.Email != grace.Email {
		t.Errorf("the list has %+v, want %+v", u, grace.user)
	}
	for _, p := range []*process{relay, worker, server} {
		p.alive(t)
		p.stop(t)
	}
}

func TestPublishOnce(t *testing.T) {
	t.Parallel()
	d, broker := newRunningServer(t)
	p, c := d.startServe()
	for i := range 3 {
		c.mustRegister(t, fmt.Sprintf("user%d@example.org", i))
	}
	log := d.history()
	d.command("publish")
	d.wantPublished(log)
	d.command("publish", "--batch-size", "1") // with nothing to publish
	d.wantPublished(log)
	c.mustRegister(t, "another@example.org")
	log = d.history()
	d.command("publish")
	d.wantPublished(log)

	var outbox struct{ Head, Published, Lag int64 }
	if err := json.Unmarshal([]byte(d.command("outbox", "status", "--json")), &outbox); err != nil || outbox.Published != int64(len(log)) || outbox.Lag != 0 {
		t.Errorf("outbox status = %+v (%v), want everything published", outbox, err)
	}
	broker.Kill()
	if _, stderr, err := d.try("publish"); err == nil {
		t.Errorf("usher publish succeeds without a broker:\n%s", stderr)
	}
	p.stop(t)
}

func TestManyRegistrationsAtOnce(t *testing.T) {
	t.Parallel()
	d, _ := newRunningServer(t)
	p, c := d.startServe("--with", "publisher,projections")
	const free, same = 50, 50
	var (
		wg       sync.WaitGroup
		mu       sync.Mutex
		created  []registration
		statuses = map[int]int{}
	)
	for i := range free + same {
		email := "wanted@example.org"
		if i < free {
			email = fmt.Sprintf("user%d@example.org", i)
		}
		wg.Go(func() {
			r, err := c.registerInTime(t, email)
			mu.Lock()
			defer mu.Unlock()
			var refused errNot201
			switch {
			case err == nil:
				statuses[http.StatusCreated]++
				created = append(created, r)
			case errors.As(err, &refused):
				statuses[refused.status]++
				wantProblem(t, refused.answer, http.StatusConflict, "email_taken")
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if diff := cmp.Diff(map[int]int{http.StatusCreated: free + 1, http.StatusConflict: same - 1}, statuses); diff != "" {
		t.Errorf("answers by status (-want +got):\n%s", diff)
	}
	log := d.history()
	wantRegistered(t, log, created)
	wantOnce(t, log)
	d.wantPublished(log)
	d.wantReadModel(c, log)
	p.stop(t)
}

func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	d, _ := newRunningServer(t)
	p, c := d.startServe()
	const key = "9d1c2b"
	first := c.mustRegister(t, "ada@example.org", "Idempotency-Key", key)
	again := c.mustRegister(t, "ada@example.org", "Idempotency-Key", key)
	if diff := cmp.Diff(first, again, cmp.AllowUnexported(registration{})); diff != "" {
		t.Errorf("the second answer is another (-first +second):\n%s", diff)
	}
	_, err := c.register("grace@example.org", "Idempotency-Key", key)
	if refused := (errNot201{}); errors.As(err, &refused) {
		wantProblem(t, refused.answer, http.StatusUnprocessableEntity, "idempotency_key_reused")
	} else {
		t.Errorf("the key with another request: %v", err)
	}

	var wg sync.WaitGroup
	same := make([]registration, 20)
	for i := range same {
		wg.Go(func() {
			var err error
			if same[i], err = c.register("linus@example.org", "Idempotency-Key", "at-once"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, r := range same {
		if r.ID != same[0].ID || r.position != same[0].position {
			t.Errorf("requests with the same key made %+v and %+v", same[0], r)
		}
	}
	log := d.history()
	wantRegistered(t, log, []registration{first, same[0]})
	if n := registeredUsers(log); n != 3 {
		t.Errorf("%d users, want the administrator and two", n)
	}
	p.stop(t)
}

func TestTwoServers(t *testing.T) {
	t.Parallel()
	d, _ := newRunningServer(t)
	first, a := d.startServe("--with", "publisher,projections")
	second, b := d.startServe("--with", "publisher,projections")
	for i := range 10 {
		email := fmt.Sprintf("user%d@example.org", i)
		r := a.mustRegister(t, email)
		name, value := bearer(a.login(t, credentials{email, userPassword}))
		if me := into[user](t, b.want(t, http.StatusOK, "GET", "/v1/me", nil, name, value)); me.ID != r.ID || me.Email != email {
			t.Errorf("GET /v1/me at the other server = %+v, want %+v", me, r.user)
		}
		b.login(t, credentials{email, userPassword})
		if u := b.users(t, b.login(t, d.admin), r.position)[r.ID]; u.Email != email {
			t.Errorf("the other server's list has %+v for %s", u, email)
		}
		a, b = b, a // after ten times they are as they were
	}
	first.stop(t)
	// What the first did, the second takes over.
	r := b.mustRegister(t, "last@example.org")
	b.users(t, b.login(t, d.admin), r.position)
	log := d.history()
	d.wantPublished(log)
	d.wantReadModel(b, log)
	second.stop(t)
}
