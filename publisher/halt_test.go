package publisher

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/eventstore"
	"usher.example/eventstore/cloudevent"
	"usher.example/internal/devstack"
)

// restored is a log that was taken back to an earlier state: a copy of it made before its last events.
func restored(t *testing.T, events, after int) (earlier, later *site) {
	t.Helper()
	later = newSite(t)
	later.appendEvents(t, events)
	path := t.TempDir() + "/copy.db"
	if _, err := later.store.Exec(t.Context(), "VACUUM INTO $1", path); err != nil {
		t.Fatal(err)
	}
	later.appendEvents(t, after)
	return openSite(t, path), later
}

// A log that was restored from a backup is behind the stream, and the events that it gets now are others than those that
// the stream has. The relay says so and touches nothing, also when it is started again and when the log has grown, until
// it is reset. Then the stream is the log again, and consumers go on after the last position that both had.
func TestStreamAhead(t *testing.T) {
	t.Parallel()
	earlier, later := restored(t, 300, 100)
	nc := connection(t, devstack.NATS(t))
	if err := later.relay(t, nc).Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	behind := newSubscriber(t, nc, jetstream.ConsumerConfig{Durable: "behind"})
	behind.handle(t, nc, 200)
	ahead := newSubscriber(t, nc, jetstream.ConsumerConfig{Durable: "ahead"})
	ahead.handle(t, nc, 400)

	if err := earlier.relay(t, nc).Flush(t.Context()); !errors.Is(err, ErrStreamAhead) || !errors.Is(err, ErrHalted) {
		t.Fatalf("Flush() = %v, want ErrStreamAhead", err)
	}
	earlier.appendEvents(t, 150)
	for range 2 {
		again := earlier.relay(t, nc)
		stop := devstack.Background(t, again.Run)
		devstack.Eventually(t, "the relay is halted", func() bool { return again.Status().State == StateHalted })
		stop()
	}
	r := earlier.relay(t, nc)
	devstack.Background(t, r.Run)
	devstack.Eventually(t, "the relay is halted", func() bool { return r.Status().State == StateHalted })
	status, err := ReadStatus(t.Context(), earlier.Log, earlier.store, DefaultStream, time.Now())
	if err != nil || status.State != StateHalted || !strings.Contains(status.Error, "ahead of the log: its last sequence is 400, the log's head is 300") {
		t.Errorf("ReadStatus() = %+v, %v, want halted and the reason", status, err)
	}
	if got := streamInfo(t, nc).State; got.Msgs != 400 || got.LastSeq != 400 {
		t.Errorf("the stream has %d messages up to %d: it was touched", got.Msgs, got.LastSeq)
	}

	plan, err := r.PlanReset(t.Context())
	want := ResetPlan{Stream: DefaultStream, Messages: 400, Last: 400, Head: 450, Common: 300, Consumers: []string{"ahead", "behind"}}
	slices.Sort(plan.Consumers)
	if err != nil || plan.String() != want.String() || !slices.Equal(plan.Consumers, want.Consumers) {
		t.Errorf("PlanReset() = %+v, %v, want %+v", plan, err, want)
	}
	if err := r.Reset(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	devstack.Eventually(t, "the relay goes on", func() bool { return r.Status().State == StateRunning })
	earlier.awaitPublished(t, r)
	earlier.checkStream(t, nc)
	// Who had read further is told so, and so is who may have: not everything that was handled is acknowledged.
	wantSetBack(t, r, "300", "ahead", "behind")
	earlier.wantTold(t, 451, 300, later, 301, 400)
	behind.handle(t, nc, 451)
	ahead.last = 300
	ahead.handle(t, nc, 451)
}

func wantSetBack(t *testing.T, r *Relay, want string, names ...string) {
	t.Helper()
	for _, name := range names {
		c, err := r.js.Consumer(t.Context(), DefaultStream, name)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.CachedInfo().Config.Metadata[cloudevent.MetadataSetBack]; got != want {
			t.Errorf("consumer %s was set back to %q, want %q", name, got, want)
		}
	}
}

// wantTold fails the test unless the log says at a position that what another had between two is void.
func (s *site) wantTold(t *testing.T, position, fork int64, other *site, from, to int64) {
	t.Helper()
	events, err := s.ReadAll(t.Context(), position-1, 1)
	if err != nil || len(events) == 0 || events[0].Type != eventstore.TypeRestored {
		t.Fatalf("at %d: %+v, %v, want a %s", position, events, err, eventstore.TypeRestored)
	}
	var got eventstore.Restored
	if err := json.Unmarshal(events[0].Data, &got); err != nil {
		t.Fatal(err)
	}
	lost, err := other.ReadAll(t.Context(), from-1, int(to-from+1))
	if err != nil {
		t.Fatal(err)
	}
	want := eventstore.Restored{Fork: fork, Last: to, Voided: to - from + 1, Part: 1, Parts: 1}
	for _, e := range lost {
		want.Void = append(want.Void, eventstore.VoidEvent{Position: e.Position, ID: e.ID, Type: e.Type, Stream: e.Stream.ID, Subject: e.Stream.Subject.String()})
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what is told (-want +got):\n%s", diff)
	}
}

// A relay that is to follow mends the stream by itself, once, and goes on.
func TestFollowsARestore(t *testing.T) {
	t.Parallel()
	earlier, later := restored(t, 300, 100)
	nc := connection(t, devstack.NATS(t))
	if err := later.relay(t, nc).Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	ahead := newSubscriber(t, nc, jetstream.ConsumerConfig{Durable: "ahead"})
	ahead.handle(t, nc, 350)
	follow := func(c *Config) { c.FollowRestores = true }
	// It was halted before it was told to.
	if err := earlier.relay(t, nc).Flush(t.Context()); !errors.Is(err, ErrStreamAhead) {
		t.Fatalf("Flush() = %v, want ErrStreamAhead", err)
	}
	earlier.appendEvents(t, 50)
	r := earlier.relay(t, nc, follow)
	devstack.Background(t, r.Run)
	devstack.Eventually(t, "the relay goes on", func() bool { return r.Status().State == StateRunning && r.Status().Published == 351 })
	earlier.wantTold(t, 351, 300, later, 301, 400)
	earlier.checkStream(t, nc)
	wantSetBack(t, r, "300", "ahead")
	ahead.last = 300
	ahead.handle(t, nc, 351)
	if got := r.Counters(); got.Restores != 1 || got.Rebuilds != 1 {
		t.Errorf("%+v, want one restore, by one rebuild", got)
	}
	earlier.appendEvents(t, 10)
	earlier.awaitPublished(t, r)
	earlier.checkStream(t, nc)
}

// It follows no log that has nothing of what is in the stream: that is the wrong one.
func TestFollowsNoOtherLog(t *testing.T) {
	t.Parallel()
	one, other := newSite(t), newSite(t)
	one.appendEvents(t, 20)
	other.appendEvents(t, 30)
	nc := connection(t, devstack.NATS(t))
	if err := one.relay(t, nc).Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	created := streamInfo(t, nc).Created
	for range 2 {
		r := other.relay(t, nc, func(c *Config) { c.FollowRestores = true })
		if err := r.Flush(t.Context()); !errors.Is(err, ErrHalted) || !strings.Contains(err.Error(), ErrNothingCommon.Error()) {
			t.Fatalf("Flush() = %v, want %v", err, ErrNothingCommon)
		}
	}
	if got := streamInfo(t, nc); !got.Created.Equal(created) || got.State.LastSeq != 20 {
		t.Errorf("the stream was touched: %+v", got)
	}
}

// lose takes the newest events from a log, as a database does that gives way to one that lacks them.
func (s *site) lose(t *testing.T, n int64) {
	t.Helper()
	if _, err := s.store.Exec(t.Context(), "DELETE FROM events WHERE position > (SELECT max(position) FROM events) - $1", n); err != nil {
		t.Fatal(err)
	}
}

// The log gets another history while the relay runs, and gets past where the relay was. Not one event is published that does
// not continue what was published before.
func TestAnotherHistoryWhileRunning(t *testing.T) {
	t.Parallel()
	onBothStores(t, func(t *testing.T, s *site) {
		nc := connection(t, devstack.NATS(t))
		r := s.relay(t, nc)
		devstack.Background(t, r.Run)
		s.appendEvents(t, 12)
		s.awaitPublished(t, r)
		s.lose(t, 3)
		s.appendEvents(t, 5)
		devstack.Eventually(t, "the relay has halted", func() bool { return r.Status().State == StateHalted })
		if got := lastSequence(t, nc); got != 12 {
			t.Errorf("the stream goes up to %d, want 12", got)
		}
		if got := r.Status().Error; !strings.Contains(got, "another log") && !strings.Contains(got, "ahead of the log") {
			t.Errorf("it says %q", got)
		}
	})
}

// Nothing is appended after the log has lost its end: the renewal of the lease shows it, long before the poll.
func TestLostEndOfTheLogIsNoticed(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	nc := connection(t, devstack.NATS(t))
	r := s.relay(t, nc, func(c *Config) { c.Poll = time.Hour })
	devstack.Background(t, r.Run)
	s.appendEvents(t, 12)
	s.awaitPublished(t, r)
	s.lose(t, 3)
	devstack.Eventually(t, "the relay has halted", func() bool { return r.Status().State == StateHalted })
}

// A message that is not the log's, with one after it that is, as a relay of another history may have left it: that is no damage
// that could be healed behind the subscribers' backs.
func TestForeignMessageIsNoDamage(t *testing.T) {
	t.Parallel()
	for name, follow := range map[string]bool{"halts": false, "follows": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			nc := connection(t, devstack.NATS(t))
			r := s.relay(t, nc, func(c *Config) { c.FollowRestores = follow })
			devstack.Background(t, r.Run)
			s.appendEvents(t, 100)
			s.awaitPublished(t, r)
			reader := newSubscriber(t, nc, jetstream.ConsumerConfig{Durable: "reader"})
			reader.handle(t, nc, 80)
			if _, err := s.store.Exec(t.Context(), "UPDATE events SET event_id = $1 WHERE position = 50", uuid.New()); err != nil {
				t.Fatal(err)
			}
			report, err := r.Scrub(t.Context())
			if err != nil || report.Foreign != 1 || report.Damaged() || !slices.Equal(report.Positions, []int64{50}) {
				t.Fatalf("Scrub() = %+v, %v, want one foreign message at 50 and no damage", report, err)
			}
			if !follow {
				devstack.Eventually(t, "the relay has halted", func() bool { return r.Status().State == StateHalted })
				if err := r.Reset(t.Context(), false); err != nil {
					t.Fatal(err)
				}
			}
			devstack.Eventually(t, "the stream is made anew", func() bool { return r.Status().State == StateRunning && r.Status().Published == 101 })
			s.checkStream(t, nc)
			wantSetBack(t, r, "49", "reader")
			reader.last = 49
			reader.handle(t, nc, 101)
		})
	}
}

