package mail

import (
	"context"
	"log/slog"
	netmail "net/mail"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"usher.example/eventstore"
	"usher.example/eventstore/postgres"
	"usher.example/eventstore/sqlite"
	"usher.example/identity"
	"usher.example/identity/password"
	"usher.example/internal/devstack"
	"usher.example/internal/devstack/browser"
	"usher.example/internal/devstack/mailserver"
	"usher.example/internal/eventcheck"
	"usher.example/publisher"
	"usher.example/schema"
)

func TestMain(m *testing.M) {
	code := devstack.Main(m)
	browser.Stop()
	os.Exit(code)
}

// stack is a deployment without an API: a log on one of the stores, a relay, and a mail server.
type stack struct {
	db     eventstore.DB
	log    *eventstore.Log
	users  *identity.Service
	master eventstore.MasterKey
	broker *devstack.NATSServer
	js     jetstream.JetStream
	relay  *publisher.Relay
	server *mailserver.Server
	clock  *clock
	output *devstack.Output // what is logged
}

// eachStore runs a test on Postgres and on SQLite.
func eachStore(t *testing.T, test func(t *testing.T, s *stack)) {
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		dsn := devstack.Database(t, "mail", func(ctx context.Context, dsn string) error {
			m, err := schema.Postgres(dsn)
			if err != nil {
				return err
			}
			defer m.Close()
			_, err = m.Up(ctx)
			return err
		})
		store, err := postgres.Open(t.Context(), dsn, postgres.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(store.Close)
		test(t, newStack(t, store, store))
	})
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "usher.db")
		m, err := schema.SQLite(path)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		if _, err := m.Up(t.Context()); err != nil {
			t.Fatal(err)
		}
		store, err := sqlite.Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(store.Close)
		test(t, newStack(t, store, store))
	})
}

func newStack(t *testing.T, store eventstore.Store, db eventstore.DB) *stack {
	t.Helper()
	s := &stack{db: db, broker: devstack.NATS(t), server: mailserver.Start(t, mailserver.Options{}), clock: &clock{}, output: &devstack.Output{}}
	s.master, _ = eventstore.NewMasterKey()
	s.log = eventstore.New(eventcheck.Store(t, store), s.master, eventstore.Options{})
	t.Cleanup(func() {
		if err := s.log.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log("log output:\n" + s.output.String())
		}
	})
	pool, err := password.NewPool(password.PoolConfig{Cost: password.MinCost})
	if err != nil {
		t.Fatal(err)
	}
	devstack.Background(t, func(ctx context.Context) error { pool.Run(ctx); return nil }) //nolint:errcheck // the end of ctx
	s.users = identity.New(identity.Config{
		Log: s.log, Store: store, DB: db, Passwords: pool, Now: s.clock.Now,
		RefreshKey: s.master.Derive("refresh-tokens"), CodeKey: s.master.Derive("codes"),
	})
	conn, err := s.broker.Connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	if s.js, err = jetstream.New(conn); err != nil {
		t.Fatal(err)
	}
	if s.relay, err = publisher.New(publisher.Config{Log: s.log, DB: db, Conn: conn, Source: "urn:usher:test", Logger: s.logger()}); err != nil {
		t.Fatal(err)
	}
	devstack.Background(t, s.relay.Run)
	return s
}

