package subscription_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/eventstore"
	"usher.example/eventstore/cloudevent"
	"usher.example/eventstore/sqlite"
	"usher.example/identity"
	"usher.example/internal/devstack"
	"usher.example/internal/eventcheck"
	"usher.example/schema"
	"usher.example/subscription"
)

func TestMain(m *testing.M) { os.Exit(devstack.Main(m)) }

// stack is a log and a broker whose stream the test fills itself, so that it can decide what the stream lacks.
type stack struct {
	log    *eventstore.Log
	broker *devstack.NATSServer
	js     jetstream.JetStream
	output *devstack.Output
}

func setup(tb testing.TB) *stack {
	tb.Helper()
	s := &stack{log: openLog(tb), broker: devstack.NATS(tb), output: &devstack.Output{}}
	s.js = connect(tb, s.broker)
	s.createStream(tb, jetstream.StreamConfig{})
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Log("log output:\n" + s.output.String())
		}
	})
	return s
}

func openLog(tb testing.TB) *eventstore.Log {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "usher.db")
	m, err := schema.SQLite(path)
	if err != nil {
		tb.Fatal(err)
	}
	defer m.Close()
	if _, err := m.Up(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	store, err := sqlite.Open(tb.Context(), path)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(store.Close)
	master, _ := eventstore.NewMasterKey()
	return eventstore.New(eventcheck.Store(tb, store), master, eventstore.Options{})
}

func connect(tb testing.TB, broker *devstack.NATSServer, options ...nats.Option) jetstream.JetStream {
	tb.Helper()
	conn, err := broker.Connect(options...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		tb.Fatal(err)
	}
	return js
}

func (s *stack) createStream(tb testing.TB, c jetstream.StreamConfig) {
	tb.Helper()
	c.Name, c.Subjects, c.AllowDirect = subscription.Stream, []string{cloudevent.SubjectPrefix + ">"}, true
	const storeFailed jetstream.ErrorCode = 10049 // for a moment after a stream of the same name was deleted
	devstack.Eventually(tb, "the stream is made", func() bool {
		_, err := s.js.CreateStream(tb.Context(), c)
		var answer *jetstream.APIError
		if err != nil && (!errors.As(err, &answer) || answer.ErrorCode != storeFailed) {
			tb.Fatal(err)
		}
		return err == nil
	})
}

func (s *stack) stream(tb testing.TB) jetstream.Stream {
	tb.Helper()
	stream, err := s.js.Stream(tb.Context(), subscription.Stream)
	if err != nil {
		tb.Fatal(err)
	}
	return stream
}

// append appends n events to the streams of users in turn: with personal fields, the first of a user is
// "user.registered", the others "user.profile_updated".
func (s *stack) append(tb testing.TB, n int, users ...uuid.UUID) {
	tb.Helper()
	var registered identity.Registered
	registered.Personal.Email, registered.Personal.Name = "ann@example.org", "Ann"
	var renamed identity.ProfileUpdated
	renamed.Personal.Name = &registered.Personal.Name
	together := 1
	if len(users) == 1 {
		together = n
	}
	for i := 0; i < n; i += together {
		user := users[i%len(users)]
		known := i >= len(users)
		if !known {
			first, err := s.log.ReadStream(tb.Context(), user, 0, 1)
			if err != nil {
				tb.Fatal(err)
			}
			known = len(first) > 0
		}
		a := eventstore.Append{Stream: eventstore.UserStream(user), Expected: eventstore.AnyVersion}
		for range together {
			a.Events = append(a.Events, identity.NewEvent(renamed))
		}
		if !known {
			a.Expected, a.CreateKey, a.Events[0] = eventstore.NoStream, true, identity.NewEvent(registered)
		}
		if _, err := s.log.Append(tb.Context(), a); err != nil {
			tb.Fatal(err)
		}
	}
}

