package subscription_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/eventstore/cloudevent"
	"usher.example/internal/devstack"
	"usher.example/subscription"
)

func TestBrokerStopsAndComesBack(t *testing.T) {
	t.Parallel()
	s, l := setup(t), newLedger()
	start(t, s.on(l))
	users := newUsers(5)
	for i := range int64(3) {
		s.append(t, 100, users...)
		s.publish(t, cloudevent.Options{})
		if i%2 == 0 {
			l.await(t, 100*(i+1))
		}
		s.broker.Shutdown()
		s.append(t, 1, newUsers(1)...) // the log goes on
		if err := s.broker.Restart(); err != nil {
			t.Fatal(err)
		}
		devstack.Eventually(t, "the connection is back", s.js.Conn().IsConnected)
	}
	s.publish(t, cloudevent.Options{})
	l.await(t, s.head(t))
	l.exact(t, s)
}

func TestConsumerDeleted(t *testing.T) {
	t.Parallel()
	s, l := setup(t), newLedger()
	start(t, s.on(l))
	users := newUsers(5)
	for range 5 {
		s.append(t, 50, users...)
		s.publish(t, cloudevent.Options{})
		if err := s.js.DeleteConsumer(t.Context(), subscription.Stream, "test"); err != nil {
			t.Log(err) // the subscription has not made it yet
		}
	}
	l.await(t, 250)
	l.exact(t, s)
}

// The relay rebuilds a damaged stream: with the same sequences, and with its durable consumers.
func TestStreamDeletedAndMadeAgain(t *testing.T) {
	t.Parallel()
	s, l := setup(t), newLedger()
	start(t, s.on(l))
	users := newUsers(5)
	s.append(t, 120, users...)
	s.publish(t, cloudevent.Options{})
	l.await(t, 120)
	for range 2 {
		if err := s.js.DeleteStream(t.Context(), subscription.Stream); err != nil {
			t.Fatal(err)
		}
		s.append(t, 40, users...)
		s.createStream(t, jetstream.StreamConfig{})
		s.publish(t, cloudevent.Options{})
		l.await(t, s.head(t))
	}
	l.exact(t, s)
}

// What was published last is lost with the server's disk and published again.
func TestTailOfTheStreamLost(t *testing.T) {
	t.Parallel()
	s, l := setup(t), newLedger()
	start(t, s.on(l))
	s.append(t, 100, newUsers(5)...)
	s.publish(t, cloudevent.Options{})
	l.await(t, 100)
	if err := s.js.DeleteStream(t.Context(), subscription.Stream); err != nil {
		t.Fatal(err)
	}
	s.createStream(t, jetstream.StreamConfig{FirstSeq: 61})
	devstack.Eventually(t, "the subscription is at the stream again", func() bool {
		_, err := s.js.Consumer(t.Context(), subscription.Stream, "test")
		return err == nil
	})
	events, err := s.log.ReadAll(t.Context(), 60, 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		header, body := cloudevent.Encode(e, cloudevent.Options{})
		if _, err := s.js.PublishMsg(t.Context(), &nats.Msg{Subject: cloudevent.Subject(e), Header: header, Data: body}); err != nil {
			t.Fatal(err)
		}
	}
	s.append(t, 10, newUsers(1)...)
	s.publish(t, cloudevent.Options{})
	l.await(t, 110)
	l.exact(t, s)
}

// The checkpoint goes back, as after the handler's database was restored.
func TestCheckpointSetBack(t *testing.T) {
	t.Parallel()
	s, l := setup(t), newLedger()
	s.append(t, 100, newUsers(5)...)
	s.publish(t, cloudevent.Options{})
	stop := start(t, s.on(l))
	l.await(t, 100)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	l.events, l.checkpoint = l.events[:30], 30
	sub := s.on(l)
	sub.Source = nil
	start(t, sub)
	l.await(t, 100)
	l.exact(t, s)
}

