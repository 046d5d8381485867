package test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"usher.example/internal/devstack"
)

// site is where a deployment of the test keeps its data.
type site struct {
	*deployment
	serve    func() (*process, *client) // starts what answers and publishes
	database string                     // directory of its files
	broker   string
	settle   func() // checkpoint and vacuum, once nothing runs any more
	backup   func() // while nothing runs
	restore  func()
}

// eraseSites are a deployment on Postgres and one of `usher dev`.
var eraseSites = map[string]func(t *testing.T) site{
	"postgres": func(t *testing.T) site {
		// What was in the write-ahead log is removed and not kept for reuse.
		server := devstack.OwnPostgres(t, devstack.PostgresOptions{Settings: map[string]string{"wal_recycle": "off", "min_wal_size": "32MB"}})
		admin := func(database string, statements ...string) {
			t.Helper()
			conn, err := pgx.Connect(t.Context(), server.DSN(database))
			if err != nil {
				t.Fatal(err)
			}
			for _, statement := range statements {
				if _, err := conn.Exec(t.Context(), statement); err != nil {
					t.Fatalf("%s: %v", statement, err)
				}
			}
			if err := conn.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		admin("postgres", "CREATE DATABASE usher")
		if err := migrate(t.Context(), server.DSN("usher")); err != nil {
			t.Fatal(err)
		}
		s := site{broker: t.TempDir()}
		s.deployment = newServeDeployment(t, server.DSN("usher"), devstack.NATSProcess(t, s.broker, 0).URL())
		s.env = append(s.env, "ERASURE_LEDGER="+filepath.Join(s.dir, "erasures.log"))
		s.serve = func() (*process, *client) { return s.startServe("--with", "publisher,projections") }
		s.settle = func() {
			admin("usher", "VACUUM (FULL, ANALYZE)", "CHECKPOINT", "SELECT pg_switch_wal()", "CHECKPOINT")
		}
		s.backup = func() { admin("postgres", "CREATE DATABASE backup TEMPLATE usher") }
		s.restore = func() { admin("postgres", "DROP DATABASE usher", "ALTER DATABASE backup RENAME TO usher") }
		conn, err := pgx.Connect(t.Context(), server.DSN("postgres"))
		if err == nil {
			err = errors.Join(conn.QueryRow(t.Context(), "SHOW data_directory").Scan(&s.database), conn.Close(t.Context()))
		}
		if err != nil {
			t.Fatal(err)
		}
		return s
	},
	"dev": func(t *testing.T) site {
		s := site{deployment: newDeployment(t)}
		s.database, s.broker = filepath.Join(s.dir, "data"), filepath.Join(s.dir, "data", "nats")
		s.serve = func() (*process, *client) {
			p, c := s.startDev()
			if s.admin.email == "" {
				s.takeAdmin(p)
			}
			return p, c
		}
		s.settle = func() {
			db, err := sql.Open("sqlite", filepath.Join(s.database, "usher.db"))
			if err != nil {
				t.Fatal(err)
			}
			for _, statement := range []string{"VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"} {
				if _, err := db.ExecContext(t.Context(), statement); err != nil {
					t.Fatalf("%s: %v", statement, err)
				}
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
		}
		copyFile := func(from, to string) {
			raw, err := os.ReadFile(filepath.Join(s.database, from))
			if err == nil {
				err = os.WriteFile(filepath.Join(s.database, to), raw, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		s.backup = func() { copyFile("usher.db", "backup.db") }
		s.restore = func() { copyFile("backup.db", "usher.db") }
		return s
	},
}

// Twenty of two hundred users are erased while all of them go about their business. Nothing of the twenty can be read any
// more, anywhere, nor found in any file; nothing happened to the others.
func TestErasure(t *testing.T) {
	t.Parallel()
	for name, open := range eraseSites {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testErasure(t, open(t))
		})
	}
}

func testErasure(t *testing.T, s site) {
	s.env = append(s.env, "USER_ATTRIBUTES=note", "RATE_LIMITS=off")
	s.keepSecret(userPassword)
	p, c := s.serve()
	people := make([]*person, 80**dose)
	for i := range people {
		people[i] = newPerson()
	}
	forAll(t, people, func(_ int, p *person) error { return p.settle(c) })
	leaving, staying := people[:len(people)/10], people[len(people)/10:]
	before := s.history()
	eventually(t, "relay and read models have caught up", func() error { return s.caughtUp(int64(len(before))) })
	stream := s.stream()
	if seen := found(t, s.broker); seen[leaving[0].mark+inEmail] == 0 || seen[leaving[0].mark+inAgent] == 0 {
		t.Fatal("the search of the broker's files finds nothing of those who are about to leave")
	}

	stopLoad := s.load(c, leaving, staying)
	begin := time.Now()
	admin := c.login(t, s.admin)
	forAll(t, leaving, func(i int, p *person) error {
		method, path, token, body := "DELETE", "/v1/me", p.token, any(map[string]string{"current_password": userPassword})
		if i%2 == 0 {
			path, token, body = "/v1/users/"+p.id, admin, nil
		}
		name, value := bearer(token)
		a, err := c.call(method, path, body, name, value)
		if err == nil && a.status != http.StatusNoContent {
			err = fmt.Errorf("%s %s: %d %s", method, path, a.status, a.body)
		}
		if err == nil {
			p.erased, err = a.position()
		}
		return err
	})
	t.Logf("erased %d users in %v", len(leaving), time.Since(begin).Round(time.Millisecond))
	for _, p := range leaving {
		s.wantForgotten(c, admin, stream, p)
	}
	t.Logf("nothing of them can be read %v after the first was erased", time.Since(begin).Round(time.Millisecond))
	stopLoad()

	s.wantUntouched(c, admin, before, leaving, staying)
	s.command("events", "verify")
	s.command("check")
	if m := trace.FindString(s.metrics(p)); m != "" {
		t.Errorf("the metrics have %s", m)
	}
	p.stop(t)
	if m := trace.FindString(p.stdout.String() + p.stderr.String()); m != "" && !s.onSQLite() { // usher dev shows mails in its log
		t.Errorf("the process logged %s", m)
	}
	s.settle()
	wantGone(t, "database", s.database, people, inEmail+inNewName+inAttribute)
	wantGone(t, "broker", s.broker, people, traces)
	if n := len(s.ledger()); n != len(leaving) {
		t.Errorf("the ledger has %d users, want %d", n, len(leaving))
	}

	p, c = s.serve()
	admin = c.login(t, s.admin)
	name, value := bearer(admin)
	for _, gone := range leaving[:5] {
		again := c.want(t, http.StatusNoContent, "DELETE", "/v1/users/"+gone.id, nil, name, value)
		if at, err := again.position(); err != nil || at != gone.erased {
			t.Errorf("erased again at %d, %v, want the answer of the first time, %d", at, err, gone.erased)
		}
		if anew := c.mustRegister(t, gone.email()); anew.ID == gone.id {
			t.Error("who registered with the address of somebody erased is that user")
		}
	}
	p.stop(t)
}

// A backup that is restored does not bring back who was erased after it was made: they are erased again before the first
// request is answered, and before anything is published.
func TestErasureOutlivesARestore(t *testing.T) {
	t.Parallel()
	for name, open := range eraseSites {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testRestoredUsers(t, open(t))
		})
	}
}

func testRestoredUsers(t *testing.T, s site) {
	s.env = append(s.env, "USER_ATTRIBUTES=note")
	s.keepSecret(userPassword)
	ada, bob := newPerson(), newPerson()
	p, c := s.serve()
	for _, who := range []*person{ada, bob} {
		if err := who.settle(c); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "relay and read models have caught up", func() error { return s.caughtUp(int64(len(s.history()))) })
	p.stop(t)
	s.backup()

	p, c = s.serve()
	name, value := bearer(c.login(t, ada.credentials()))
	c.want(t, http.StatusNoContent, "DELETE", "/v1/me", map[string]string{"current_password": userPassword}, name, value)
	p.stop(t)
	s.restore()

	p, c = s.serve()
	first := c.want(t, http.StatusUnauthorized, "POST", "/v1/auth/login", map[string]string{"email": ada.email(), "password": userPassword})
	wantProblem(t, first, http.StatusUnauthorized, "invalid_credentials")
	name, value = bearer(c.login(t, s.admin))
	c.want(t, http.StatusNotFound, "GET", "/v1/users/"+ada.id, nil, name, value)
	for who, want := range map[*person]bool{ada: false, bob: true} {
		if a := c.want(t, http.StatusOK, "GET", "/v1/users?query="+who.mark, nil, name, value); strings.Contains(string(a.body), who.id) != want {
			t.Errorf("the read model after the restore: %s, want the user there: %v", a.body, want)
		}
	}
	if _, err := bob.login(c); err != nil {
		t.Error(err)
	}
	if list := s.ledger(); len(list) != 1 || !list[ada.id] {
		t.Errorf("the ledger has %v, want the one user", list)
	}

	s.command("outbox", "reset", "--yes")
	log := s.history()
	eventually(t, "the relay goes on", func() error { return s.caughtUp(int64(len(log))) })
	for _, e := range log {
		if e.Subject == ada.id && e.Type == "user.erased" {
			ada.erased = e.Position
		}
	}
	if err := ada.onlyErasureIn(t.Context(), s.stream()); err != nil {
		t.Error(err)
	}
	p.stop(t)
	wantGone(t, "broker", s.broker, []*person{ada, bob}, inEmail)
}

// An erasure that was asked for, and that the process did not come to, is done by the time the next one answers.
func TestErasureCutShort(t *testing.T) {
	t.Parallel()
	s := eraseSites["dev"](t)
	s.env = append(s.env, "USER_ATTRIBUTES=note")
	s.keepSecret(userPassword)
	ada := newPerson()
	p, c := s.serve()
	if err := ada.settle(c); err != nil {
		t.Fatal(err)
	}
	p.stop(t)
	db, err := sql.Open("sqlite", filepath.Join(s.database, "usher.db"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.ExecContext(t.Context(), "INSERT INTO erasures (subject, actor, requested_at) VALUES ($1, 'operator', '2026-01-01 00:00:00.000000')", ada.id)
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	p, c = s.serve()
	first := c.want(t, http.StatusUnauthorized, "POST", "/v1/auth/login", map[string]string{"email": ada.email(), "password": userPassword})
	wantProblem(t, first, http.StatusUnauthorized, "invalid_credentials")
	if list := s.ledger(); !list[ada.id] {
		t.Errorf("the ledger has %v, want the user", list)
	}
	p.stop(t)
}

// Whoever has no ledger is told what that means, and users are erased all the same.
func TestErasureWithoutALedger(t *testing.T) {
	t.Parallel()
	d, _ := newRunningServer(t)
	p, c := d.startServe()
	if text := p.stderr.String(); !strings.Contains(text, "ERASURE_LEDGER is not set") {
		t.Errorf("the log says nothing of the ledger:\n%s", text)
	}
	name, value := bearer(c.login(t, d.admin))
	ada := c.mustRegister(t, "ada@example.org")
	c.want(t, http.StatusNoContent, "DELETE", "/v1/users/"+ada.ID, nil, name, value)
	c.want(t, http.StatusNotFound, "GET", "/v1/users/"+ada.ID, nil, name, value)
	p.stop(t)
}

// load has everybody log in, read and change their profiles, and an administrator look, until stop is called. Those who
// leave may be refused; nothing may fail.
func (s site) load(c *client, leaving, staying []*person) (stop func()) {
	t := s.t
	admin := c.login(t, s.admin)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for worker := range 3 {
		wg.Go(func() {
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for i := worker; ctx.Err() == nil; i++ {
				<-tick.C
				stays := i%3 == 0
				p := leaving[i%len(leaving)]
				if stays {
					p = staying[i%len(staying)]
				}
				name, value := bearer(p.token)
				for what, do := range map[string]func() (answer, error){
					"log in": func() (answer, error) {
						return c.call("POST", "/v1/auth/login", map[string]string{"email": p.email(), "password": userPassword}, "User-Agent", p.mark+inAgent)
					},
					"me": func() (answer, error) { return c.call("GET", "/v1/me", nil, name, value) },
					"profile": func() (answer, error) {
						return c.call("PATCH", "/v1/me", map[string]any{"name": p.mark + inNewName}, name, value)
					},
					"sessions": func() (answer, error) { return c.call("GET", "/v1/me/sessions", nil, name, value) },
					"list": func() (answer, error) {
						name, value := bearer(admin)
						return c.call("GET", "/v1/users?query="+p.mark, nil, name, value)
					},
				} {
					a, err := do()
					refused := []int{http.StatusServiceUnavailable}
					if !stays {
						refused = append(refused, http.StatusUnauthorized, http.StatusNotFound, http.StatusTooManyRequests)
					}
					if err != nil || a.status != http.StatusOK && !slices.Contains(refused, a.status) {
						t.Errorf("%s of somebody who stays (%v): %d %s, %v", what, stays, a.status, a.body, err)
						return
					}
				}
			}
		})
	}
	return func() {
		cancel()
		wg.Wait()
	}
}

// wantForgotten waits until nothing of a person can be read any more: through the API, in the log, in the read model, in
// the stream.
func (s site) wantForgotten(c *client, admin string, stream jetstream.Stream, p *person) {
	t := s.t
	t.Helper()
	name, value := bearer(admin)
	eventually(t, "nothing of an erased user can be read", func() error {
		for path, want := range map[string]int{"/v1/users/" + p.id: http.StatusNotFound, "/v1/users/" + p.id + "/events": http.StatusOK, "/v1/users?query=" + p.mark: http.StatusOK} {
			a, err := c.call("GET", path, nil, name, value)
			if err == nil && (a.status != want || trace.Match(a.body)) {
				err = fmt.Errorf("GET %s = %d %s", path, a.status, a.body)
			}
			if err != nil {
				return err
			}
		}
		if _, err := p.login(c); err == nil {
			return errors.New("an erased user can log in")
		}
		return p.onlyErasureIn(t.Context(), stream)
	})
}

// onlyErasureIn says by its error what the stream has of a person beside the end.
func (p *person) onlyErasureIn(ctx context.Context, stream jetstream.Stream) error {
	told := false
	for at := uint64(1); ; {
		m, err := stream.GetMsg(ctx, at, jetstream.WithGetMsgSubject("usher.v1."+shard(p.id)+".>"))
		switch {
		case errors.Is(err, jetstream.ErrMsgNotFound) && told:
			return nil
		case err != nil:
			return fmt.Errorf("the stream's messages about %s end before %d: %w", p.id, at, err)
		case m.Header.Get("ce-subject") != p.id:
		case int64(m.Sequence) != p.erased || m.Subject != "usher.v1."+shard(p.id)+".user.erased":
			return fmt.Errorf("the stream has %s at %d", m.Subject, m.Sequence)
		default:
			told = true
		}
		at = m.Sequence + 1
	}
}

// wantUntouched fails unless every event has the position that it had, and those who stay are as they were.
func (s site) wantUntouched(c *client, admin string, before []event, leaving, staying []*person) {
	t := s.t
	t.Helper()
	gone := map[string]bool{}
	for _, p := range leaving {
		gone[p.id] = true
	}
	log := s.history()
	for i, e := range before {
		if gone[e.Subject] {
			e.Data.Email, e.Data.Name = "", ""
		}
		if log[i] != e {
			t.Fatalf("position %d was %+v and is %+v", i+1, e, log[i])
		}
	}
	users := c.users(t, admin, int64(len(log)))
	for _, p := range staying {
		if u := users[p.id]; u.Email != p.email() || u.Name != p.mark+inNewName {
			t.Fatalf("a user who stays is %+v in the read model, want %s", u, p.email())
		}
	}
	if len(users) != len(staying)+1 {
		t.Errorf("the read model has %d users, want %d and the administrator", len(users), len(staying))
	}
	for _, p := range staying[:20] {
		if _, err := p.login(c); err != nil {
			t.Error(err)
		}
	}
}

// stream is the JetStream stream.
func (s site) stream() jetstream.Stream {
	s.t.Helper()
	js, err := jetstream.New(s.connect())
	if err != nil {
		s.t.Fatal(err)
	}
	stream, err := js.Stream(s.t.Context(), "USHER")
	if err != nil {
		s.t.Fatal(err)
	}
	return stream
}

// metrics are those of a process.
func (s site) metrics(p *process) string {
	s.t.Helper()
	var addr string
	if s.onSQLite() {
		var at addresses
		raw, err := os.ReadFile(filepath.Join(s.database, "addresses.json"))
		if err := errors.Join(err, json.Unmarshal(raw, &at)); err != nil {
			s.t.Fatal(err)
		}
		addr = at.Metrics
	} else {
		_, addr = p.listening(s.t)
	}
	return string(s.client(addr).want(s.t, http.StatusOK, "GET", "/metrics", nil).body)
}

// ledger are the users in the erasure ledger.
func (s site) ledger() map[string]bool {
	s.t.Helper()
	path := s.setting("ERASURE_LEDGER")
	if path == "" {
		path = filepath.Join(s.database, "erasures.log")
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	users := map[string]bool{}
	for line := range strings.Lines(string(raw)) {
		_, id, _ := strings.Cut(strings.TrimSpace(line), " ")
		users[id] = true
	}
	return users
}