// A stream whose last sequence would fit, but which has another log's event there.
func TestForeignStream(t *testing.T) {
	t.Parallel()
	earlier, later := restored(t, 300, 100)
	earlier.appendEvents(t, 500)
	nc := connection(t, devstack.NATS(t))
	if err := later.relay(t, nc).Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := earlier.relay(t, nc).Flush(t.Context()); !errors.Is(err, ErrForeignStream) || !errors.Is(err, ErrHalted) {
		t.Fatalf("Flush() = %v, want ErrForeignStream", err)
	}
	r := earlier.relay(t, nc)
	if err := r.Reset(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if err := r.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	earlier.checkStream(t, nc)
}

// A stream of the same name with messages that are not ours is left alone too.
func TestStreamOfSomebodyElse(t *testing.T) {
	t.Parallel()
	s, nc := newSite(t), connection(t, devstack.NATS(t))
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: DefaultStream, Subjects: []string{"orders"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "orders", []byte("one")); err != nil {
		t.Fatal(err)
	}
	s.appendEvents(t, 10)
	if err := s.relay(t, nc).Flush(t.Context()); !errors.Is(err, ErrForeignStream) {
		t.Errorf("Flush() = %v, want ErrForeignStream", err)
	}
	if got := streamInfo(t, nc); got.State.Msgs != 1 || got.Config.Subjects[0] != "orders" {
		t.Errorf("the stream was touched: %+v", got)
	}
}

// A reset of a healthy relay while it publishes.
func TestResetWhileRunning(t *testing.T) {
	t.Parallel()
	onBothStores(t, resetWhileRunning)
}

func resetWhileRunning(t *testing.T, s *site) {
	nc := connection(t, devstack.NATS(t))
	r := s.relay(t, nc)
	devstack.Background(t, r.Run)
	s.appendEvents(t, 200)
	s.awaitPublished(t, r)
	created := streamInfo(t, nc).Created
	if err := s.relay(t, nc).Reset(t.Context(), false); !errors.Is(err, ErrNotHalted) {
		t.Errorf("Reset of a relay that is well = %v, want ErrNotHalted", err)
	}
	if status, err := ReadStatus(t.Context(), s.Log, s.store, DefaultStream, time.Now()); err != nil || status.State == StateReset || !status.Alive {
		t.Errorf("ReadStatus() = %+v, %v, want a relay that is asked for nothing", status, err)
	}
	if err := s.relay(t, nc).Reset(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	halt := s.keepAppending(t, 2)
	devstack.Eventually(t, "the stream is made anew", func() bool { return r.Counters().Rebuilds == 1 && r.Status().State == StateRunning })
	halt()
	s.awaitPublished(t, r)
	s.checkStream(t, nc)
	if !streamInfo(t, nc).Created.After(created) {
		t.Error("the stream is still the old one")
	}
}

// An event that the broker does not take stops the relay there. Nothing after it is published, until the broker takes it.
func TestUnpublishable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	small := func(limit int32) func(*devstack.NATSOptions) {
		return func(o *devstack.NATSOptions) {
			o.StoreDir = dir
			o.Configure = func(c *server.Options) { c.MaxPayload = limit }
		}
	}
	s, broker := newSite(t), devstack.NATS(t, small(1024))
	nc := connection(t, broker)
	s.appendEvents(t, 3)
	r := s.relay(t, nc)
	devstack.Background(t, r.Run)
	s.awaitPublished(t, r)
	s.appendLarge(t, 2000)
	s.appendEvents(t, 3)
	devstack.Eventually(t, "the relay is blocked", func() bool { return r.Status().State == StateBlocked })
	if got := r.Status(); got.Published != 3 || !strings.Contains(got.Error, "position 4") {
		t.Errorf("Status() = %+v, want 3 published and position 4 named", got)
	}
	if got := lastSequence(t, nc); got != 3 {
		t.Errorf("the stream goes up to %d, want 3", got)
	}
	broker.Shutdown()
	larger := devstack.NATS(t, small(8192))
	again := s.relay(t, connection(t, larger), func(c *Config) { c.Holder = r.Holder })
	devstack.Background(t, again.Run)
	s.awaitPublished(t, again)
	s.checkStream(t, connection(t, larger))
}

func TestConfigurationIsBroughtBack(t *testing.T) {
	t.Parallel()
	s, nc := newSite(t), connection(t, devstack.NATS(t))
	s.appendEvents(t, 10)
	if err := s.relay(t, nc).Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	want := streamInfo(t, nc).Config
	changed := want
	changed.Description = "what an operator writes"
	changed.AllowDirect = false
	changed.MaxMsgs = 1000
	changed.Duplicates = time.Minute
	if _, err := js.UpdateStream(t.Context(), changed); err != nil {
		t.Fatal(err)
	}
	s.appendEvents(t, 10)
	if err := s.relay(t, nc, func(c *Config) { c.Stream.MaxAge = time.Hour; c.Stream.MaxBytes = 1 << 30 }).Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := streamInfo(t, nc).Config
	if !got.AllowDirect || got.MaxMsgs != -1 || got.Duplicates != want.Duplicates || got.MaxAge != time.Hour || got.MaxBytes != 1<<30 {
		t.Errorf("configuration %+v was not brought back", got)
	}
	if got.Description != changed.Description {
		t.Errorf("description %q was taken away", got.Description)
	}
	s.checkStream(t, nc)
}

// A stream that keeps events for a limited time begins with the first that is young enough.
func TestFirstSequence(t *testing.T) {
	t.Parallel()
	s, nc := newSite(t), connection(t, devstack.NATS(t))
	s.appendEvents(t, 100)
	if _, err := s.store.Exec(t.Context(), "UPDATE events SET recorded_at = $1 WHERE position <= 40", time.Now().Add(-48*time.Hour).UTC()); err != nil {
		t.Fatal(err)
	}
	day := func(c *Config) { c.Stream.MaxAge = 24 * time.Hour }
	r := s.relay(t, nc, day)
	if err := r.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.checkStreamFrom(t, nc, 41)
	s.appendEvents(t, 10)
	if err := r.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.checkStreamFrom(t, nc, 41)
	if got := r.Counters(); got.Rebuilds != 0 || got.TailsLost != 0 {
		t.Errorf("%+v, want no losses", got)
	}
	if report, err := r.Scrub(t.Context()); err != nil || report.Damaged() || report.Checked != 70 {
		t.Errorf("Scrub() = %+v, %v, want 70 messages and no damage", report, err)
	}
}
