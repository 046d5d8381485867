package webhook_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/eventstore"
	"usher.example/identity"
	"usher.example/internal/devstack"
	"usher.example/publisher/webhook"
)

// dose makes the tests that kill processes longer: -dose 10 kills ten times as many.
var dose = flag.Int("dose", 1, "how long the fault tests take, in multiples of the default")

// childEnv says, in the environment, that the process is to be a worker until it is killed.
const childEnv = "WEBHOOK_TEST_WORKER"

type child struct{ Place, Broker, MasterKey, Holder string }

func runIfWorker() {
	text := os.Getenv(childEnv)
	if text == "" {
		return
	}
	fmt.Fprintln(os.Stderr, runChild(text))
	os.Exit(1)
}

func runChild(text string) error {
	var c child
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return err
	}
	ctx := context.Background()
	db, err := openDatabase(ctx, c.Place)
	if err != nil {
		return err
	}
	master, err := eventstore.ParseMasterKey(c.MasterKey)
	if err != nil {
		return err
	}
	conn, err := nats.Connect(c.Broker)
	if err != nil {
		return err
	}
	js, err := jetstream.New(conn)
	if err != nil {
		return err
	}
	service := webhook.New(webhook.Config{
		Log: eventstore.New(db, master, eventstore.Options{}), DB: db, Source: source, Allow: loopback,
		Timeout: 5 * time.Second, Retries: 1_000_000, RetryDelay: time.Millisecond, FailuresInARow: 1 << 30,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	w := &webhook.Worker{Service: service, JetStream: js, Holder: c.Holder, LeaseTTL: 300 * time.Millisecond, Poll: 20 * time.Millisecond}
	return w.Run(ctx)
}

// startChild starts a worker in a process of its own.
func (s *stack) startChild(holder string) *exec.Cmd {
	s.tb.Helper()
	program, err := os.Executable()
	if err != nil {
		s.tb.Fatal(err)
	}
	text, err := json.Marshal(child{s.place, s.broker.URL(), s.text, holder})
	if err != nil {
		s.tb.Fatal(err)
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	cmd.Stderr = s.output
	if err := devstack.Spawn(cmd); err != nil {
		s.tb.Fatal(err)
	}
	return cmd
}

func (s *stack) kill(cmd *exec.Cmd) {
	s.tb.Helper()
	if err := cmd.Process.Kill(); err != nil {
		s.tb.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		s.tb.Fatal("the worker ended before it was killed")
	}
}

// maxAhead is how far the load may be ahead of what a receiver got: it is to be there all the time, not to grow.
const maxAhead = 100

// load appends events of a few users from several callers until it is stopped, but never far ahead of a receiver.
func (s *stack) load(callers int, r *receiver) (stop func()) {
	ctx, cancel := context.WithCancel(s.tb.Context())
	var appended atomic.Int64
	var wg sync.WaitGroup
	for caller := range callers {
		wg.Go(func() {
			var users []uuid.UUID
			for i := 0; ctx.Err() == nil; i++ {
				for appended.Load()-int64(r.count()) > maxAhead && pause(ctx, time.Millisecond) == nil {
				}
				appended.Add(2)
				var err error
				if len(users) < 5 {
					var user uuid.UUID
					user, err = registerIn(s.tb.Context(), s.log, fmt.Sprintf("user%d-%d@example.org", caller, i))
					users = append(users, user)
				} else {
					err = appendTo(s.tb.Context(), s.log, eventstore.UserStream(users[i%len(users)]), identity.Locked{}, identity.Unlocked{})
				}
				if err != nil {
					s.tb.Error(err)
					return
				}
				_ = pause(ctx, 5*time.Millisecond) // or a test makes as much as the machine can: the next round sees how it ended
			}
		})
	}
	return func() {
		cancel()
		wg.Wait()
	}
}

// pause paces a caller.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// unsteady makes a receiver that takes most of what it gets, and fails some.
func unsteady(tb testing.TB) *receiver {
	r := newReceiver(tb)
	r.answer(func(w http.ResponseWriter, _ *http.Request, _ received) {
		if rand.IntN(10) == 0 {
			w.WriteHeader(500)
		}
	})
	return r
}

// complete waits until everything was delivered, and holds that nothing is lost, that ids are those of the events, and that
// each user's events arrived in order the first time. It answers with how many arrived more than once.
func (s *stack) complete(r *receiver, hook webhook.Webhook) (again int) {
	s.tb.Helper()
	events := s.events(0)
	devstack.Eventually(s.tb, "everything is delivered", func() bool {
		h := s.get(hook.ID)
		return h.Position == int64(len(events)) && h.Pending == 0
	})
	if h := s.get(hook.ID); h.Dead > 0 {
		s.tb.Errorf("%d dead letters, want none", h.Dead)
	}
	last := map[uuid.UUID]int64{}
	seen := map[int64]bool{}
	for _, got := range r.all() {
		position, err := strconv.ParseInt(got.event.Position, 10, 64)
		if err != nil {
			s.tb.Fatal(err)
		}
		if e := events[position-1]; got.event.ID != e.ID || got.header.Get("webhook-id") != e.ID.String() {
			s.tb.Errorf("position %d arrived as %s under the id %s, want %s", position, got.event.ID, got.header.Get("webhook-id"), e.ID)
		}
		if seen[position] {
			again++
			continue
		}
		seen[position] = true
		user := got.event.Subject
		if position < last[user] {
			s.tb.Errorf("position %d of a user arrived after %d", position, last[user])
		}
		last[user] = position
	}
	if len(seen) != len(events) {
		s.tb.Errorf("%d of %d events arrived", len(seen), len(events))
	}
	return again
}

func TestKilledWorker(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *stack) {
		r := unsteady(t)
		hook, _, err := s.service.Create(t.Context(), webhook.Wish{URL: r.url(), From: 1})
		if err != nil {
			t.Fatal(err)
		}
		stop := s.load(2, r)
		kills := 4 * *dose
		for range kills {
			cmd := s.startChild("the same each time")
			before := r.count()
			devstack.Eventually(t, "it sends", func() bool { return r.count() > before })
			if pause(t.Context(), rand.N(50*time.Millisecond)) != nil {
				t.FailNow()
			}
			s.kill(cmd)
		}
		stop()
		s.service = s.newService(func(c *webhook.Config) { c.Retries = 1_000_000 })
		s.work(func(w *webhook.Worker) { w.Holder = "the same each time" })
		again := s.complete(r, hook)
		t.Logf("%d kills, %d events, %d arrived again (attempts that failed are among them)", kills, len(s.events(0)), again)
	})
}

