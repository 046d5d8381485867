package webhook_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"usher.example/eventstore"
	"usher.example/eventstore/cloudevent"
	"usher.example/eventstore/postgres"
	"usher.example/eventstore/sqlite"
	"usher.example/identity"
	"usher.example/internal/devstack"
	"usher.example/internal/eventcheck"
	"usher.example/publisher"
	"usher.example/publisher/webhook"
	"usher.example/schema"
)

func TestMain(m *testing.M) {
	runIfWorker()
	os.Exit(devstack.Main(m))
}

// database is what both stores are.
type database interface {
	eventstore.Store
	eventstore.DB
	Close()
}

// stack is a log on one of the stores that is published to a broker of its own.
type stack struct {
	tb      testing.TB
	db      database
	place   string // DSN or path
	master  eventstore.MasterKey
	text    string // of the master key
	log     *eventstore.Log
	broker  *devstack.NATSServer
	js      jetstream.JetStream
	service *webhook.Service
	metrics *webhook.Metrics
	output  *devstack.Output
	clock   *clock
}

// onBoth runs a test on SQLite and on Postgres.
func onBoth(t *testing.T, test func(t *testing.T, s *stack)) {
	for name, place := range map[string]func(testing.TB) string{"sqlite": newSQLite, "postgres": newPostgres} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newStack(t, place(t)))
		})
	}
}

func newPostgres(tb testing.TB) string {
	return devstack.Database(tb, "webhook", func(ctx context.Context, dsn string) error {
		m, err := schema.Postgres(dsn)
		if err != nil {
			return err
		}
		_, err = m.Up(ctx)
		return errors.Join(err, m.Close())
	})
}

func newSQLite(tb testing.TB) string {
	path := filepath.Join(tb.TempDir(), "usher.db")
	m, err := schema.SQLite(path)
	if err != nil {
		tb.Fatal(err)
	}
	_, err = m.Up(tb.Context())
	if err = errors.Join(err, m.Close()); err != nil {
		tb.Fatal(err)
	}
	return path
}

func openDatabase(ctx context.Context, place string) (database, error) {
	if strings.HasPrefix(place, "postgres") {
		return postgres.Open(ctx, place, postgres.Options{})
	}
	return sqlite.Open(ctx, place)
}

// loopback is where the receivers of these tests are.
var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

const source = "https://id.example.org"

func newStack(tb testing.TB, place string, change ...func(*webhook.Config)) *stack {
	tb.Helper()
	db, err := openDatabase(tb.Context(), place)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(db.Close)
	s := &stack{tb: tb, db: db, place: place, broker: devstack.NATS(tb), output: &devstack.Output{}, clock: &clock{}}
	s.master, s.text = eventstore.NewMasterKey()
	s.log = eventstore.New(eventcheck.Store(tb, db), s.master, eventstore.Options{})
	conn, err := s.broker.Connect(nats.ReconnectBufSize(-1))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(conn.Close)
	if s.js, err = jetstream.New(conn); err != nil {
		tb.Fatal(err)
	}
	logger := slog.New(slog.NewTextHandler(s.output, &slog.HandlerOptions{Level: slog.LevelDebug}))
	relay, err := publisher.New(publisher.Config{Log: s.log, DB: db, Conn: conn, Source: source, Logger: logger, ScrubEvery: -1, Poll: 20 * time.Millisecond})
	if err != nil {
		tb.Fatal(err)
	}
	devstack.Background(tb, relay.Run)
	s.service = s.newService(change...)
	s.metrics = webhook.NewMetrics()
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("log output:\n%s", s.output)
		}
	})
	return s
}

// newService makes a service whose retries come soon.
func (s *stack) newService(change ...func(*webhook.Config)) *webhook.Service {
	c := webhook.Config{
		Log: s.log, DB: s.db, Source: source, Allow: loopback, Timeout: 5 * time.Second, Retries: 3, RetryDelay: 20 * time.Millisecond,
		Logger: slog.New(slog.NewTextHandler(s.output, &slog.HandlerOptions{Level: slog.LevelDebug})), Now: s.clock.now,
	}
	for _, f := range change {
		f(&c)
	}
	return webhook.New(c)
}

// work runs a worker until stop is called or the test ends.
func (s *stack) work(change ...func(*webhook.Worker)) (stop func()) {
	w := &webhook.Worker{
		Service: s.service, JetStream: s.js, LeaseTTL: time.Second, Poll: 20 * time.Millisecond, Metrics: s.metrics,
	}
	for _, f := range change {
		f(w)
	}
	return devstack.Background(s.tb, w.Run)
}

// clock is the time of day, which tests may put forward.
type clock struct {
	mu    sync.Mutex
	ahead time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.ahead)
}

func (c *clock) forward(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
}

