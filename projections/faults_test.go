package projections_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/eventstore"
	"usher.example/eventstore/cloudevent"
	"usher.example/eventstore/postgres"
	"usher.example/eventstore/sqlite"
	"usher.example/identity"
	"usher.example/internal/devstack"
	"usher.example/projections"
)

// childEnv says, in the environment, that the process is a child, which works on the projection of users until it is
// killed.
const childEnv = "PROJECTIONS_TEST_CHILD"

type child struct {
	Postgres, SQLite, Broker, MasterKey string
	Rebuild                             bool // rebuild it; otherwise run it
}

// spawn starts a child on the stack's database.
func (s *stack) spawn(t *testing.T, rebuild bool) *exec.Cmd {
	t.Helper()
	c := child{Broker: s.broker.URL(), MasterKey: s.masterText, Rebuild: rebuild}
	if s.db.Dialect() == eventstore.Postgres {
		c.Postgres = s.place
	} else {
		c.SQLite = s.place
	}
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	if err := devstack.Spawn(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kill(cmd) })
	return cmd
}

func kill(cmd *exec.Cmd) {
	_ = cmd.Process.Kill() // the only error is that it has ended
	_ = cmd.Wait()
}

func runIfChild() {
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
	var db database
	var err error
	if c.Postgres != "" {
		db, err = postgres.Open(ctx, c.Postgres, postgres.Options{})
	} else {
		db, err = sqlite.Open(ctx, c.SQLite)
	}
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
	master, err := eventstore.ParseMasterKey(c.MasterKey)
	if err != nil {
		return err
	}
	log := eventstore.New(db, master, eventstore.Options{})
	if c.Rebuild {
		o := projections.Operator{Projections: []projections.Projection{projections.UserProjection{}}, DB: db, Log: log, BatchSize: 3, LeaseTTL: 100 * time.Millisecond}
		_, err := o.Rebuild(ctx, projections.UsersName, func(projections.Rebuild) {})
		return err
	}
	r := projections.Runner{
		Projection: projections.UserProjection{}, DB: db, Log: log,
		Checkpoints: projections.NewCheckpoints(db), JetStream: js, BatchSize: 7, LeaseTTL: 100 * time.Millisecond, Poll: 50 * time.Millisecond,
	}
	return r.Run(ctx)
}

// A process is killed at whatever point it is: in a transaction, between commit and acknowledgement, in the load.
func TestKilledRunner(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		s.churn(t, 100)
		reached := int64(0)
		for round := range 6 {
			cmd := s.spawn(t, false)
			s.churn(t, 30)
			s.publish(t, cloudevent.Options{})
			devstack.Eventually(t, "the read model moves", func() bool {
				list, err := s.checkpoints.List(t.Context())
				return err == nil && len(list) == 1 && list[0].Position > reached+int64(5*round)
			})
			kill(cmd)
			at := s.status(t).Position
			diff := s.diff(t, at)
			for moved := s.status(t).Position; moved != at; moved = s.status(t).Position { // by a commit that was sent before
				at, diff = moved, s.diff(t, moved)
			}
			if diff != "" {
				t.Fatalf("after kill %d at %d (-log +read model):\n%s", round, at, diff)
			}
			reached = at
		}
		start(t, s.runner())
		s.await(t)
		s.exact(t)
	})
}

// flaky is a database whose answers to commits are lost now and then, after the commit or instead of it.
type flaky struct {
	eventstore.DB
	commits atomic.Int64
}

func (f *flaky) Transact(ctx context.Context, do func(eventstore.DB) error) error {
	switch f.commits.Add(1) % 4 {
	case 0:
		return fmt.Errorf("%w: connection refused", eventstore.ErrUnavailable)
	case 2:
		if err := f.DB.Transact(ctx, do); err != nil {
			return err
		}
		return fmt.Errorf("%w: connection reset", eventstore.ErrUnavailable)
	}
	return f.DB.Transact(ctx, do)
}

func TestLostAnswers(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		s.churn(t, 100)
		r := s.runner()
		r.DB, r.BatchSize = &flaky{DB: s.db}, 20
		start(t, r)
		s.await(t)
		s.exact(t)
		for range 5 {
			s.churn(t, 10)
			s.publish(t, cloudevent.Options{})
		}
		s.await(t)
		s.exact(t)
		if got := s.status(t); got.ParkedCount != 0 {
			t.Errorf("%d events parked, want none: the database was to blame", got.ParkedCount)
		}
	})
}

