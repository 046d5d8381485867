package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"usher.example/eventstore"
	"usher.example/identity"
	"usher.example/identity/password"
	"usher.example/internal/devstack"
	"usher.example/server"
)

// expect is a problem that may pass: it says when to come back.
func expect(t *testing.T, a answer, status int, code identity.Code) {
	t.Helper()
	if a.status != status || a.field(t, "code") != string(code) {
		t.Errorf("%d %s, want %d %s", a.status, a.body, status, code)
	}
	if seconds, err := strconv.Atoi(a.header.Get("Retry-After")); status == 503 && (err != nil || seconds < 1) {
		t.Errorf("Retry-After %q", a.header.Get("Retry-After"))
	}
}

// The database goes away and comes back: 503 with Retry-After, and then as before, without a restart.
func TestDatabaseGone(t *testing.T) {
	t.Parallel()
	cluster := devstack.OwnPostgres(t, devstack.PostgresOptions{})
	dsn := cluster.DSN("postgres")
	if err := migratePostgres(t.Context(), dsn); err != nil {
		t.Fatal(err)
	}
	now := &clock{now: time.Now()}
	s := newStack(t, openPostgres(t, dsn), options{document: true, server: func(c *server.Config) { c.Now = now.read }})
	s.user("ada@example.org")
	if _, _, err := s.identity.EnsureAdmin(t.Context(), "admin@example.org", secret); err != nil {
		t.Fatal(err)
	}
	admin := "Bearer " + s.login("admin@example.org")
	if a := s.call("GET", "/readyz", ""); a.status != http.StatusOK {
		t.Errorf("ready: %d %s", a.status, a.body)
	}
	if err := cluster.Kill(); err != nil {
		t.Fatal(err)
	}
	now.add(time.Second) // for which readiness is kept
	expect(t, s.call("GET", "/readyz", ""), 503, identity.CodeUnavailable)
	if a := s.call("GET", "/readyz", ""); !strings.Contains(a.body, "database") || strings.Contains(a.body, "127.0.0.1") {
		t.Errorf("ready: %s, want the name of the check and nothing of the server", a.body)
	}
	// The first write may have been sent before its connection was found to be dead: then nobody knows.
	request := credentials("eve@example.org", secret)
	if a := s.call("POST", register, request, "Idempotency-Key", "k"); a.status != 503 || a.header.Get("Retry-After") == "" {
		t.Errorf("register: %d %s", a.status, a.body)
	}
	expect(t, s.call("POST", register, request, "Idempotency-Key", "k"), 503, identity.CodeUnavailable)
	expect(t, s.call("POST", login, credentials("ada@example.org", secret)), 503, identity.CodeUnavailable)
	for _, path := range []string{"/v1/users", "/v1/projections", "/v1/outbox"} {
		expect(t, s.call("GET", path, "", "Authorization", admin), 503, identity.CodeUnavailable)
	}
	if a := s.call("GET", "/livez", ""); a.status != http.StatusOK {
		t.Errorf("live: %d %s", a.status, a.body)
	}
	if err := cluster.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	devstack.Eventually(t, "ready again", func() bool {
		now.add(time.Second) // for which readiness is kept
		return s.call("GET", "/readyz", "").status == http.StatusOK
	})
	if a := s.call("POST", register, request, "Idempotency-Key", "k"); a.status != http.StatusCreated {
		t.Errorf("register: %d %s", a.status, a.body)
	}
	s.login("ada@example.org")
	s.login("eve@example.org")
}

type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) read() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// An answer that was lost on the way: the caller is told so, and the same request again tells how it ended.
func TestOutcomeUnknown(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, db, options{document: true})
		s.gate.loseReply.Store(true)
		request := credentials("ada@example.org", secret)
		a := s.call("POST", register, request, "Idempotency-Key", "k")
		expect(t, a, 503, identity.CodeOutcomeUnknown)
		if !strings.Contains(a.body, "same Idempotency-Key") {
			t.Errorf("%s does not say what to do", a.body)
		}
		a = s.call("POST", register, request, "Idempotency-Key", "k")
		if a.status != http.StatusCreated || a.field(t, "user", "email") != "ada@example.org" || a.header.Get("Usher-Position") != "1" {
			t.Errorf("again: %d %s", a.status, a.body)
		}
		if diff := cmp.Diff([]string{"user.registered"}, s.typesAfter(0)); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	})
}