// create makes a webhook for a receiver.
func (s *stack) create(url string, events ...string) (webhook.Webhook, webhook.Secret) {
	s.tb.Helper()
	hook, secret, err := s.service.Create(s.tb.Context(), webhook.Wish{URL: url, Events: events})
	if err != nil {
		s.tb.Fatal(err)
	}
	return hook, secret
}

func (s *stack) get(id uuid.UUID) webhook.Webhook {
	s.tb.Helper()
	hook, err := s.service.Get(s.tb.Context(), id)
	if err != nil {
		s.tb.Fatal(err)
	}
	return hook
}

func (s *stack) deliveries(id uuid.UUID, status webhook.DeliveryStatus) []webhook.Delivery {
	s.tb.Helper()
	list, err := s.service.Deliveries(s.tb.Context(), id, webhook.DeliveryFilter{Status: status, Limit: webhook.MaxLimit})
	if err != nil {
		s.tb.Fatal(err)
	}
	return list
}

// register makes a user, whose address is as given.
func (s *stack) register(email string) uuid.UUID {
	s.tb.Helper()
	user, err := registerIn(s.tb.Context(), s.log, email)
	if err != nil {
		s.tb.Fatal(err)
	}
	return user
}

func registerIn(ctx context.Context, log *eventstore.Log, email string) (uuid.UUID, error) {
	user := uuid.Must(uuid.NewV7())
	var p identity.Registered
	p.Personal.Email, p.Personal.Name = email, "Ada"
	_, err := log.Append(ctx, eventstore.Append{
		Stream: eventstore.UserStream(user), CreateKey: true, Events: []eventstore.NewEvent{identity.NewEvent(p)},
		Metadata: eventstore.Metadata{Correlation: user, Actor: identity.ActorAnonymous, Address: "192.0.2.1"},
	})
	return user, err
}

// append appends to a user's stream.
func (s *stack) append(user uuid.UUID, payloads ...identity.Payload) {
	s.tb.Helper()
	if err := appendTo(s.tb.Context(), s.log, eventstore.UserStream(user), payloads...); err != nil {
		s.tb.Fatal(err)
	}
}

func appendTo(ctx context.Context, log *eventstore.Log, stream eventstore.Stream, payloads ...identity.Payload) error {
	a := eventstore.Append{Stream: stream, Expected: eventstore.AnyVersion, Metadata: eventstore.Metadata{Correlation: uuid.Must(uuid.NewV7())}}
	for _, p := range payloads {
		a.Events = append(a.Events, identity.NewEvent(p))
	}
	_, err := log.Append(ctx, a)
	return err
}

func (s *stack) events(after int64) []eventstore.Event {
	s.tb.Helper()
	events, err := s.log.ReadAll(s.tb.Context(), after, 100_000)
	if err != nil {
		s.tb.Fatal(err)
	}
	return events
}

// received is a request that a receiver got.
type received struct {
	header http.Header
	body   []byte
	event  cloudevent.Document
}

// receiver is an endpoint: it keeps what it gets and answers as it is told.
type receiver struct {
	tb     testing.TB
	server *httptest.Server

	mu    sync.Mutex
	got   []received
	reply func(w http.ResponseWriter, r *http.Request, got received) // 204 when nil
}

func newReceiver(tb testing.TB) *receiver {
	r := &receiver{tb: tb}
	r.server = httptest.NewServer(r)
	r.server.Config.ErrorLog = slog.NewLogLogger(slog.NewTextHandler(io.Discard, nil), slog.LevelError)
	tb.Cleanup(r.server.Close)
	return r
}

func (r *receiver) url() string { return r.server.URL + "/hooks?token=not-in-the-log" }

// answer makes the receiver answer in some way from now on.
func (r *receiver) answer(reply func(w http.ResponseWriter, r *http.Request, got received)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reply = reply
}

func (r *receiver) status(code int) {
	r.answer(func(w http.ResponseWriter, _ *http.Request, _ received) { w.WriteHeader(code) })
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	if err != nil { // the worker went away
		return
	}
	got := received{header: request.Header, body: body}
	if err := unmarshal(body, &got.event); err != nil {
		r.tb.Errorf("received %s: %v", body, err)
	}
	r.mu.Lock()
	r.got = append(r.got, got)
	reply := r.reply
	r.mu.Unlock()
	if reply == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	reply(w, request, got)
}

func (r *receiver) all() []received {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]received(nil), r.got...)
}

func (r *receiver) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.got)
}

// await waits until the receiver got a number of requests.
func (r *receiver) await(n int) []received {
	r.tb.Helper()
	devstack.Eventually(r.tb, fmt.Sprintf("%d requests", n), func() bool { return r.count() >= n })
	return r.all()
}

// verify checks a signature as a receiver does, with the library of Standard Webhooks.
func verify(tb testing.TB, secret webhook.Secret, got received) error {
	tb.Helper()
	verifier, err := standardwebhooks.NewWebhook(secret.Reveal())
	if err != nil {
		tb.Fatal(err)
	}
	return verifier.Verify(got.body, got.header)
}
