package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/brand"
	"usher.example/client"
	"usher.example/eventstore"
	"usher.example/eventstore/postgres"
	"usher.example/eventstore/sqlite"
	"usher.example/identity"
	"usher.example/identity/dossier"
	"usher.example/identity/password"
	"usher.example/internal/devstack"
	"usher.example/internal/eventcheck"
	"usher.example/oidc"
	"usher.example/pages/look"
	"usher.example/projections"
	"usher.example/publisher/webhook"
	"usher.example/schema"
	"usher.example/server"
	"usher.example/token"
)

func TestMain(m *testing.M) { os.Exit(devstack.Main(m)) }

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
		dsn := devstack.Database(t, "api", func(ctx context.Context, dsn string) error { return migratePostgres(ctx, dsn) })
		test(t, openPostgres(t, dsn))
	})
}

func openSQLite(tb testing.TB) database {
	path := devstack.SQLite(tb, "api", func(ctx context.Context, path string) error {
		m, err := schema.SQLite(path)
		if err != nil {
			return err
		}
		_, err = m.Up(ctx)
		return errors.Join(err, m.Close())
	})
	s, err := sqlite.Open(tb.Context(), path)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Close)
	return s
}

func migratePostgres(ctx context.Context, dsn string) error {
	m, err := schema.Postgres(dsn)
	if err != nil {
		return err
	}
	_, err = m.Up(ctx)
	return errors.Join(err, m.Close())
}

func openPostgres(tb testing.TB, dsn string) database {
	s, err := postgres.Open(tb.Context(), dsn, postgres.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Close)
	return s
}

// stack is a whole server on one database.
type stack struct {
	tb       testing.TB
	db       database
	gate     *gate
	log      *eventstore.Log
	identity *identity.Service
	pool     *password.Pool
	key      token.Key
	keys     *token.KeyRing
	server   *api
	http     *httptest.Server
	output   *devstack.Output // what is logged
	document *document
}

// options of a stack.
type options struct {
	identity func(*identity.Config)
	server   func(*server.Config)
	api      func(*Config)
	log      eventstore.Options
	pool     password.PoolConfig
	idle     bool // the pool does not run
	document bool // answers are held against the document
}

const (
	issuerName = "https://usher.test"
	audience   = "usher"
)