func TestTwoRunnersAtOnce(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		for range 2 {
			r := s.runner()
			r.BatchSize = 10
			start(t, r)
		}
		for range 10 {
			s.churn(t, 30)
			s.publish(t, cloudevent.Options{})
			// The holder is paused for longer than its lease lives, as far as the database knows.
			if _, err := s.db.Exec(t.Context(), "UPDATE leases SET expires_at = $1", time.Now().Add(-time.Hour).UTC()); err != nil {
				t.Fatal(err)
			}
		}
		s.await(t)
		s.exact(t)
		s.notLogged(t, "event parked")
	})
}

// A runner that lost its lease without noticing must not write.
func TestLateRunnerIsFenced(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		r := s.runner()
		r.LeaseTTL, r.Poll = time.Hour, time.Hour
		start(t, r)
		s.churn(t, 20)
		s.publish(t, cloudevent.Options{})
		s.await(t)
		before := s.status(t).Position
		// Another process took over, under the next epoch, and moved nothing yet.
		for _, statement := range []string{
			"UPDATE leases SET holder = 'another', epoch = epoch + 1 WHERE name = 'projection/users'",
			"UPDATE projections SET epoch = epoch + 1",
		} {
			if _, err := s.db.Exec(t.Context(), statement); err != nil {
				t.Fatal(err)
			}
		}
		s.churn(t, 20)
		s.publish(t, cloudevent.Options{})
		devstack.Eventually(t, "the runner is fenced", func() bool { return s.output.Contains("passed on to another process") })
		if after := s.status(t).Position; after != before {
			t.Errorf("checkpoint = %d, want %d", after, before)
		}
		if diff := s.diff(t, before); diff != "" {
			t.Errorf("a fenced runner wrote (-log +read model):\n%s", diff)
		}
	})
}

// Leases that somebody deleted by hand count from 1 again.
func TestLeasesDeleted(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		stop := start(t, s.runner())
		s.churn(t, 20)
		s.await(t)
		stop()
		if n, err := s.db.Exec(t.Context(), "UPDATE projections SET epoch = 57"); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		if _, err := s.db.Exec(t.Context(), "DELETE FROM leases"); err != nil {
			t.Fatal(err)
		}
		s.churn(t, 20)
		start(t, s.runner())
		s.await(t)
		s.exact(t)
	})
}

// stubborn is the projection of users with a defect: it can't apply some events until it is mended.
type stubborn struct {
	projections.UserProjection
	mended atomic.Bool
	poison map[uuid.UUID]bool // ids of events; not changed once the projection runs
}

func (p *stubborn) Changes(g projections.Generation) projections.Changes {
	return guarded{p.UserProjection.Changes(g), func(_ context.Context, _ eventstore.DB, events []eventstore.Event) error {
		if !p.mended.Load() && slices.ContainsFunc(events, func(e eventstore.Event) bool { return p.poison[e.ID] }) {
			return errors.New("can't do this one")
		}
		return nil
	}}
}

// guarded are changes that events come into once a test lets them.
type guarded struct {
	projections.Changes
	let func(ctx context.Context, db eventstore.DB, events []eventstore.Event) error
}

func (c guarded) Fold(ctx context.Context, db eventstore.DB, events []eventstore.Event) error {
	if err := c.let(ctx, db, events); err != nil {
		return err
	}
	return c.Changes.Fold(ctx, db, events)
}

func TestPoisonParksItsUser(t *testing.T) {
	t.Parallel()
	for name, follow := range map[string]bool{"from the log": false, "from the stream": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachStore(t, func(t *testing.T, s *stack) { testPoison(t, s, follow) })
		})
	}
}

