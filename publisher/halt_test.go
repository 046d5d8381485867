package publisher

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

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
	// Who had read further is told so.
	for name, want := range map[string]string{"ahead": "300", "behind": ""} {
		c, err := r.js.Consumer(t.Context(), DefaultStream, name)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.CachedInfo().Config.Metadata[cloudevent.MetadataSetBack]; got != want {
			t.Errorf("consumer %s was set back to %q, want %q", name, got, want)
		}
	}
	behind.handle(t, nc, 450)
	ahead.last = 300
	ahead.handle(t, nc, 450)
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
