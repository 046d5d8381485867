package pages

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"usher.example/client"
	"usher.example/eventstore"
	"usher.example/eventstore/postgres"
	"usher.example/eventstore/sqlite"
	"usher.example/identity"
	"usher.example/identity/dossier"
	"usher.example/identity/password"
	"usher.example/internal/devstack"
	"usher.example/internal/devstack/browser"
	"usher.example/internal/eventcheck"
	"usher.example/pages/look"
	"usher.example/projections"
	"usher.example/schema"
	"usher.example/server"
	"usher.example/token"
)

func TestMain(m *testing.M) {
	code := devstack.Main(m)
	browser.Stop()
	os.Exit(code)
}

// database is what both stores are.
type database interface {
	eventstore.Store
	eventstore.DB
	Close()
}

// onBoth runs a test on SQLite and on Postgres.
func onBoth(t *testing.T, test func(t *testing.T, db database)) {
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		test(t, openSQLite(t))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		test(t, openPostgres(t))
	})
}

func openSQLite(tb testing.TB) database {
	tb.Helper()
	path := devstack.SQLite(tb, "pages", func(ctx context.Context, path string) error {
		m, err := schema.SQLite(path)
		return migrate(ctx, m, err)
	})
	db, err := sqlite.Open(tb.Context(), path)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(db.Close)
	return db
}

func openPostgres(tb testing.TB) database {
	tb.Helper()
	dsn := devstack.Database(tb, "pages", func(ctx context.Context, dsn string) error {
		m, err := schema.Postgres(dsn)
		return migrate(ctx, m, err)
	})
	db, err := postgres.Open(tb.Context(), dsn, postgres.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(db.Close)
	return db
}

func migrate(ctx context.Context, m *schema.Migrator, err error) error {
	if err != nil {
		return err
	}
	_, err = m.Up(ctx)
	return errors.Join(err, m.Close())
}

// stack is a server of pages on a database of its own.
type stack struct {
	tb       testing.TB
	db       database
	log      *eventstore.Log
	identity *identity.Service
	clients  *client.Registry
	server   *server.Server
	http     *httptest.Server
	output   *devstack.Output // what is logged
	clock    *clock
}

// clock is the time, moved on by what a test says.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

func (c *clock) add(d time.Duration) { c.ahead.Add(int64(d)) }

// options of a stack.
type options struct {
	identity func(*identity.Config)
	server   func(*server.Config)
	master   *eventstore.MasterKey // a new one when nil
	db       database              // a new one on SQLite when nil
	look     look.Config
	public   string // the URL that it is reached at; where it is when empty
}

func newStack(tb testing.TB, o options) *stack {
	tb.Helper()
	db := o.db
	if db == nil {
		db = openSQLite(tb)
	}
	s := &stack{tb: tb, db: db, output: &devstack.Output{}, clock: &clock{}}
	store := eventcheck.Store(tb, db)
	if o.master == nil {
		o.master = newMaster(tb)
	}
	master := *o.master
	s.log = eventstore.New(store, master, eventstore.Options{})
	tb.Cleanup(func() {
		if err := s.log.Close(context.WithoutCancel(tb.Context())); err != nil {
			tb.Error(err)
		}
	})
	pool, err := password.NewPool(password.PoolConfig{Cost: password.MinCost})
	if err != nil {
		tb.Fatal(err)
	}
	devstack.Background(tb, pool.Run)
	logger := slog.New(slog.NewJSONHandler(s.output, &slog.HandlerOptions{Level: slog.LevelDebug}))
	revocations := token.NewRevocations(token.RevocationsConfig{Lifetime: time.Hour})
	config := identity.Config{Log: s.log, Store: store, DB: db, Passwords: pool, Rehash: true, Logger: logger, Now: s.clock.now,
		RefreshKey: master.Derive("refresh-tokens"), CodeKey: master.Derive("codes"), ReuseGrace: 10 * time.Second, AccessLifetime: time.Hour, SessionEnded: revocations.EndSession}
	if o.identity != nil {
		o.identity(&config)
	}
	s.clients = client.New(client.Config{Log: s.log, DB: db, Logger: logger, Now: s.clock.now, Current: func() bool { return s.identity.Current() }})
	config.ClientChanged = s.clients.Changed
	s.identity = identity.New(config)
	devstack.Background(tb, func(ctx context.Context) error { return s.identity.Follow(ctx, nil) })

	key, err := token.GenerateKey(token.ES256, time.Now())
	if err != nil {
		tb.Fatal(err)
	}
	keys, err := token.NewKeyRing(key)
	if err != nil {
		tb.Fatal(err)
	}
	verifier, err := token.NewVerifier(token.VerifierConfig{Keys: keys, Issuer: "https://usher.test", Audience: "usher", Revoked: revocations.Revoked})
	if err != nil {
		tb.Fatal(err)
	}
	serving := server.Config{Identity: s.identity, Log: s.log, Verifier: verifier, Clients: s.clients, Logger: logger, PlainHTTP: !strings.HasPrefix(o.public, "https:"), Now: s.clock.now}
	if o.server != nil {
		o.server(&serving)
	}
	s.server = server.New(serving)
	s.server.Routes(server.Surface{}).GET("/", server.Open, func(*server.Call) (server.Answer, error) {
		return server.OK(map[string]string{"service": "usher"}), nil
	})
	s.http = httptest.NewServer(s.server)
	tb.Cleanup(s.http.Close)
	if o.look.Brand.Name == "" {
		o.look.Brand.Name = "Usher Test"
	}
	l, err := look.New(o.look)
	if err != nil {
		tb.Fatal(err)
	}
	if o.public == "" {
		o.public = strings.Replace(s.http.URL, "127.0.0.1", "localhost", 1)
	}
	if err := Register(s.server, Config{Look: l, PublicURL: o.public, Activity: projections.Activity{DB: db}, Exports: &server.Exports{Archive: dossier.Archive{Log: s.log, DB: db, Users: s.identity}}}); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("log output:\n%s", s.output)
		}
	})
	return s
}

