package projections_test

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/eventstore"
	"usher.example/eventstore/cloudevent"
	"usher.example/eventstore/postgres"
	"usher.example/eventstore/sqlite"
	"usher.example/internal/devstack"
	"usher.example/internal/eventcheck"
	"usher.example/projections"
	"usher.example/schema"
	"usher.example/subscription"
)

func TestMain(m *testing.M) {
	runIfChild()
	os.Exit(devstack.Main(m))
}

// database is what both stores are.
type database interface {
	eventstore.Store
	eventstore.DB
}

// stack is a log on one of the stores, and a broker whose stream the test fills itself, so that it can decide what the
// stream lacks.
type stack struct {
	db          database
	log         *eventstore.Log
	unchecked   *eventstore.Log // appends what is against the schemas: what a newer release or a defect may append
	broker      *devstack.NATSServer
	js          jetstream.JetStream
	checkpoints *projections.Checkpoints
	users       []uuid.UUID
	place       string // DSN or path
	master      eventstore.MasterKey
	masterText  string
	random      *rand.Rand
	output      *devstack.Output
}

// eachStore runs a test on Postgres and on SQLite.
func eachStore(t *testing.T, test func(t *testing.T, s *stack)) {
	for name, open := range map[string]func(testing.TB) (database, string){"postgres": openPostgres, "sqlite": openSQLite} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, place := open(t)
			s := newStack(t, db)
			s.place = place
			test(t, s)
		})
	}
}

func openPostgres(tb testing.TB) (db database, dsn string) {
	dsn = devstack.Database(tb, "usher", func(ctx context.Context, dsn string) error {
		m, err := schema.Postgres(dsn)
		if err != nil {
			return err
		}
		defer m.Close()
		_, err = m.Up(ctx)
		return err
	})
	// Tests name tables as on SQLite. That usher itself names their schema is for the test of roles.sql to see.
	store, err := postgres.Open(tb.Context(), dsn, postgres.Options{Configure: func(c *pgxpool.Config) {
		c.ConnConfig.RuntimeParams["search_path"] = "readmodels, public"
	}})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(store.Close)
	return store, dsn
}

func openSQLite(tb testing.TB) (db database, path string) {
	path = devstack.SQLite(tb, "projections", func(ctx context.Context, path string) error {
		m, err := schema.SQLite(path)
		if err != nil {
			return err
		}
		_, err = m.Up(ctx)
		return errors.Join(err, m.Close())
	})
	store, err := sqlite.Open(tb.Context(), path)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(store.Close)
	return store, path
}

func newStack(tb testing.TB, db database) *stack {
	master, text := eventstore.NewMasterKey()
	s := &stack{
		db:          db,
		master:      master,
		masterText:  text,
		log:         eventstore.New(eventcheck.Store(tb, db), master, eventstore.Options{}),
		unchecked:   eventstore.New(db, master, eventstore.Options{}),
		broker:      devstack.NATS(tb),
		checkpoints: projections.NewCheckpoints(db),
		random:      rand.New(rand.NewPCG(1, 2)),
		output:      &devstack.Output{},
	}
	conn, err := s.broker.Connect()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(conn.Close)
	if s.js, err = jetstream.New(conn); err != nil {
		tb.Fatal(err)
	}
	s.createStream(tb, 1)
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Log("log output:\n" + s.output.String())
		}
	})
	return s
}

// notLogged fails the test if a text was logged.
func (s *stack) notLogged(tb testing.TB, text string) {
	tb.Helper()
	if s.output.Contains(text) {
		tb.Errorf("the log says %q", text)
	}
}

func (s *stack) createStream(tb testing.TB, first uint64) {
	tb.Helper()
	_, err := s.js.CreateStream(tb.Context(), jetstream.StreamConfig{
		Name: subscription.Stream, Subjects: []string{cloudevent.SubjectPrefix + ">"}, FirstSeq: first, AllowDirect: true,
	})
	if err != nil {
		tb.Fatal(err)
	}
}

// publish copies the log to the stream from its end on, as the relay does.
func (s *stack) publish(tb testing.TB, o cloudevent.Options) {
	tb.Helper()
	stream, err := s.js.Stream(tb.Context(), subscription.Stream)
	if err != nil {
		tb.Fatal(err)
	}
	events, err := s.log.ReadAll(tb.Context(), int64(stream.CachedInfo().State.LastSeq), 100_000)
	if err != nil {
		tb.Fatal(err)
	}
	for _, e := range events {
		s.publishOne(tb, e, o)
	}
}

func (s *stack) publishOne(tb testing.TB, e eventstore.Event, o cloudevent.Options) {
	tb.Helper()
	header, body := cloudevent.Encode(e, o)
	_, err := s.js.PublishMsg(tb.Context(), &nats.Msg{Subject: cloudevent.Subject(e), Header: header, Data: body},
		jetstream.WithExpectLastSequence(uint64(e.Position-1)))
	if err != nil {
		tb.Fatalf("publish %d: %v", e.Position, err)
	}
}

func (s *stack) runner() *projections.Runner {
	return &projections.Runner{
		Projection: projections.UserProjection{}, DB: s.db, Log: s.log, Checkpoints: s.checkpoints, JetStream: s.js,
		LeaseTTL: time.Second, Poll: 100 * time.Millisecond,
		Logger: slog.New(slog.NewTextHandler(s.output, nil)),
	}
}

func (s *stack) operator(ps ...projections.Projection) *projections.Operator {
	if ps == nil {
		ps = []projections.Projection{projections.UserProjection{}}
	}
	return &projections.Operator{
		Projections: ps, DB: s.db, Log: s.log, BatchSize: 100, LeaseTTL: time.Second, Poll: 20 * time.Millisecond,
		Logger: slog.New(slog.NewTextHandler(s.output, nil)),
	}
}

// start runs a runner until stop is called or the test ends.
func start(tb testing.TB, r *projections.Runner) (stop func()) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				tb.Errorf("Run() = %v, want nil", err)
			}
		case <-time.After(10 * time.Second):
			tb.Error("Run does not end")
		}
	})
	tb.Cleanup(stop)
	return stop
}

// await waits until the read model has reached the head of the log.
func (s *stack) await(tb testing.TB) {
	tb.Helper()
	head, err := s.log.Head(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	devstack.Eventually(tb, "the projection is known", func() bool {
		list, err := s.checkpoints.List(tb.Context())
		return err == nil && len(list) > 0
	})
	ctx, cancel := context.WithTimeout(tb.Context(), time.Minute)
	defer cancel()
	if err := s.checkpoints.Await(ctx, projections.UsersName, head); err != nil {
		tb.Fatal(err)
	}
}