func TestOverloaded(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, db, options{document: true, log: eventstore.Options{QueueLimit: 1}})
		s.user("ada@example.org")
		s.gate.shut.Lock()
		unlock := sync.OnceFunc(s.gate.shut.Unlock)
		defer unlock()
		var wg sync.WaitGroup
		defer wg.Wait()
		var created atomic.Int32
		for i := range 2 { // one is at the gate, one waits behind it
			wg.Go(func() {
				if s.call("POST", register, credentials(fmt.Sprintf("user%d@example.org", i), secret)).status == http.StatusCreated {
					created.Add(1)
				}
			})
			if i == 1 {
				devstack.Eventually(t, "an append waits", func() bool { return s.log.Waiting() == 1 })
			}
		}
		expect(t, s.call("POST", register, credentials("eve@example.org", secret)), 503, identity.CodeOverloaded)
		expect(t, s.call("POST", login, credentials("ada@example.org", secret)), 503, identity.CodeOverloaded)
		unlock()
		wg.Wait()
		if created.Load() != 2 {
			t.Errorf("%d of those that waited registered, want 2", created.Load())
		}
	})
}

// A full queue for hashing refuses at once, and nothing else is slowed down.
func TestHashingQueueFull(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, db, options{document: true, idle: true, pool: password.PoolConfig{Queue: 1, Workers: 1}})
		var wg sync.WaitGroup
		wg.Go(func() { s.call("POST", login, credentials("ada@example.org", secret)) })
		devstack.Eventually(t, "one waits for hashing", func() bool { return s.pool.Queued() == 1 })
		for _, path := range []string{register, login} {
			expect(t, s.call("POST", path, credentials("ada@example.org", secret)), 503, identity.CodeOverloaded)
		}
		if a := s.call("GET", "/readyz", ""); a.status != http.StatusOK {
			t.Errorf("ready: %d", a.status)
		}
		devstack.Background(t, s.pool.Run)
		wg.Wait()
	})
}

func TestASVS_6_3_8_RegistrationTellsNothing(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, db, options{document: true, identity: func(c *identity.Config) { c.EnumerationSafe = true }})
		request := body("email", "Ada@example.org", "password", secret, "name", "Ada")
		free := s.call("POST", register, request, "Idempotency-Key", "k")
		if free.status != http.StatusCreated || free.body != `{"user":{"email":"Ada@example.org","name":"Ada"}}`+"\n" {
			t.Errorf("%d %s", free.status, free.body)
		}
		taken := s.call("POST", register, request)
		repeated := s.call("POST", register, request, "Idempotency-Key", "k")
		for _, a := range []answer{free, taken, repeated} {
			for _, varies := range []string{"Date", "X-Request-Id"} {
				a.header.Del(varies)
			}
			if diff := cmp.Diff(free, a, cmp.AllowUnexported(answer{})); diff != "" {
				t.Errorf("the answer tells that the address is taken (-free +taken):\n%s", diff)
			}
		}
		// Nor does a key under which another address was registered before, by whether one's own is registered under it too.
		if a := s.call("POST", register, credentials("bea@example.org", secret), "Idempotency-Key", "k"); a.status != http.StatusCreated {
			t.Errorf("the same key, another address: %d %s", a.status, a.body)
		}
		// Nor does the time of a login that fails, to which memory and the database contribute.
		for _, address := range []string{"ada@example.org", "nobody@example.org"} {
			began := time.Now()
			s.want(s.call("POST", login, credentials(address, newSecret)), http.StatusUnauthorized, identity.CodeInvalidCredentials)
			if took := time.Since(began); took < server.EvenTime {
				t.Errorf("%s: the answer came after %v, want no sooner than after %v", address, took, server.EvenTime)
			}
		}
		if diff := cmp.Diff([]string{"user.registered", "user.registered"}, s.typesAfter(0)); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	})
}