// Two workers, of which now one and now the other is killed.
func TestTwoWorkers(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *stack) {
		r, other := unsteady(t), unsteady(t)
		var hooks []webhook.Webhook
		for _, receiver := range []*receiver{r, other} {
			hook, _, err := s.service.Create(t.Context(), webhook.Wish{URL: receiver.url(), From: 1})
			if err != nil {
				t.Fatal(err)
			}
			hooks = append(hooks, hook)
		}
		stop := s.load(2, r)
		holder := 0
		start := func() *exec.Cmd {
			holder++
			return s.startChild(fmt.Sprint("worker ", holder))
		}
		workers := []*exec.Cmd{start(), start()}
		for i := range 4 * *dose {
			a, b := r.count(), other.count()
			devstack.Eventually(t, "they send to both", func() bool { return r.count() > a+5 && other.count() > b+5 })
			s.kill(workers[i%2])
			workers[i%2] = start()
		}
		stop()
		again := s.complete(r, hooks[0]) + s.complete(other, hooks[1])
		t.Logf("%d events for each of two endpoints, %d arrived again", len(s.events(0)), again)
		for _, w := range workers {
			s.kill(w)
		}
	})
}

// Two workers of one process, both at work all the time: what one is at, the other leaves alone.
func TestStandby(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *stack) {
		r := newReceiver(t)
		hook, _, err := s.service.Create(t.Context(), webhook.Wish{URL: r.url(), From: 1})
		if err != nil {
			t.Fatal(err)
		}
		patient := func(w *webhook.Worker) { w.LeaseTTL = 10 * time.Second } // a lease that is lost is no failure of theirs
		first := s.work(patient)
		s.work(patient)
		stop := s.load(2, r)
		r.await(30)
		first() // which gives its lease back
		r.await(r.count() + 30)
		stop()
		if again := s.complete(r, hook); again > 0 {
			t.Errorf("%d events arrived again, want none: nothing failed", again)
		}
	})
}
