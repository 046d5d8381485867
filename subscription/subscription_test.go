package subscription_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/eventstore"
	"usher.example/eventstore/cloudevent"
	"usher.example/internal/devstack"
	"usher.example/subscription"
)

func TestBacklogComesInBatches(t *testing.T) {
	t.Parallel()
	s, l := setup(t), newLedger()
	s.append(t, 1000, newUsers(1)...)
	s.publish(t, cloudevent.Options{})
	sub := s.on(l)
	ahead := make(chan struct{})
	sub.Handle = func(ctx context.Context, events []eventstore.Event) error {
		<-ahead
		return l.handle(ctx, events)
	}
	stop := start(t, sub)
	devstack.Eventually(t, "messages wait for the handler, but not all of them", func() bool {
		c, err := s.js.Consumer(t.Context(), subscription.Stream, "test")
		return err == nil && c.CachedInfo().Delivered.Stream >= 200 && c.CachedInfo().NumPending > 0
	})
	close(ahead)
	l.await(t, 1000)
	l.exact(t, s)
	if l.largest > 100 || l.largest < 2 {
		t.Errorf("largest batch = %d, want up to 100", l.largest)
	}
	devstack.Eventually(t, "the last event is acknowledged", func() bool {
		c, err := s.js.Consumer(t.Context(), subscription.Stream, "test")
		return err == nil && c.CachedInfo().AckFloor.Stream == 1000 && c.CachedInfo().NumAckPending == 0
	})
	if err := stop(); err != nil {
		t.Errorf("Run() = %v, want nil", err)
	}
}

func TestLoneEventsComeAtOnce(t *testing.T) {
	t.Parallel()
	s, l := setup(t), newLedger()
	start(t, s.on(l))
	users := newUsers(1)
	for i := range int64(50) {
		s.append(t, 1, users...)
		s.publish(t, cloudevent.Options{})
		l.await(t, i+1)
	}
	l.exact(t, s)
	if l.largest != 1 {
		t.Errorf("largest batch = %d, want 1", l.largest)
	}
}

func TestHandlerErrorIsTriedAgain(t *testing.T) {
	t.Parallel()
	s, l := setup(t), newLedger()
	s.append(t, 50, newUsers(3)...)
	s.publish(t, cloudevent.Options{})
	sub := s.on(l)
	failures := 3
	sub.Handle = func(ctx context.Context, events []eventstore.Event) error {
		if failures > 0 {
			failures--
			return errors.New("out of order")
		}
		return l.handle(ctx, events)
	}
	start(t, sub)
	l.await(t, 50)
	l.exact(t, s)
}

func TestFinalErrorEndsRun(t *testing.T) {
	t.Parallel()
	s, l := setup(t), newLedger()
	s.append(t, 1, newUsers(1)...)
	s.publish(t, cloudevent.Options{})
	sub := s.on(l)
	broken := errors.New("broken")
	sub.Handle = func(context.Context, []eventstore.Event) error { return subscription.Final(broken) }
	if err := run(t, sub); !errors.Is(err, broken) {
		t.Errorf("Run() = %v, want %v", err, broken)
	}
	if err := subscription.Final(nil); err != nil {
		t.Errorf("Final(nil) = %v, want nil", err)
	}
}

// A handler that dies after it has stored its work and before the message is acknowledged must not see the events again.
func TestCrashBetweenHandlingAndAcknowledging(t *testing.T) {
	t.Parallel()
	s, l := setup(t), newLedger()
	s.append(t, 500, newUsers(1)...)
	s.publish(t, cloudevent.Options{})
	died := errors.New("died")
	for crashes := 0; ; crashes++ {
		sub := s.on(l)
		sub.MaxBatch = 60
		sub.Handle = func(ctx context.Context, events []eventstore.Event) error {
			if err := l.handle(ctx, events); err != nil {
				return err
			}
			return subscription.Final(died)
		}
		if err := run(t, sub); !errors.Is(err, died) {
			t.Fatalf("Run() = %v, want %v", err, died)
		}
		if at, _ := l.read(t.Context()); at == 500 {
			break
		}
	}
	l.exact(t, s)
}