// Two processes run the same subscription by mistake, and share its checkpoint: nothing is handled twice, provided that
// the handler's checkpoint is a compare-and-set.
func TestTwoWorkersShareACheckpoint(t *testing.T) {
	t.Parallel()
	s, l := setup(t), newLedger()
	for range 2 {
		start(t, s.guarded(l))
	}
	users := newUsers(5)
	for range 4 {
		s.append(t, 25, users...)
		s.publish(t, cloudevent.Options{})
	}
	l.await(t, 100)
	l.exact(t, s)
}

// A service whose credential may read one durable consumer, made by an operator, and nothing else.
func TestReadOnlyCredential(t *testing.T) {
	t.Parallel()
	s := &stack{log: openLog(t), output: &devstack.Output{}}
	s.broker = devstack.NATS(t, func(o *devstack.NATSOptions) {
		o.Configure = func(o *server.Options) {
			o.Users = []*server.User{
				{Username: "operator", Password: "operator"},
				{Username: "service", Password: "service", Permissions: &server.Permissions{
					Publish: &server.SubjectPermission{Allow: []string{
						"$JS.API.CONSUMER.INFO.USHER.test", "$JS.API.CONSUMER.MSG.NEXT.USHER.test", "$JS.ACK.USHER.test.>",
					}},
					Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.service.>"}},
				}},
			}
		}
	})
	s.js = connect(t, s.broker, nats.UserInfo("operator", "operator"))
	s.createStream(t, jetstream.StreamConfig{})
	if _, err := s.js.CreateConsumer(t.Context(), subscription.Stream, jetstream.ConsumerConfig{
		Durable: "test", AckPolicy: jetstream.AckAllPolicy, MaxDeliver: -1,
	}); err != nil {
		t.Fatal(err)
	}
	l := newLedger()
	sub := s.on(l)
	sub.JetStream = connect(t, s.broker, nats.UserInfo("service", "service"), nats.CustomInboxPrefix("_INBOX.service"))
	sub.Source = nil
	start(t, sub)
	s.append(t, 100, newUsers(5)...)
	s.publish(t, cloudevent.Options{})
	l.await(t, 100)
	l.exact(t, s)
}

func TestConnectionClosed(t *testing.T) {
	t.Parallel()
	s, l := setup(t), newLedger()
	js := connect(t, s.broker)
	sub := s.on(l)
	sub.JetStream = js
	var once sync.Once
	sub.Checkpoint = func(ctx context.Context) (int64, error) {
		once.Do(js.Conn().Close)
		return l.read(ctx)
	}
	if err := run(t, sub); err != nats.ErrConnectionClosed {
		t.Errorf("Run() = %v, want %v", err, nats.ErrConnectionClosed)
	}
}

// Run ends after everything that it began: a message that is in hand is waited for, also where the connection is gone.
func TestRunOutlivesWhatIsInHand(t *testing.T) {
	t.Parallel()
	s, l := setup(t), newLedger()
	log := &holdingLog{Handler: slog.DiscardHandler, reached: make(chan struct{}), goOn: make(chan struct{})}
	sub := s.on(l)
	sub.Logger = slog.New(log)
	done := make(chan error, 1)
	go func() { done <- sub.Run(t.Context()) }()
	if _, err := s.js.Publish(t.Context(), cloudevent.SubjectPrefix+"00.user.registered", []byte("no event")); err != nil {
		t.Fatal(err)
	}
	<-log.reached
	s.js.Conn().Close()
	select {
	case err := <-done:
		t.Errorf("Run() = %v while a message is in hand", err)
		close(log.goOn)
	case <-time.After(time.Second): // a machine that is slower than this can't make the test fail
		close(log.goOn)
		if err := <-done; !errors.Is(err, nats.ErrConnectionClosed) {
			t.Errorf("Run() = %v, want %v", err, nats.ErrConnectionClosed)
		}
	}
}

// holdingLog keeps the first one who logs an error until it is told to go on.
type holdingLog struct {
	slog.Handler
	once    sync.Once
	reached chan struct{}
	goOn    chan struct{}
}

func (h *holdingLog) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelError
}

func (h *holdingLog) Handle(context.Context, slog.Record) error {
	h.once.Do(func() {
		close(h.reached)
		<-h.goOn
	})
	return nil
}

func (h *holdingLog) WithAttrs([]slog.Attr) slog.Handler { return h }
