package projections_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"usher.example/eventstore"
	"usher.example/eventstore/postgres"
	"usher.example/identity"
	"usher.example/internal/devstack"
	"usher.example/projections"
	"usher.example/publisher"
	"usher.example/schema"
	"usher.example/subscription"
)

// A process that rebuilds is killed again and again, at whatever point it is. The last one goes on from where it was.
func TestKilledRebuild(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		stop := start(t, s.runner())
		s.churn(t, 1500)
		s.await(t)
		stop() // or it would take the rebuild over
		reached := int64(0)
		for round := range 5 {
			cmd := s.spawn(t, true)
			devstack.Eventually(t, "the rebuild moves", func() bool {
				b := s.status(t).Rebuild
				return b != nil && b.Position > reached+int64(20*round)
			})
			kill(cmd)
			b := s.status(t).Rebuild
			if b == nil {
				t.Fatalf("it was done before it was killed, at round %d", round)
			}
			if b.Generation != 2 || b.Position < reached {
				t.Fatalf("after kill %d: %+v, want generation 2, not before %d", round, b, reached)
			}
			reached = b.Position
		}
		start(t, s.runner()) // which does what was interrupted
		devstack.Eventually(t, "the rebuild is done", func() bool { return s.status(t).Generation == 2 })
		from := regexp.MustCompile(`rebuilding the projection.* generation=2 from=(\d+)`).FindStringSubmatch(s.output.String())
		if from == nil {
			t.Fatal("the log does not say that the rebuild is gone on with")
		}
		// A batch may have been on its way when the process was killed.
		if at, err := strconv.ParseInt(from[1], 10, 64); err != nil || at < reached || at > reached+10 {
			t.Errorf("it goes on from %s, %v, want %d", from[1], err, reached)
		}
		s.await(t)
		s.exact(t)
		s.notLogged(t, "level=ERROR")
		devstack.Eventually(t, "it is recorded", func() bool { return len(recorded[identity.ProjectionRebuilt](t, s)) == 1 })
	})
}

// The worker is in another process, and is killed after the exchange as before it.
func TestRebuildBesideAnotherProcess(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		cmd := s.spawn(t, false)
		s.churn(t, 100)
		s.await(t)
		for generation := 2; generation < 5; generation++ {
			churned := make(chan struct{})
			go func() {
				defer close(churned)
				s.churn(t, 40)
			}()
			if out := s.rebuild(t); out.Generation != generation || len(out.Differences) != 0 {
				t.Errorf("Rebuild() = %+v, want generation %d", out, generation)
			}
			<-churned
			if generation == 3 {
				kill(cmd)
				cmd = s.spawn(t, false)
			}
			s.await(t)
			s.exact(t)
		}
	})
}