func newStack(tb testing.TB, db database, o options) *stack {
	tb.Helper()
	s := &stack{tb: tb, db: db, output: &devstack.Output{}}
	s.gate = &gate{Store: eventcheck.Store(tb, db)}
	master, _ := eventstore.NewMasterKey()
	s.log = eventstore.New(s.gate, master, o.log)
	tb.Cleanup(func() {
		if err := s.log.Close(context.WithoutCancel(tb.Context())); err != nil {
			tb.Error(err)
		}
	})
	if o.pool.Cost == 0 {
		o.pool.Cost = password.MinCost
	}
	logger := slog.New(slog.NewJSONHandler(s.output, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	if s.pool, err = password.NewPool(o.pool); err != nil {
		tb.Fatal(err)
	}
	if !o.idle {
		devstack.Background(tb, s.pool.Run)
	}
	revocations := token.NewRevocations(token.RevocationsConfig{Lifetime: time.Hour})
	config := identity.Config{Log: s.log, Store: s.gate, DB: db, Passwords: s.pool, Rehash: true, Logger: logger,
		RefreshKey: master.Derive("refresh-tokens"), CodeKey: master.Derive("codes"), ReuseGrace: 10 * time.Second, AccessLifetime: time.Hour, SessionEnded: revocations.EndSession}
	clients := client.New(client.Config{Log: s.log, DB: db, Logger: logger, Current: func() bool { return s.identity.Current() }})
	config.ClientChanged = clients.Changed
	if o.identity != nil {
		o.identity(&config)
	}
	s.identity = identity.New(config)
	devstack.Background(tb, func(ctx context.Context) error { return s.identity.Follow(ctx, nil) })

	if s.key, err = token.GenerateKey(token.ES256, time.Now()); err != nil {
		tb.Fatal(err)
	}
	s.keys, err = token.NewKeyRing(s.key)
	if err != nil {
		tb.Fatal(err)
	}
	issuer, err := token.NewIssuer(token.IssuerConfig{Keys: s.keys, Issuer: issuerName, Audience: []string{audience}, Lifetime: time.Hour})
	if err != nil {
		tb.Fatal(err)
	}
	verifier, err := token.NewVerifier(token.VerifierConfig{Keys: s.keys, Issuer: issuerName, Audience: audience, Bound: true, Revoked: revocations.Revoked})
	if err != nil {
		tb.Fatal(err)
	}
	cursorKey := master.Derive("cursors")
	base := server.Config{
		Identity: s.identity, Log: s.log, Verifier: verifier, Clients: clients, PublicURL: "https://usher.test/", NonceKey: master.Derive("dpop-nonces"),
		Checks: []server.Check{{Name: "database", Run: func(ctx context.Context) error {
			_, err := db.Head(ctx)
			return err
		}}},
		Logger: logger, ShutdownWait: time.Minute, // no test depends on how fast the machine is
	}
	if o.server != nil {
		o.server(&base)
	}
	c := Config{
		Passwords: s.pool, Issuer: issuer, PublicURL: "https://usher.test/",
		Users:       projections.Users{DB: db, CursorKey: cursorKey},
		Sessions:    projections.Sessions{DB: db, CursorKey: cursorKey},
		Activity:    projections.Activity{DB: db},
		Stats:       projections.Stats{DB: db},
		Checkpoints: projections.NewCheckpoints(db),
		Projections: &projections.Operator{Projections: everyProjection, DB: db, Log: s.log, Logger: logger, RequestWait: time.Minute},
		Webhooks: webhook.New(webhook.Config{
			Log: s.log, DB: db, Source: "https://usher.test", Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Logger: logger,
		}),
		Outbox: func(ctx context.Context) (Outbox, error) {
			head, err := s.log.Head(ctx)
			return Outbox{Head: head, Published: head, State: "running"}, err
		},
		Exports:   &server.Exports{Archive: dossier.Archive{Log: s.log, DB: db, Users: s.identity}},
		CursorKey: cursorKey, PositionWait: time.Minute,
	}
	if o.api != nil {
		o.api(&c)
	}
	front := server.New(base)
	s.server = newAPI(front, c)
	s.server.routes()
	if err := oidc.Register(front, oidc.Config{Issuer: issuer, Keys: s.keys, PublicURL: c.PublicURL, Look: pageLook(tb), CodeKey: master.Derive("authorization-codes")}); err != nil {
		tb.Fatal(err)
	}
	s.http = httptest.NewServer(s.server)
	tb.Cleanup(s.http.Close)
	if o.document {
		s.document = loadDocument(tb)
	}
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("log output:\n%s", s.output)
		}
	})
	return s
}

// pageLook is how the pages look of those that speak of OAuth.
func pageLook(tb testing.TB) *look.Look {
	tb.Helper()
	l, err := look.New(look.Config{Brand: brand.Brand{Name: "usher"}})
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

var everyProjection = []projections.Projection{
	projections.UserProjection{}, projections.SessionProjection{}, projections.ActivityProjection{}, projections.StatsProjection{},
}

// project keeps the read models up to date until the test ends, or stop is called. Nothing relays, so they are filled from
// the log.
func (s *stack) project() (stop func()) {
	s.tb.Helper()
	conn, err := devstack.NATS(s.tb).Connect()
	if err != nil {
		s.tb.Fatal(err)
	}
	s.tb.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		s.tb.Fatal(err)
	}
	var stops []func()
	for _, p := range everyProjection {
		r := &projections.Runner{
			Projection: p, DB: s.db, Log: s.log, Checkpoints: s.server.Checkpoints, JetStream: js,
			Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Poll: 100 * time.Millisecond,
		}
		stops = append(stops, devstack.Background(s.tb, r.Run))
	}
	return func() {
		for _, stop := range stops {
			stop()
		}
	}
}

// gate is a store whose commits can be held up, or lose their answer.
type gate struct {
	eventstore.Store
	shut      sync.RWMutex
	at        atomic.Int32 // commits that are at it
	loseReply atomic.Bool
	onSubject atomic.Pointer[func(limit int) error]
}

// subjects has a function be told of each read of a user's events, and fail it; nil for none.
func (g *gate) subjects(on func(limit int) error) {
	if on == nil {
		g.onSubject.Store(nil)
		return
	}
	g.onSubject.Store(&on)
}

func (g *gate) ReadSubject(ctx context.Context, user uuid.UUID, after int64, limit int) ([]eventstore.Event, error) {
	if on := g.onSubject.Load(); on != nil {
		if err := (*on)(limit); err != nil {
			return nil, err
		}
	}
	return g.Store.ReadSubject(ctx, user, after, limit)
}

