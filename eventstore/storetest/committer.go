package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"usher.example/eventstore"
)

// gate is a store that lets commits through only once it is opened, so that appends wait behind one that is on its way.
type gate struct {
	Database
	arrived chan int      // how many appends each commit has
	pass    chan struct{} // a commit takes one; closed, it lets all through
}

func newGate(db Database) gate {
	return gate{db, make(chan int, 1<<14), make(chan struct{})}
}

func (g gate) Commit(ctx context.Context, batch []*eventstore.Prepared) ([]eventstore.Outcome, error) {
	g.arrived <- len(batch)
	<-g.pass
	return g.Database.Commit(ctx, batch)
}

// gated is a process behind a gate, with one append on its way that waits at the gate. The group has that append.
func gated(t *testing.T, b Backend, o eventstore.Options) (process, gate, *errgroup.Group) {
	t.Helper()
	d := deploy(t, b)
	g := newGate(d.open(t))
	log := d.processOn(t, g, o)
	group := &errgroup.Group{}
	group.Go(func() error {
		_, err := log.Append(t.Context(), facts(eventstore.SystemStream("first")))
		return err
	})
	<-g.arrived
	return log, g, group
}

// waitFor waits until a condition is met.
func waitFor(t *testing.T, what string, met func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !met() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// One bad append in a batch fails alone.
func testBadNeighbour(t *testing.T, b Backend) {
	type bad struct {
		name   string
		append eventstore.Append
	}
	malformed, refused := facts(eventstore.UserStream(newID())), facts(eventstore.UserStream(newID()))
	malformed.Events[0].Data = json.RawMessage(`{"n":`)
	refused.State = []eventstore.StateChange{stateRow("credentials", map[string]any{"user_id": newID()})}
	for _, neighbours := range []int{1, 3, 500} {
		for _, bad := range []bad{{"malformed data", malformed}, {"refused row", refused}} {
			t.Run(fmt.Sprint(bad.name, " ", neighbours), func(t *testing.T) {
				t.Parallel()
				var commits int
				log, g, group := gated(t, b, eventstore.Options{OnCommit: func(s eventstore.CommitStats) {
					if s.Events > 0 {
						commits++
					}
				}})
				failed := make(chan error, 1)
				for i := range neighbours {
					if i == neighbours/2 {
						go func() {
							_, err := log.Append(t.Context(), bad.append)
							failed <- err
						}()
					}
					group.Go(func() error {
						_, err := log.Append(t.Context(), facts(eventstore.UserStream(newID())))
						return err
					})
				}
				waitFor(t, "all to wait", func() bool { return log.Waiting() == neighbours+1 })
				close(g.pass)
				if err := group.Wait(); err != nil {
					t.Errorf("a neighbour failed: %v", err)
				}
				err := <-failed
				if err == nil || errors.Is(err, eventstore.ErrUnavailable) || errors.Is(err, eventstore.ErrOutcomeUnknown) {
					t.Errorf("the bad one: %v, want an error that blames it", err)
				}
				wantHead(t, log.db, int64(neighbours)+1)
				if err := log.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				if commits > 16 { // the first, and each half that was good
					t.Errorf("%d commits", commits)
				}
			})
		}
	}
}

// Whoever goes away before the append was sent knows that nothing was written.
func testCancelledWhileWaiting(t *testing.T, b Backend) {
	log, g, group := gated(t, b, eventstore.Options{})
	away := errors.New("went away")
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error)
	go func() {
		_, err := log.Append(ctx, facts(eventstore.UserStream(newID())))
		done <- err
	}()
	waitFor(t, "the append to wait", func() bool { return log.Waiting() == 1 })
	cancel(away)
	err := <-done
	wantError(t, "append", err, away)
	if errors.Is(err, eventstore.ErrOutcomeUnknown) {
		t.Errorf("append: %v, but it was never sent", err)
	}
	if n := log.Waiting(); n != 0 {
		t.Errorf("%d wait, want 0", n)
	}
	_, err = log.Append(ctx, facts(eventstore.UserStream(newID())))
	wantError(t, "append with a dead context", err, away)
	close(g.pass)
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	wantHead(t, log.db, 1)
}

// Whoever goes away after it was sent is told that nobody knows, and can find out.
func testCancelledAfterSent(t *testing.T, b Backend) {
	log, g, group := gated(t, b, eventstore.Options{})
	away := errors.New("went away")
	ctx, cancel := context.WithCancelCause(t.Context())
	a := registration(newID(), "ada@example.org")
	a.CommandID = newID()
	done := make(chan error)
	go func() {
		_, err := log.Append(ctx, a)
		done <- err
	}()
	waitFor(t, "the append to wait", func() bool { return log.Waiting() == 1 })
	g.pass <- struct{}{}
	<-g.arrived // the second commit, with it
	cancel(away)
	err := <-done
	wantError(t, "append", err, eventstore.ErrOutcomeUnknown)
	wantError(t, "append", err, away)
	close(g.pass)
	want := eventstore.Result{Position: 2, Version: 1, Repeated: true}
	if got := mustAppend(t, log, a); got != want {
		t.Errorf("repeated append = %+v, want %+v", got, want)
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}

// The queue is bounded; what is in it is written.
func testOverload(t *testing.T, b Backend) {
	const limit = 4
	log, g, group := gated(t, b, eventstore.Options{QueueLimit: limit})
	for range limit {
		group.Go(func() error {
			_, err := log.Append(t.Context(), facts(eventstore.UserStream(newID())))
			return err
		})
	}
	waitFor(t, "the queue to fill", func() bool { return log.Waiting() == limit })
	_, err := log.Append(t.Context(), facts(eventstore.UserStream(newID())))
	wantError(t, "append to a full queue", err, eventstore.ErrOverloaded)
	close(g.pass)
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if n := <-g.arrived; n != limit {
		t.Errorf("%d appends in the second commit, want %d", n, limit)
	}
	wantHead(t, log.db, limit+1)
	mustAppend(t, log, facts(eventstore.UserStream(newID())))
}

// Closing writes what was accepted and refuses what comes later.
func testClose(t *testing.T, b Backend) {
	const waiting = 5
	log, g, group := gated(t, b, eventstore.Options{})
	stream := eventstore.UserStream(newID())
	for range waiting { // one stream: a commit for each
		group.Go(func() error {
			_, err := log.Append(t.Context(), facts(stream))
			return err
		})
	}
	waitFor(t, "all to wait", func() bool { return log.Waiting() == waiting })
	impatient := errors.New("no patience")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(impatient)
	wantError(t, "close without patience", log.Close(ctx), impatient)
	_, err := log.Append(t.Context(), facts(stream))
	wantError(t, "append to a closed log", err, eventstore.ErrClosed)
	close(g.pass)
	if err := log.Close(t.Context()); err != nil {
		t.Error(err)
	}
	wantHead(t, log.db, waiting+1)
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}