// A second client that takes messages from the durable consumer and never acknowledges them makes them come later, out of
// order, and among those that were handled already.
func TestRedeliveryOutOfOrder(t *testing.T) {
	t.Parallel()
	for name, source := range map[string]bool{"with a source": true, "without a source": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, l := setup(t), newLedger()
			c, err := s.js.CreateConsumer(t.Context(), subscription.Stream, jetstream.ConsumerConfig{
				Durable: "test", AckPolicy: jetstream.AckAllPolicy, AckWait: 1e8, MaxDeliver: -1,
			})
			if err != nil {
				t.Fatal(err)
			}
			sub := s.on(l)
			if !source {
				sub.Source = nil
			}
			start(t, sub)
			users := newUsers(3)
			for range 20 {
				// The thief's pull and the subscription's take turns.
				thief, err := c.Fetch(3, jetstream.FetchMaxWait(20e6))
				if err != nil {
					t.Fatal(err)
				}
				s.append(t, 10, users...)
				s.publish(t, cloudevent.Options{})
				for range thief.Messages() {
				}
			}
			l.await(t, 200)
			devstack.Eventually(t, "everything is acknowledged", func() bool {
				info, err := c.Info(t.Context())
				return err == nil && info.NumAckPending == 0 && info.AckFloor.Stream == 200
			})
			l.exact(t, s)
		})
	}
}

func TestGapIsReadFromTheSource(t *testing.T) {
	t.Parallel()
	s, l := setup(t), newLedger()
	s.append(t, 300, newUsers(1)...)
	s.publish(t, cloudevent.Options{})
	for _, lost := range []uint64{1, 2, 50, 51, 52, 199} {
		if err := s.stream(t).DeleteMsg(t.Context(), lost); err != nil {
			t.Fatal(err)
		}
	}
	start(t, s.on(l))
	l.await(t, 300)
	l.exact(t, s)
}

func TestGapWithoutASource(t *testing.T) {
	t.Parallel()
	s, l := setup(t), newLedger()
	s.append(t, 100, newUsers(5)...)
	s.publish(t, cloudevent.Options{})
	for _, lost := range []uint64{40, 41} {
		if err := s.stream(t).DeleteMsg(t.Context(), lost); err != nil {
			t.Fatal(err)
		}
	}
	sub := s.on(l)
	sub.Source = nil
	err := run(t, sub)
	var gap *subscription.GapError
	if !errors.Is(err, subscription.ErrGap) || !errors.As(err, &gap) || *gap != (subscription.GapError{After: 39, Next: 42}) {
		t.Errorf("Run() = %v, want a gap between 39 and 42", err)
	}
	if at, _ := l.read(t.Context()); at != 39 {
		t.Errorf("checkpoint = %d, want 39: what came before the gap is handled", at)
	}
}

// The stream no longer holds its start, because it is limited by age.
func TestStreamWithoutItsStart(t *testing.T) {
	t.Parallel()
	s, l := setup(t), newLedger()
	s.append(t, 250, newUsers(1)...)
	s.publish(t, cloudevent.Options{})
	if err := s.stream(t).Purge(t.Context(), jetstream.WithPurgeSequence(201)); err != nil {
		t.Fatal(err)
	}
	start(t, s.on(l))
	l.await(t, 250)
	l.exact(t, s)
}

func TestMessageThatIsNoEvent(t *testing.T) {
	t.Parallel()
	s, l := setup(t), newLedger()
	users := newUsers(2)
	s.append(t, 10, users...)
	s.publish(t, cloudevent.Options{})
	s.append(t, 2, users...)
	if _, err := s.js.Publish(t.Context(), "usher.v1.system.nonsense", []byte("not an event")); err != nil {
		t.Fatal(err)
	}
	events, err := s.log.ReadAll(t.Context(), 10, 1)
	if err != nil {
		t.Fatal(err)
	}
	header, body := cloudevent.Encode(events[0], cloudevent.Options{}) // says 11 and becomes 12
	if _, err := s.js.PublishMsg(t.Context(), &nats.Msg{Subject: "usher.v1.system.nonsense", Header: header, Data: body}); err != nil {
		t.Fatal(err)
	}
	start(t, s.on(l))
	l.await(t, 12)
	l.exact(t, s)
}

func TestPersonalFieldsComeFromTheSource(t *testing.T) {
	t.Parallel()
	s, l := setup(t), newLedger()
	s.append(t, 100, newUsers(5)...)
	s.publish(t, cloudevent.Options{OmitPersonal: true})
	sub := s.on(l)
	sub.Personal = true
	start(t, sub)
	l.await(t, 100)
	l.exact(t, s)

	sub, l = s.on(newLedger()), newLedger()
	sub.Name, sub.Checkpoint, sub.Handle = "open", l.read, l.handle
	start(t, sub)
	l.await(t, 100)
	if got := string(l.events[0].Payload()); strings.Contains(got, "Ann") {
		t.Errorf("payload = %s, want no personal fields where nobody asks for them", got)
	}
}