// A read model that stands still: reads that ask for a position are told to come back, others are answered, and the
// commands don't mind.
func TestReadModelBehind(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, db, options{document: true, api: func(c *Config) { c.PositionWait = 50 * time.Millisecond }})
		if _, _, err := s.identity.EnsureAdmin(t.Context(), "admin@example.org", secret); err != nil {
			t.Fatal(err)
		}
		admin := "Bearer " + s.login("admin@example.org")
		expect(t, s.call("GET", "/v1/users", "", "Authorization", admin), 503, identity.CodeBehind) // it was never made
		if err := s.server.Projections.Pause(t.Context(), "users"); err == nil {
			t.Fatal("a projection that was never run was paused")
		}
		s.project()
		position := strconv.FormatInt(s.head(), 10)
		devstack.Eventually(t, "the read model is there", func() bool {
			return s.call("GET", "/v1/users", "", "Authorization", admin, "Usher-Min-Position", position).status == http.StatusOK
		})
		if err := s.server.Projections.Pause(t.Context(), "users"); err != nil {
			t.Fatal(err)
		}
		a := s.call("POST", register, credentials("ada@example.org", secret))
		if a.status != http.StatusCreated {
			t.Fatal(a)
		}
		s.login("ada@example.org")
		at := []string{"Authorization", admin, "Usher-Min-Position", a.header.Get("Usher-Position")}
		expect(t, s.call("GET", "/v1/users", "", at...), 503, identity.CodeBehind)
		if got := s.call("GET", "/v1/users/"+a.field(t, "user", "id"), "", at...); got.status != http.StatusOK {
			t.Errorf("the user's own state: %d %s", got.status, got.body)
		}
		if got := s.call("GET", "/v1/users", "", at[:2]...); got.status != http.StatusOK {
			t.Errorf("without a position: %d %s", got.status, got.body)
		}
	})
}

func TestPages(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, db, options{document: true})
		s.project()
		if _, _, err := s.identity.EnsureAdmin(t.Context(), "admin@example.org", secret); err != nil {
			t.Fatal(err)
		}
		id := s.user("ada@example.org")
		var want []string
		for i := range 6 { // the user, and the sessions
			want = append(want, fmt.Sprint(s.head()))
			if i < 5 {
				s.login("ada@example.org")
			}
		}
		admin := "Bearer " + s.login("admin@example.org")
		var positions []string
		cursor := ""
		for page := 0; page == 0 || cursor != ""; page++ {
			a := s.call("GET", "/v1/users/"+id.String()+"/events?limit=2&cursor="+cursor, "", "Authorization", admin)
			if a.status != http.StatusOK || page > 3 {
				t.Fatal(a)
			}
			for _, item := range strings.Split(a.body, `{"position":`)[1:] {
				positions = append(positions, item[:strings.IndexByte(item, ',')])
			}
			cursor = a.field(t, "next_cursor")
		}
		if diff := cmp.Diff(want, positions); diff != "" {
			t.Errorf("positions (-want +got):\n%s", diff)
		}
	})
}

// Run finishes what has begun, and takes nothing new.
func TestShutdown(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, db, options{})
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		stop := devstack.Background(t, func(ctx context.Context) error { return s.server.Run(ctx, listener) })
		s.http.URL = "http://" + listener.Addr().String()
		s.gate.shut.Lock()
		open := sync.OnceFunc(s.gate.shut.Unlock)
		t.Cleanup(open) // before that of the log, which waits for what has begun
		answered := make(chan int, 1)
		go func() { answered <- s.call("POST", register, credentials("ada@example.org", secret)).status }()
		// The append has begun, and can't be taken back.
		devstack.Eventually(t, "the request waits for its commit", func() bool { return s.gate.at.Load() == 1 })
		stopped := make(chan struct{})
		go func() { stop(); close(stopped) }()
		devstack.Eventually(t, "no new connections are taken", func() bool {
			conn, err := net.Dial("tcp", listener.Addr().String())
			if err == nil {
				conn.Close()
			}
			return err != nil
		})
		open()
		if status := receive(t, "the request that had begun", answered); status != http.StatusCreated {
			t.Errorf("the request that had begun: %d, want 201", status)
		}
		<-stopped
	})
}