func (s *stack) logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(s.output, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// smtp is a transport to the stack's mail server.
func (s *stack) smtp(t *testing.T, change func(*SMTPConfig)) *SMTP {
	t.Helper()
	server, err := ParseServer(s.server.URL(), "")
	if err != nil {
		t.Fatal(err)
	}
	c := SMTPConfig{From: netmail.Address{Name: "Usher ✓", Address: "no-reply@usher.test"}, Hello: "usher.test", Timeout: 10 * time.Second}
	if change != nil {
		change(&c)
	}
	return NewSMTP(server, c)
}

// mailer makes a mailer, as another process would.
func (s *stack) mailer(t *testing.T, change func(*Config)) *Mailer {
	t.Helper()
	c := Config{
		Log: s.log, DB: s.db, Users: s.users, JetStream: s.js, Transport: s.smtp(t, nil), Letters: lettersOf(t, LettersConfig{}),
		DeviceKey: s.master.Derive("devices"), LeaseTTL: time.Second, Registry: prometheus.NewRegistry(), Logger: s.logger(), Now: s.clock.Now,
	}
	if change != nil {
		change(&c)
	}
	m, err := New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// lettersOf makes letters that link to https://usher.test unless it is said otherwise.
func lettersOf(tb testing.TB, c LettersConfig) *Letters {
	tb.Helper()
	if c.AccountURL == nil {
		c.AccountURL = &url.URL{Scheme: "https", Host: "usher.test"}
	}
	if c.Brand.Name == "" {
		c.Brand.Name = "Usher"
	}
	l, err := NewLetters(c)
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

// started makes a mailer and runs it until the test ends.
func (s *stack) started(t *testing.T, change func(*Config)) *Mailer {
	t.Helper()
	m := s.mailer(t, change)
	devstack.Background(t, m.Run)
	return m
}

const secret password.Password = "correct horse battery staple"

// register registers a user, and answers with the id.
func (s *stack) register(t *testing.T, email string) uuid.UUID {
	t.Helper()
	r, err := s.users.Register(t.Context(), identity.Registration{
		Email: email, Password: secret, Name: "Ada http://evil.test", Metadata: eventstore.Metadata{Actor: identity.ActorAnonymous, Address: "192.0.2.1", UserAgent: "a browser"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return r.User.ID
}

// append appends to a user's stream.
func (s *stack) append(t *testing.T, user uuid.UUID, actor string, p identity.Payload) {
	t.Helper()
	s.appendTo(t, eventstore.UserStream(user), eventstore.Metadata{Actor: actor, Address: "192.0.2.9", UserAgent: "<b>Firefox</b> http://evil.test"}, p)
}

func (s *stack) appendTo(t *testing.T, stream eventstore.Stream, m eventstore.Metadata, p identity.Payload) {
	t.Helper()
	_, err := s.log.Append(t.Context(), eventstore.Append{Stream: stream, Expected: eventstore.AnyVersion, Events: []eventstore.NewEvent{identity.NewEvent(p)}, Metadata: m})
	if err != nil {
		t.Fatal(err)
	}
}

// login starts a session of a user from an address.
func (s *stack) login(t *testing.T, user uuid.UUID, address, agent string) {
	t.Helper()
	s.appendTo(t, eventstore.SessionStream(uuid.Must(uuid.NewV7()), user), eventstore.Metadata{Actor: identity.ActorUser(user), Address: address, UserAgent: agent},
		identity.SessionStarted{Methods: []string{identity.MethodPassword}, ExpiresAt: time.Now().Add(time.Hour)})
}

// await waits until the mail server has got so many mails, and answers with the newest.
func (s *stack) await(t *testing.T, n int) mailserver.Mail {
	t.Helper()
	devstack.Eventually(t, "the mail", func() bool { return len(s.server.Mails()) >= n })
	mails := s.server.Mails()
	if len(mails) > n {
		t.Fatalf("%d mails, want %d", len(mails), n)
	}
	return mails[n-1]
}

// settle waits until every event was read and nothing is to be sent at once.
func (s *stack) settle(t *testing.T) {
	t.Helper()
	head, err := s.log.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	devstack.Eventually(t, "every mail is dealt with", func() bool {
		var at, due int64
		err := s.db.QueryRow(t.Context(), `SELECT checkpoint, (SELECT count(*) FROM mails WHERE claimed OR due_at <= $1) FROM subscriptions WHERE name = 'mail'`,
			s.clock.Now().UTC().Add(firstBackoff/2)).Scan(&at, &due)
		return err == nil && at >= head && due == 0
	})
}

// published waits until the relay has published the log.
func (s *stack) published(t *testing.T) {
	t.Helper()
	devstack.Eventually(t, "the log is published", func() bool {
		head, err := s.log.Head(t.Context())
		status := s.relay.Status()
		return err == nil && status.State == publisher.StateRunning && status.Published >= head
	})
}

// wantCount holds a counter of the mailer against what it should be.
func (m *Mailer) wantCount(t *testing.T, k kind, outcome string, want float64) {
	t.Helper()
	if got := testutil.ToFloat64(m.sent.WithLabelValues(string(k), outcome)); got != want {
		t.Errorf("usher_mails_total{kind=%q,outcome=%q} = %v, want %v", k, outcome, got, want)
	}
}

func (m *Mailer) signal() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// clock is the real one, put forward by as much as a test wants.
type clock struct {
	mu    sync.Mutex
	ahead time.Duration
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.ahead)
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
}