func testPoison(t *testing.T, s *stack, follow bool) {
	r, defect := s.runner(), &stubborn{poison: map[uuid.UUID]bool{}}
	r.Projection = defect
	var sick []uuid.UUID
	var poison []eventstore.NewEvent
	for i := range 3 {
		sick = append(sick, s.register(t))
		e := renamed("Poison")
		e.ID = uuid.Must(uuid.NewV7())
		poison = append(poison, e)
		defect.poison[e.ID] = i < 2
	}
	s.users = nil
	s.churn(t, 30)
	if follow {
		start(t, r)
		s.publish(t, cloudevent.Options{})
		s.await(t)
		s.awaitState(t, projections.StateRunning)
	}
	for i, user := range sick {
		s.append(t, user, poison[i])
		s.churn(t, 20)
		s.append(t, user, renamed("Behind it"))
		s.churn(t, 20)
	}
	s.publish(t, cloudevent.Options{})
	if !follow {
		start(t, r)
	}
	s.await(t)

	// The sick ones are as they were before the poison, all others are right.
	want, got := s.model(t, 0), s.all(t)
	for i, user := range sick[:2] {
		if u := got[user]; u.Version != 1 {
			t.Errorf("user %d is at version %d, want 1", i, u.Version)
		}
		want[user] = got[user]
	}
	compare(t, want, got)
	st := s.status(t)
	if st.ParkedUsers != 2 || st.ParkedCount != 4 || len(st.Parked) != 2 || st.Lag != 0 ||
		st.Parked[0].Subject != sick[0] || !strings.Contains(st.Parked[0].Error, "can't do this one") {
		t.Errorf("status = %+v, want two users parked with two events each", st)
	}

	// Tried again too early nothing changes; once the code is mended, it does, beside the running projection.
	o := s.operator(defect)
	if n, err := o.Retry(t.Context(), "users", sick[0]); n != 0 || err == nil {
		t.Errorf("Retry() = %d, %v, want 0 and an error", n, err)
	}
	defect.mended.Store(true)
	if n, err := o.Retry(t.Context(), "users", sick[0]); n != 2 || err != nil {
		t.Errorf("Retry() = %d, %v, want 2", n, err)
	}
	if _, err := o.Skip(t.Context(), "users", sick[1], 1, eventstore.Metadata{}); !errors.Is(err, projections.ErrNotParked) {
		t.Errorf("Skip() of another position = %v, want %v", err, projections.ErrNotParked)
	}
	if n, err := o.Skip(t.Context(), "users", sick[1], st.Parked[1].Position, eventstore.Metadata{}); n.Applied != 1 || err != nil {
		t.Errorf("Skip() = %+v, %v, want 1 event behind", n, err)
	}
	s.append(t, sick[0], renamed("Well again"))
	s.publish(t, cloudevent.Options{})
	s.await(t)
	s.exact(t) // the skipped event's change was made again by the one behind it
	if st := s.status(t); st.ParkedCount != 0 || st.Parked != nil {
		t.Errorf("status = %+v, want nothing parked", st)
	}
}

// An event whose content the read model can't take, whatever the code says.
func TestPoisonContent(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		start(t, s.runner())
		s.churn(t, 20)
		user := s.register(t)
		s.users = nil
		later := s.register(t)
		// Both are against the schemas: that is what makes them poison.
		s.appendUnchecked(t, user, eventstore.NewEvent{Type: identity.TypeUserRoleGranted, Data: []byte(`{"role":7}`)})
		s.appendUnchecked(t, later, eventstore.NewEvent{Type: identity.TypeUserProfileUpdated, SchemaVersion: 2})
		s.churn(t, 20)
		s.publish(t, cloudevent.Options{})
		s.await(t)
		st := s.status(t)
		if st.ParkedUsers != 2 || len(st.Parked) != 2 || st.Parked[0].Subject != user || st.Parked[1].Subject != later {
			t.Errorf("status = %+v, want two users parked", st)
		}
	})
}

// hopeless can't apply anything: that is no reason to park every user.
type hopeless struct {
	projections.UserProjection
	mended atomic.Bool
}

func (p *hopeless) Changes(g projections.Generation) projections.Changes {
	return guarded{p.UserProjection.Changes(g), func(context.Context, eventstore.DB, []eventstore.Event) error {
		if !p.mended.Load() {
			return errors.New("nothing works")
		}
		return nil
	}}
}

func TestBrokenProjectionStops(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		for range 60 {
			s.register(t)
		}
		r, broken := s.runner(), &hopeless{}
		r.Projection = broken
		start(t, r)
		devstack.Eventually(t, "the projection fails", func() bool {
			list, err := s.checkpoints.List(t.Context())
			return err == nil && len(list) == 1 && list[0].State == projections.StateFailing
		})
		if st := s.status(t); st.ParkedUsers > 20 || !strings.Contains(st.Error, "nothing works") {
			t.Errorf("status = %+v, want at most 20 parked and the error", st)
		}
		broken.mended.Store(true)
		s.await(t)
		for _, user := range s.users {
			if _, err := s.operator(broken).Retry(t.Context(), "users", user); err != nil && !errors.Is(err, projections.ErrNotParked) {
				t.Fatal(err)
			}
		}
		s.exact(t)
	})
}