// What is unknown is internal: told to the log, and not to the caller.
func TestUnknownError(t *testing.T) {
	t.Parallel()
	s := newStack(t, openSQLite(t), options{api: func(c *Config) {
		c.Outbox = func(context.Context) (Outbox, error) { return Outbox{}, errors.New("host db.internal is on fire") }
	}})
	if _, _, err := s.identity.EnsureAdmin(t.Context(), "admin@example.org", secret); err != nil {
		t.Fatal(err)
	}
	a := s.call("GET", "/v1/outbox", "", "Authorization", "Bearer "+s.login("admin@example.org"))
	if a.status != 500 || strings.Contains(a.body, "fire") || !strings.Contains(s.output.String(), "on fire") {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestMetadata(t *testing.T) {
	t.Parallel()
	s := newStack(t, openSQLite(t), options{server: func(c *server.Config) { c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")} }})
	const id, parent = "01980000-0000-7000-8000-000000000001", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	s.call("POST", register, credentials("ada@example.org", secret), "X-Request-Id", id, "Traceparent", parent, "User-Agent", strings.Repeat("é", 400))
	s.call("POST", register, credentials("eve@example.org", secret), "X-Request-Id", "<script>", "Traceparent", "x", "User-Agent", "a\tb")
	events, err := s.log.ReadAll(t.Context(), 0, 10)
	if err != nil || len(events) != 2 {
		t.Fatal(events, err)
	}
	m := events[0].Metadata
	if m.Correlation.String() != id || m.TraceParent != parent || m.Actor != "anonymous" || m.Address != "127.0.0.1" || m.UserAgent != strings.Repeat("é", 256) {
		t.Errorf("metadata %+v", m)
	}
	m = events[1].Metadata
	if m.Correlation.Version() != 7 || m.TraceParent != "" || m.UserAgent != "ab" {
		t.Errorf("metadata %+v", m)
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	s := newStack(t, openSQLite(t), options{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	devstack.Background(t, func(ctx context.Context) error {
		return server.ServeMetrics(ctx, listener, s.server.Registry, s.server.Checks, s.server.Logger)
	})
	s.user("ada@example.org")
	s.login("ada@example.org")
	s.call("POST", login, credentials("ada@example.org", "wrong password"))
	s.call("POST", register, credentials("ada@example.org", secret))
	s.call("GET", "/v1/users/1", "")
	s.call("GET", "/nowhere/"+secret, "")
	s.call("BREW", "/livez", "")
	s.http.URL = "http://" + listener.Addr().String()
	a := s.call("GET", "/metrics", "")
	for _, line := range []string{
		`usher_http_requests_total{method="POST",route="/v1/auth/login",status="200"} 1`,
		`usher_http_requests_total{method="GET",route="/v1/users/:id",status="401"} 1`,
		`usher_http_requests_total{method="GET",route="none",status="404"} 1`,
		`usher_http_requests_total{method="other",route="/livez",status="405"} 1`,
		`usher_http_request_seconds_count{method="POST",route="/v1/auth/login"} 2`,
		`usher_logins_total{outcome="ok"} 1`,
		`usher_logins_total{outcome="invalid_credentials"} 1`,
		`usher_registrations_total{outcome="email_taken"} 1`,
		`usher_hashing_queue 0`,
	} {
		if !strings.Contains(a.body, line+"\n") {
			t.Errorf("lacks %s", line)
		}
	}
	if strings.Contains(a.body, "horse") {
		t.Error("a path that a caller made up is a label")
	}
	if t.Failed() {
		t.Log(a.body)
	}
}
