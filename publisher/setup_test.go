package publisher

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/eventstore"
	"usher.example/eventstore/cloudevent"
	"usher.example/eventstore/postgres"
	"usher.example/eventstore/sqlite"
	"usher.example/identity"
	"usher.example/internal/devstack"
	"usher.example/internal/eventcheck"
	"usher.example/schema"
)

// dose makes the fault tests longer: -dose 10 does ten times as much.
var dose = flag.Int("dose", 1, "how long the fault tests take, in multiples of the default")

func TestMain(m *testing.M) {
	runIfRelay()
	os.Exit(devstack.Main(m))
}

// The master key of every test. A relay of another process needs the same one.
const masterKey = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

// store is what a test's log and relay stand on.
type store interface {
	eventstore.Store
	eventstore.DB
	Close()
}

// site is a log with its database.
type site struct {
	*eventstore.Log
	store store
	dsn   string // what openSite opens again
}

func newSite(t testing.TB) *site {
	t.Helper()
	return openSite(t, devstack.SQLite(t, "publisher", func(ctx context.Context, path string) error {
		m, err := schema.SQLite(path)
		if err != nil {
			return err
		}
		_, err = m.Up(ctx)
		return errors.Join(err, m.Close())
	}))
}

func newPostgresSite(t testing.TB) *site {
	t.Helper()
	return openSite(t, devstack.Database(t, "publisher", func(ctx context.Context, dsn string) error {
		m, err := schema.Postgres(dsn)
		if err != nil {
			return err
		}
		_, err = m.Up(ctx)
		return errors.Join(err, m.Close())
	}))
}

// onBothStores runs a test on SQLite and on Postgres.
func onBothStores(t *testing.T, test func(*testing.T, *site)) {
	for name, open := range map[string]func(testing.TB) *site{"sqlite": newSite, "postgres": newPostgresSite} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
}

func openSite(t testing.TB, dsn string) *site {
	t.Helper()
	opened, err := openStore(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	s := &site{store: opened, dsn: dsn}
	if s.Log, err = newLog(eventcheck.Store(t, opened)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, stop := context.WithTimeout(context.Background(), 10*time.Second)
		defer stop()
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
		s.store.Close()
	})
	return s
}

func openStore(ctx context.Context, dsn string) (store, error) {
	if strings.HasPrefix(dsn, "postgres") {
		return postgres.Open(ctx, dsn, postgres.Options{})
	}
	return sqlite.Open(ctx, dsn)
}

func newLog(s eventstore.Store) (*eventstore.Log, error) {
	master, err := eventstore.ParseMasterKey(masterKey)
	if err != nil {
		return nil, err
	}
	return eventstore.New(s, master, eventstore.Options{}), nil
}

// appendEvents appends events about n users, who have a key each and personal fields, in batches of one commit.
func (s *site) appendEvents(t testing.TB, n int) {
	t.Helper()
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			if _, err := s.register(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// register appends the first event of a user.
func (s *site) register(ctx context.Context) (uuid.UUID, error) {
	return s.importUser(ctx, 100+rand.IntN(200))
}

// appendLarge appends an event with so many bytes of content, or a few more.
func (s *site) appendLarge(t testing.TB, size int) {
	t.Helper()
	if _, err := s.importUser(t.Context(), size); err != nil {
		t.Fatal(err)
	}
}

// importUser appends a user's first event: the one whose open fields, the roles, may be of any size.
func (s *site) importUser(ctx context.Context, size int) (uuid.UUID, error) {
	user := uuid.Must(uuid.NewV7())
	var p identity.Imported
	p.Personal.Email = user.String() + "@example.org"
	for n := 0; n < size; {
		role := fmt.Sprintf("role-%d-%s", n, strings.Repeat("x", min(size-n, 50)))
		p.Roles = append(p.Roles, role)
		n += len(role) + len(`"",`)
	}
	_, err := s.Append(ctx, eventstore.Append{
		Stream:    eventstore.UserStream(user),
		CreateKey: true,
		Events:    []eventstore.NewEvent{identity.NewEvent(p)},
		Metadata:  eventstore.Metadata{Correlation: user, Actor: "anonymous"},
	})
	return user, err
}

// keepAppending appends one event after the other until stop is called, which waits. The pauses bound how much a slow
// machine has to do: what is asserted takes hundreds of events, and not as many as can be appended.
func (s *site) keepAppending(t *testing.T, callers int) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for ctx.Err() == nil {
				if _, err := s.register(t.Context()); err != nil {
					t.Error(err)
					return
				}
				_ = eventstore.Pause(ctx, 5*time.Millisecond) // the next round sees how it ended
			}
		})
	}
	return func() {
		cancel()
		wg.Wait()
	}
}