// The database goes away in the middle of a rebuild, twice, and comes back.
func TestRebuildThroughAnOutage(t *testing.T) {
	t.Parallel()
	server := devstack.OwnPostgres(t, devstack.PostgresOptions{})
	dsn := server.DSN("postgres")
	m, err := schema.Postgres(dsn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.Close()
	db, err := postgres.Open(t.Context(), dsn, postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	s := newStack(t, db)
	start(t, s.runner())
	s.churn(t, 600)
	s.await(t)

	o := s.operator()
	o.BatchSize = 5
	half, done := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		out, err := o.Rebuild(t.Context(), "users", func(b projections.Rebuild) {
			if b.State == projections.RebuildLoading && b.Position > 0 && b.Position%100 == 0 {
				select {
				case half <- struct{}{}:
				default:
				}
			}
		})
		if err == nil && (out.Generation != 2 || len(out.Differences) != 0) {
			err = fmt.Errorf("Rebuild() = %+v, want generation 2", out)
		}
		done <- err
	}()
	for _, stop := range []func() error{server.Halt, server.Kill} {
		select {
		case <-half:
		case err := <-done: // a worker took it over during the outage before, and is through with it
			done <- err
			continue
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if err := server.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	s.churn(t, 50)
	s.await(t)
	s.exact(t)
}

// relay runs the relay of the stack until the test ends.
func (s *stack) relay(t *testing.T) {
	t.Helper()
	if err := s.js.DeleteStream(t.Context(), subscription.Stream); err != nil {
		t.Fatal(err)
	}
	conn, err := s.broker.Connect(nats.ReconnectBufSize(-1))
	if err != nil {
		t.Fatal(err)
	}
	relay, err := publisher.New(publisher.Config{Log: s.log, DB: s.db, Conn: conn, Source: "urn:usher:test", Poll: 20 * time.Millisecond,
		Logger: slog.New(slog.NewTextHandler(s.output, nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() { _ = relay.Run(ctx) })
	running.Go(func() { _ = publisher.Announce(ctx, s.log, conn) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
		conn.Close()
	})
}

// Reads and writes go on through rebuilds and rollbacks, and every answer is right: whoever wrote reads what they wrote,
// exactly, and a list has everybody who was there all the while exactly once.
func TestLoadThroughRebuilds(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		s.relay(t)
		start(t, s.runner())
		for range 120 {
			s.register(t)
		}
		s.await(t)
		there := map[uuid.UUID]bool{}
		for _, id := range s.users {
			there[id] = true
		}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		var load sync.WaitGroup
		var mu sync.Mutex
		writes, lists := 0, 0
		q := projections.Users{DB: s.db, CursorKey: cursorKey}
		for writer := range 3 {
			id := s.users[writer]
			load.Go(func() {
				for version := 2; ctx.Err() == nil; version++ {
					name := fmt.Sprintf("Writer %d, %d", writer, version)
					result, err := s.log.Append(t.Context(), userAppend(id, renamed(name)))
					if err != nil {
						t.Error(err)
						return
					}
					if err := s.checkpoints.Await(t.Context(), projections.UsersName, result.Position); err != nil {
						t.Error(err)
						return
					}
					u, err := q.Get(t.Context(), id)
					if err != nil || u.Name != name || u.Version != version {
						t.Errorf("after %q was written at %d: %+v, %v", name, result.Position, u, err)
						return
					}
					mu.Lock()
					writes++
					mu.Unlock()
				}
			})
		}
		load.Go(func() {
			for ctx.Err() == nil {
				seen := map[uuid.UUID]int{}
				for f := (projections.UserFilter{Limit: 50}); ; {
					page, err := q.List(t.Context(), f)
					if err != nil {
						t.Error(err)
						return
					}
					for _, u := range page.Items {
						if seen[u.ID]++; !there[u.ID] || u.Email == "" {
							t.Errorf("the list has %+v", u)
						}
					}
					if f.Cursor = page.NextCursor; f.Cursor == "" {
						break
					}
				}
				if len(seen) != len(there) {
					t.Errorf("%d users are listed, want %d", len(seen), len(there))
					return
				}
				mu.Lock()
				lists++
				mu.Unlock()
			}
		})
		o := s.operator()
		o.BatchSize = 25
		for range 4 {
			out, err := o.Rebuild(t.Context(), "users", quiet)
			if err != nil || len(out.Differences) != 0 {
				t.Errorf("Rebuild() = %+v, %v", out, err)
			}
			// The worker may have taken the rebuild over, if its lease ran out, and be about to give it up.
			devstack.Eventually(t, "no rebuild is under way", func() bool {
				_, err = o.Rollback(t.Context(), "users", identity.ActorOperator)
				return !errors.Is(err, projections.ErrRebuilding)
			})
			if err != nil {
				t.Errorf("Rollback() = %v", err)
			}
		}
		stop()
		load.Wait()
		if writes < 20 || lists < 5 {
			t.Errorf("%d writes and %d lists: there was no load", writes, lists)
		}
		s.await(t)
		s.exact(t)
		s.notLogged(t, "level=ERROR")
		t.Logf("%d writes, %d lists", writes, lists)
	})
}

// The log was restored, and the tables of a read model were not: they have what did not happen. They go on, and are filled anew.
func TestReadModelOfAnotherHistory(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		stop := start(t, s.runner())
		s.churn(t, 60)
		s.await(t)
		stop()
		table := projections.TableName(s.db.Dialect(), "users", 1)
		for _, statement := range []string{
			"UPDATE projections SET checkpoint_event = '" + uuid.NewString() + "', checkpoint = checkpoint + 40",
			"DELETE FROM " + table + " WHERE id IN (SELECT id FROM " + table + " LIMIT 3)",
		} {
			if _, err := s.db.Exec(t.Context(), statement); err != nil {
				t.Fatal(err)
			}
		}
		start(t, s.runner())
		devstack.Eventually(t, "it is rebuilt", func() bool { return s.status(t).Generation == 2 })
		s.churn(t, 5)
		s.await(t)
		s.exact(t)
		if !s.output.Contains("the read model has what is not in the log") {
			t.Error("nothing is logged of it")
		}
	})
}

// forking is a projection under whose rebuild the log gets another event where the first part that is read ends.
type forking struct {
	projections.UserProjection
	fork  func(position int64)
	mu    sync.Mutex
	folds map[int64]int // by the position that a part ends at
}

func (p *forking) Changes(g projections.Generation) projections.Changes {
	return guarded{p.UserProjection.Changes(g), func(_ context.Context, _ eventstore.DB, events []eventstore.Event) error {
		if !g.Loading {
			return nil
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		last := events[len(events)-1].Position
		if len(p.folds) == 0 {
			p.fork(last)
		}
		p.folds[last]++
		return nil
	}}
}

// What was read for a rebuild before the database gave way to another is not written there; it is read anew.
func TestRebuildOverAnotherHistory(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		stop := start(t, s.runner())
		s.churn(t, 60)
		s.await(t)
		stop()
		first := int64(0)
		p := &forking{folds: map[int64]int{}}
		p.fork = func(position int64) {
			first = position
			if _, err := s.db.Exec(t.Context(), "UPDATE events SET event_id = $1 WHERE position = $2", uuid.New(), position); err != nil {
				t.Error(err)
			}
			// The live generation is of the other history too, and is not what this is about.
			if _, err := s.db.Exec(t.Context(), "UPDATE projections SET checkpoint_event = NULL"); err != nil {
				t.Error(err)
			}
		}
		if _, err := s.operator(p).Rebuild(t.Context(), "users", nil); err != nil {
			t.Fatal(err)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.folds[first] != 2 {
			t.Errorf("the part that ends at %d was put together %d times, want twice", first, p.folds[first])
		}
	})
}