func (g *gate) Commit(ctx context.Context, batch []*eventstore.Prepared) ([]eventstore.Outcome, error) {
	g.at.Add(1)
	defer g.at.Add(-1)
	g.shut.RLock()
	defer g.shut.RUnlock()
	outcomes, err := g.Store.Commit(ctx, batch)
	if err == nil && g.loseReply.Swap(false) {
		return nil, eventstore.ErrOutcomeUnknown
	}
	return outcomes, err
}

// receive waits for what comes of something, as long as devstack.Eventually does.
func receive[T any](tb testing.TB, what string, from <-chan T) T {
	tb.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(time.Minute):
		tb.Fatalf("nothing came of: %s", what)
		panic("unreachable")
	}
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
}

// field is a field of the answer's body, as text. The path has names, and numbers for the elements of lists.
func (a answer) field(tb testing.TB, path ...string) string {
	tb.Helper()
	raw := json.RawMessage(a.body)
	for _, name := range path {
		if at, err := strconv.Atoi(name); err == nil {
			var list []json.RawMessage
			if err := json.Unmarshal(raw, &list); err != nil || at >= len(list) {
				tb.Fatalf("%s of %s: %v", strings.Join(path, "."), a.body, err)
			}
			raw = list[at]
			continue
		}
		var object map[string]json.RawMessage
		if err := json.Unmarshal(raw, &object); err != nil {
			tb.Fatalf("%s of %s: %v", strings.Join(path, "."), a.body, err)
		}
		raw = object[name]
	}
	var text string
	if json.Unmarshal(raw, &text) != nil {
		return string(raw)
	}
	return text
}

// call sends a request; headers are names and values.
func (s *stack) call(method, path, body string, headers ...string) answer {
	s.tb.Helper()
	r, err := http.NewRequestWithContext(s.tb.Context(), method, s.http.URL+path, strings.NewReader(body))
	if err != nil {
		s.tb.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i+1] == "" {
			r.Header.Del(headers[i])
		} else {
			r.Header.Set(headers[i], headers[i+1])
		}
	}
	response, err := s.http.Client().Do(r)
	if err != nil {
		s.tb.Fatal(err)
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		s.tb.Fatal(err)
	}
	a := answer{response.StatusCode, response.Header, string(raw)}
	if s.document != nil && method != http.MethodHead { // which has no body to look at
		s.document.check(s.tb, r, body, a)
	}
	return a
}

const secret = "correct horse battery staple"

// user registers a user and appends events to the user's stream.
func (s *stack) user(email string, payloads ...identity.Payload) uuid.UUID {
	s.tb.Helper()
	r, err := s.identity.Register(s.tb.Context(), identity.Registration{
		Email: email, Password: secret, Name: "Name of " + email, Metadata: eventstore.Metadata{Correlation: uuid.Must(uuid.NewV7())},
	})
	if err != nil {
		s.tb.Fatal(err)
	}
	for _, p := range payloads {
		s.append(r.User.ID, p)
	}
	return r.User.ID
}

// append appends to a user's stream, as another process would.
func (s *stack) append(id uuid.UUID, p identity.Payload) {
	s.tb.Helper()
	_, err := s.log.Append(s.tb.Context(), eventstore.Append{
		Stream: eventstore.UserStream(id), Expected: eventstore.AnyVersion, Events: []eventstore.NewEvent{identity.NewEvent(p)},
		Metadata: eventstore.Metadata{Correlation: uuid.Must(uuid.NewV7())},
	})
	if err != nil {
		s.tb.Fatal(err)
	}
}

// login logs a user in and answers with the access token.
func (s *stack) login(email string) string {
	s.tb.Helper()
	a := s.call("POST", "/v1/auth/login", `{"email":"`+email+`","password":"`+secret+`"}`)
	if a.status != http.StatusOK {
		s.tb.Fatalf("login of %s: %d %s", email, a.status, a.body)
	}
	return a.field(s.tb, "access_token")
}

func (s *stack) head() int64 {
	s.tb.Helper()
	head, err := s.log.Head(s.tb.Context())
	if err != nil {
		s.tb.Fatal(err)
	}
	return head
}

// typesAfter are the types of the events after a position.
func (s *stack) typesAfter(position int64) []string {
	s.tb.Helper()
	events, err := s.log.ReadAll(s.tb.Context(), position, 1000)
	if err != nil {
		s.tb.Fatal(err)
	}
	var list []string
	for _, e := range events {
		list = append(list, e.Type)
	}
	return list
}