func (s *site) head(t testing.TB) int64 {
	t.Helper()
	head, err := s.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return head
}

// relay makes a relay that tests can hurry.
func (s *site) relay(t testing.TB, nc *nats.Conn, change ...func(*Config)) *Relay {
	t.Helper()
	c := Config{
		Log: s.Log, DB: s.store, Conn: nc, Source: "urn:usher:test", LeaseTTL: time.Second, ScrubEvery: -1,
		Logger: slog.New(slog.NewTextHandler(testOutput{t}, nil)),
	}
	for _, f := range change {
		f(&c)
	}
	r, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// testOutput shows the log of a relay with the test that failed.
type testOutput struct{ testing.TB }

func (o testOutput) Write(line []byte) (int, error) {
	o.Output().Write(line)
	return len(line), nil
}

func connection(t testing.TB, server interface {
	Connect(...nats.Option) (*nats.Conn, error)
}) *nats.Conn {
	t.Helper()
	// What breaks the connection is the test's own doing, and no news.
	nc, err := server.Connect(nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// awaitPublished waits until the stream has everything that is in the log now.
func (s *site) awaitPublished(t testing.TB, r *Relay) {
	t.Helper()
	head := s.head(t)
	devstack.Eventually(t, fmt.Sprintf("position %d published", head), func() bool { return r.published.Load() >= head })
}

// checkStream reads the whole stream and compares it with the whole log: nothing missing, nothing twice, the same order,
// every sequence the position, every message what its event says.
func (s *site) checkStream(t testing.TB, nc *nats.Conn) {
	t.Helper()
	s.checkStreamFrom(t, nc, 1)
}

func (s *site) checkStreamFrom(t testing.TB, nc *nats.Conn, first int64) {
	t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), 60*time.Second)
	defer stop()
	head := s.head(t)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(ctx, DefaultStream)
	if err != nil {
		t.Fatal(err)
	}
	state := stream.CachedInfo().State
	if got := (jetstream.StreamState{FirstSeq: state.FirstSeq, LastSeq: state.LastSeq, Msgs: state.Msgs, NumDeleted: state.NumDeleted}); !cmp.Equal(got,
		jetstream.StreamState{FirstSeq: uint64(first), LastSeq: uint64(head), Msgs: uint64(head - first + 1)}) {
		t.Fatalf("stream has %d messages from %d to %d, %d deleted; the log has positions %d to %d", got.Msgs, got.FirstSeq, got.LastSeq, got.NumDeleted, first, head)
	}
	consumer, err := js.OrderedConsumer(ctx, DefaultStream, jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(2000))
	if err != nil {
		t.Fatal(err)
	}
	defer messages.Stop()
	for next := first; next <= head; {
		events, err := s.ReadAll(ctx, next-1, 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			m, err := messages.Next(jetstream.NextContext(ctx))
			if err != nil {
				t.Fatalf("at position %d: %v", e.Position, err)
			}
			checkMessage(t, e, m)
			next++
		}
	}
}

func checkMessage(t testing.TB, e eventstore.Event, m jetstream.Msg) {
	t.Helper()
	meta, err := m.Metadata()
	if err != nil {
		t.Fatal(err)
	}
	if got := int64(meta.Sequence.Stream); got != e.Position {
		t.Fatalf("sequence %d where position %d belongs", got, e.Position)
	}
	if want := cloudevent.Subject(e); m.Subject() != want {
		t.Fatalf("position %d: subject %s, want %s", e.Position, m.Subject(), want)
	}
	got, err := cloudevent.Decode(m.Headers(), m.Data())
	if err != nil {
		t.Fatalf("position %d: %v", e.Position, err)
	}
	e.Data, e.Personal = e.Payload(), nil
	if !reflect.DeepEqual(e, got) {
		t.Fatalf("position %d (-log +stream):\n%s", e.Position, cmp.Diff(e, got))
	}
}
