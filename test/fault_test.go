package test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"usher.example/internal/devstack"
)

func TestBrokerDown(t *testing.T) {
	t.Parallel()
	d, broker := newRunningServer(t)
	p, c := d.startServe("--with", "publisher,projections")
	before := c.mustRegister(t, "before@example.org")
	d.wantPublished(d.history())
	admin := c.login(t, d.admin)
	c.users(t, admin, before.position)

	broker.Kill()
	var registrations []registration
	for i := range 100 {
		registrations = append(registrations, c.mustRegister(t, fmt.Sprintf("meanwhile%d@example.org", i)))
	}
	if err := c.status(http.StatusOK, "/readyz"); err != nil {
		t.Errorf("without a broker: %v", err)
	}
	token := c.login(t, credentials{registrations[99].Email, userPassword})
	name, value := bearer(token)
	if me := into[user](t, c.want(t, http.StatusOK, "GET", "/v1/me", nil, name, value)); me.ID != registrations[99].ID {
		t.Errorf("GET /v1/me = %+v, want %+v", me, registrations[99].user)
	}
	// The read model goes on from the log.
	if listed := c.users(t, admin, registrations[99].position); len(listed) != 102 {
		t.Errorf("without a broker %d users are listed, want 102", len(listed))
	}
	name, value = bearer(admin)
	eventually(t, "the outbox shows the backlog", func() error {
		outbox := into[struct {
			Lag          int64
			State, Error string
		}](t, c.want(t, http.StatusOK, "GET", "/v1/outbox", nil, name, value))
		if outbox.Lag < 100 || outbox.State != "retrying" || outbox.Error == "" {
			return fmt.Errorf("GET /v1/outbox = %+v", outbox)
		}
		return nil
	})

	if err := broker.Restart(); err != nil {
		t.Fatal(err)
	}
	log := d.history()
	wantRegistered(t, log, registrations)
	d.wantPublished(log)
	d.wantReadModel(c, log)
	eventually(t, "all is well again", func() error { return d.caughtUp(int64(len(log))) })
	p.alive(t)
	p.stop(t)
}

// The broker is not there when usher starts.
func TestBrokerComesLater(t *testing.T) {
	t.Parallel()
	d, broker := newRunningServer(t)
	broker.Kill()
	p, c := d.startServe("--with", "publisher,projections")
	r := c.mustRegister(t, "ada@example.org")
	if err := broker.Restart(); err != nil {
		t.Fatal(err)
	}
	waitForModel(t, d, r.position)
	c.users(t, c.login(t, d.admin), r.position)
	d.wantPublished(d.history())
	p.stop(t)
}

// waitForModel waits until relay and read model have a position, longer than a request would wait for it.
func waitForModel(t *testing.T, d *deployment, position int64) {
	t.Helper()
	eventually(t, "relay and read model follow", func() error { return d.caughtUp(position) })
}

// ownDatabase is a migrated database on a server that the test may stop.
func ownDatabase(t *testing.T) (*devstack.Postgres, string) {
	t.Helper()
	server := devstack.OwnPostgres(t, devstack.PostgresOptions{})
	dsn := server.DSN("postgres")
	if err := migrate(t.Context(), dsn); err != nil {
		t.Fatal(err)
	}
	return server, dsn
}

func TestDatabaseDown(t *testing.T) {
	t.Parallel()
	server, dsn := ownDatabase(t)
	broker := devstack.NATSProcess(t, t.TempDir(), 0)
	d := newServeDeployment(t, dsn, broker.URL())
	p, c := d.startServe("--with", "publisher,projections")
	registrations := []registration{c.mustRegister(t, "before@example.org")}
	admin := c.login(t, d.admin)
	c.users(t, admin, registrations[0].position)

	for round, end := range []func() error{server.Halt, server.Kill} {
		if err := end(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is not ready", func() error { return c.status(http.StatusServiceUnavailable, "/readyz") })
		if err := c.status(http.StatusOK, "/livez"); err != nil {
			t.Error(err)
		}
		name, value := bearer(admin)
		body := map[string]string{"email": "nobody@example.org", "password": userPassword}
		for _, request := range []struct {
			method, path string
			body         any
		}{
			{"GET", "/readyz", nil},
			{"POST", "/v1/auth/register", body},
			{"POST", "/v1/auth/login", body},
			{"GET", "/v1/users", nil},
			{"GET", "/v1/users/" + registrations[0].ID + "/events", nil},
			{"GET", "/v1/projections", nil},
			{"GET", "/v1/outbox", nil},
		} {
			begin := time.Now()
			a, err := c.call(request.method, request.path, request.body, name, value)
			if err != nil {
				t.Fatalf("%s %s: %v", request.method, request.path, err)
			}
			code := "unavailable"
			if request.path == "/v1/auth/register" && strings.Contains(string(a.body), "outcome_unknown") {
				code = "outcome_unknown" // the first to find that the server was killed can't know what became of its commit
			}
			wantProblem(t, a, http.StatusServiceUnavailable, code)
			if took := time.Since(begin); took > 10*time.Second {
				t.Errorf("%s %s took %v", request.method, request.path, took)
			}
		}
		if err := server.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.waitReady()
		registrations = append(registrations, c.mustRegister(t, fmt.Sprintf("after%d@example.org", round)))
		c.login(t, credentials{registrations[0].Email, userPassword})
	}
	p.alive(t)
	log := d.history()
	wantRegistered(t, log, registrations)
	waitForModel(t, d, int64(len(log)))
	d.wantPublished(log)
	d.wantReadModel(c, log)
	p.stop(t)
}

// The database dies under load. Whoever isn't told the outcome repeats with the same key and finds out.
func TestDatabaseKilledUnderLoad(t *testing.T) {
	t.Parallel()
	server, dsn := ownDatabase(t)
	broker := devstack.NATSProcess(t, t.TempDir(), 0)
	d := newServeDeployment(t, dsn, broker.URL())
	p, c := d.startServe("--with", "publisher,projections")

	const callers, each = 16, 20
	var (
		mu            sync.Mutex
		registrations []registration
		unanswered    int
		wg            sync.WaitGroup
	)
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(registrations)
	}
	for caller := range callers {
		wg.Go(func() {
			tick := time.NewTicker(50 * time.Millisecond)
			defer tick.Stop()
			for i := range each {
				email := fmt.Sprintf("user-%d-%d@example.org", caller, i)
				for {
					r, err := c.register(email, "Idempotency-Key", email)
					if err == nil {
						mu.Lock()
						registrations = append(registrations, r)
						mu.Unlock()
						break
					}
					refused, ok := err.(errNot201)
					if !ok || refused.status != http.StatusServiceUnavailable {
						t.Errorf("%s: %v", email, err)
						return
					}
					mu.Lock()
					unanswered++
					mu.Unlock()
					select {
					case <-tick.C:
					case <-t.Context().Done():
						return
					}
				}
			}
		})
	}
	for _, after := range []int{callers * each / 5, callers * each / 2} {
		eventually(t, "the load goes on", func() error {
			if n := count(); n < after {
				return fmt.Errorf("%d of %d", n, after)
			}
			return nil
		})
		if err := server.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := server.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	log := d.history()
	wantRegistered(t, log, registrations)
	wantOnce(t, log)
	if n := registeredUsers(log); n != callers*each+1 {
		t.Errorf("%d users, want the administrator and %d", n, callers*each)
	}
	t.Logf("%d answers were 503", unanswered)
	waitForModel(t, d, int64(len(log)))
	d.wantPublished(log)
	d.wantReadModel(c, log)
	p.stop(t)
}