// publish copies the log to the stream from its end on, as the relay does.
func (s *stack) publish(tb testing.TB, o cloudevent.Options) {
	tb.Helper()
	info, err := s.stream(tb).Info(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	events, err := s.log.ReadAll(tb.Context(), int64(info.State.LastSeq), 100_000)
	if err != nil {
		tb.Fatal(err)
	}
	answers := make([]jetstream.PubAckFuture, 0, len(events))
	for _, e := range events {
		header, body := cloudevent.Encode(e, o)
		answer, err := s.js.PublishMsgAsync(&nats.Msg{Subject: cloudevent.Subject(e), Header: header, Data: body},
			jetstream.WithExpectLastSequence(uint64(e.Position-1)), jetstream.WithStallWait(time.Minute))
		if err != nil {
			tb.Fatalf("publish %d: %v", e.Position, err)
		}
		answers = append(answers, answer)
	}
	for i, answer := range answers {
		select {
		case <-answer.Ok():
		case err := <-answer.Err():
			tb.Fatalf("publish %d: %v", events[i].Position, err)
		case <-tb.Context().Done():
			tb.Fatal(context.Cause(tb.Context()))
		}
	}
}

func (s *stack) head(tb testing.TB) int64 {
	tb.Helper()
	head, err := s.log.Head(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	return head
}

// ledger is what a handler keeps: the events it handled and, with them, its checkpoint.
type ledger struct {
	mu         sync.Mutex
	events     []eventstore.Event
	checkpoint int64
	largest    int // batch
	turn       sync.Mutex
	moved      chan struct{}
}

func newLedger() *ledger { return &ledger{moved: make(chan struct{})} }

func (l *ledger) handle(_ context.Context, events []eventstore.Event) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, events...)
	l.checkpoint = events[len(events)-1].Position
	l.largest = max(l.largest, len(events))
	close(l.moved)
	l.moved = make(chan struct{})
	return nil
}

func (l *ledger) read(context.Context) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.checkpoint, nil
}

// await waits until the checkpoint is at a position.
func (l *ledger) await(tb testing.TB, position int64) {
	tb.Helper()
	deadline := time.After(20 * time.Second)
	for {
		l.mu.Lock()
		at, moved := l.checkpoint, l.moved
		l.mu.Unlock()
		if at >= position {
			return
		}
		select {
		case <-moved:
		case <-deadline:
			tb.Fatalf("the checkpoint is at %d, want %d", at, position)
		}
	}
}

// exact says that every event of the log was handled once, in order.
func (l *ledger) exact(tb testing.TB, s *stack) {
	tb.Helper()
	want, err := s.log.ReadAll(tb.Context(), 0, 100_000)
	if err != nil {
		tb.Fatal(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.events) != len(want) {
		tb.Errorf("%d events handled, want %d", len(l.events), len(want))
	}
	for i := range min(len(want), len(l.events)) {
		if got := l.events[i]; got.Position != want[i].Position || got.ID != want[i].ID || string(got.Payload()) != string(want[i].Payload()) {
			tb.Fatalf("event %d: handled %d %s %s, want %d %s %s", i, got.Position, got.ID, got.Payload(), want[i].Position, want[i].ID, want[i].Payload())
		}
	}
}

// on makes a subscription whose handler is a ledger.
func (s *stack) on(l *ledger) *subscription.Subscription {
	return &subscription.Subscription{
		JetStream: s.js, Name: "test", Checkpoint: l.read, Handle: l.handle, Source: s.log, MaxBatch: 100,
		Logger: slog.New(slog.NewTextHandler(s.output, nil)),
	}
}

// guarded makes a subscription whose handler refuses a batch that does not begin at the checkpoint, as a transaction with
// a compare-and-set does.
func (s *stack) guarded(l *ledger) *subscription.Subscription {
	sub := s.on(l)
	sub.Handle = func(ctx context.Context, events []eventstore.Event) error {
		l.turn.Lock()
		defer l.turn.Unlock()
		if at, _ := l.read(ctx); events[0].Position != at+1 {
			return fmt.Errorf("the checkpoint is at %d", at)
		}
		return l.handle(ctx, events)
	}
	return sub
}

// start runs a subscription until stop is called or the test ends, and says how it ended.
func start(tb testing.TB, s *subscription.Subscription) (stop func() error) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return ended(tb, done)
	})
	tb.Cleanup(func() {
		if err := stop(); err != nil {
			tb.Errorf("Run() = %v, want nil", err)
		}
	})
	return stop
}

func ended(tb testing.TB, done <-chan error) error {
	tb.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(20 * time.Second):
		tb.Error("Run does not end")
		return errors.New("Run does not end")
	}
}

// run runs a subscription until it ends by itself.
func run(tb testing.TB, s *subscription.Subscription) error {
	tb.Helper()
	done := make(chan error, 1)
	go func() { done <- s.Run(tb.Context()) }()
	return ended(tb, done)
}

func newUsers(n int) []uuid.UUID {
	users := make([]uuid.UUID, n)
	for i := range users {
		users[i] = uuid.Must(uuid.NewV7())
	}
	return users
}

// exampleDir is a temporary directory for an example, which has no testing.TB.
func exampleDir() (dir string, remove func()) {
	dir, err := os.MkdirTemp("", "usher-example-")
	if err != nil {
		panic(err)
	}
	return dir, func() { _ = os.RemoveAll(dir) }
}