const secret = "correct horse battery staple"

// user registers a user.
func (s *stack) user(email string) uuid.UUID {
	s.tb.Helper()
	r, err := s.identity.Register(s.tb.Context(), identity.Registration{Email: email, Password: secret, Name: "Ada", Metadata: metadata()})
	if err != nil {
		s.tb.Fatal(err)
	}
	return r.User.ID
}

func metadata() eventstore.Metadata {
	return eventstore.Metadata{Correlation: uuid.Must(uuid.NewV7())}
}

// code makes a user's code for a purpose, as a mail that is sent does.
func (s *stack) code(user uuid.UUID, p identity.Purpose) string {
	s.tb.Helper()
	code, _, err := s.identity.NewCode(s.tb.Context(), user, p)
	if err != nil {
		s.tb.Fatal(err)
	}
	return string(code)
}

func (s *stack) read(user uuid.UUID) *identity.User {
	s.tb.Helper()
	u, err := s.identity.ReadUser(s.tb.Context(), user)
	if err != nil {
		s.tb.Fatal(err)
	}
	return u
}

func (s *stack) head() int64 {
	s.tb.Helper()
	head, err := s.log.Head(s.tb.Context())
	if err != nil {
		s.tb.Fatal(err)
	}
	return head
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
}

// get asks for a page as a browser does; headers are names and values.
func (s *stack) get(path string, headers ...string) answer {
	s.tb.Helper()
	return s.call(http.MethodGet, path, nil, headers...)
}

// post sends a form as a browser does.
func (s *stack) post(path string, form url.Values, headers ...string) answer {
	s.tb.Helper()
	return s.call(http.MethodPost, path, form, append([]string{"Sec-Fetch-Site", "same-origin"}, headers...)...)
}

func (s *stack) call(method, path string, form url.Values, headers ...string) answer {
	s.tb.Helper()
	r, err := http.NewRequestWithContext(s.tb.Context(), method, s.http.URL+path, strings.NewReader(form.Encode()))
	if err != nil {
		s.tb.Fatal(err)
	}
	r.Header.Set("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Del(headers[i])
		if headers[i+1] != "" {
			r.Header.Set(headers[i], headers[i+1])
		}
	}
	response, err := http.DefaultTransport.RoundTrip(r) // which follows nothing
	if err != nil {
		s.tb.Fatal(err)
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		s.tb.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, string(raw)}
}

func newMaster(tb testing.TB) *eventstore.MasterKey {
	tb.Helper()
	master, _ := eventstore.NewMasterKey()
	return &master
}
