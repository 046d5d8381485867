package subscription_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/eventstore"
	"usher.example/eventstore/cloudevent"
	"usher.example/identity"
	"usher.example/internal/devstack"
	"usher.example/subscription"
)

// setBack makes the consumer of the tests as the relay does after a restore: to go on after a position, of which it has a mark.
func (s *stack) setBack(t *testing.T, after string, floor uint64) {
	t.Helper()
	if err := s.js.DeleteConsumer(t.Context(), subscription.Stream, "test"); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		t.Fatal(err)
	}
	_, err := s.js.CreateConsumer(t.Context(), subscription.Stream, jetstream.ConsumerConfig{
		Durable: "test", AckPolicy: jetstream.AckAllPolicy, MaxDeliver: -1, MaxAckPending: 400, DeliverPolicy: jetstream.DeliverAllPolicy,
		Metadata: map[string]string{cloudevent.MetadataSetBack: after},
	})
	if errors.Is(err, jetstream.ErrConsumerExists) { // the subscription has made one meanwhile, which goes as the first did
		s.setBack(t, after, floor)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.js.ResetConsumerToSequence(t.Context(), subscription.Stream, "test", floor+1); err != nil {
		t.Fatal(err)
	}
}

func wantRestored(t *testing.T, err error, want subscription.RestoredError) {
	t.Helper()
	var got *subscription.RestoredError
	if !errors.As(err, &got) || *got != want {
		t.Errorf("Run() = %v, want %v", err, &want)
	}
}

// Whoever handled more than was acknowledged when the log was restored is told as well: the acknowledgements were on their way.
func TestRestoredBeyondTheAcknowledgements(t *testing.T) {
	t.Parallel()
	s, l := setup(t), newLedger()
	s.append(t, 20, newUsers(2)...)
	s.publish(t, cloudevent.Options{})
	s.setBack(t, "9", 7)
	l.checkpoint = 12
	wantRestored(t, run(t, s.on(l)), subscription.RestoredError{After: 9, Checkpoint: 12})
	l.checkpoint = 9
	sub := s.on(l)
	stop := start(t, sub)
	l.await(t, 11)
	// In the same process the mark is known to be over, whatever was acknowledged since.
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	start(t, sub)
	s.append(t, 5, newUsers(1)...)
	s.publish(t, cloudevent.Options{})
	l.await(t, 16)
}

// The consumer is made anew under a subscription that runs, behind its checkpoint.
func TestRestoredWhileRunning(t *testing.T) {
	t.Parallel()
	s, l := setup(t), newLedger()
	s.append(t, 20, newUsers(2)...)
	s.publish(t, cloudevent.Options{})
	done := make(chan error, 1)
	go func() { done <- s.on(l).Run(t.Context()) }()
	l.await(t, 20)
	s.setBack(t, "9", 9)
	wantRestored(t, ended(t, done), subscription.RestoredError{After: 9, Checkpoint: 20})
}

// A feed of revocations tells everything anew once the log tells that it was restored, and of what began in vain.
func TestRevocationFeedOfARestoredLog(t *testing.T) {
	t.Parallel()
	s := setup(t)
	h := &told{}
	renewed, done := make(chan struct{}, 9), make(chan struct{}, 9)
	f := &subscription.RevocationFeed{JetStream: connect(t, s.broker), Lifetime: time.Hour, EndSession: h.endSession, EndUser: h.endUser,
		Renew: func() func() {
			h.mu.Lock()
			h.sessions, h.users = nil, nil
			h.mu.Unlock()
			renewed <- struct{}{}
			return func() { done <- struct{}{} }
		}}
	devstack.Background(t, f.Run)
	wantReady(t, f)
	void := s.endSession(t, 0)
	devstack.Eventually(t, "the session is told of", func() bool { return h.session(void) })
	// The relay publishes what the log has now, under the same sequences.
	if err := s.js.DeleteStream(t.Context(), subscription.Stream); err != nil {
		t.Fatal(err)
	}
	s.createStream(t, jetstream.StreamConfig{})
	after := s.endSession(t, 0)
	began, user := uuid.Must(uuid.NewV7()), uuid.Must(uuid.NewV7())
	at := s.happen(t, eventstore.LogStream(), 0, eventstore.Restored{Fork: 0, Last: 1, Voided: 3, Part: 1, Parts: 1, Void: []eventstore.VoidEvent{
		{Position: 1, ID: uuid.New(), Type: identity.TypeSessionEnded, Stream: void, Subject: uuid.NewString()},
		{Position: 2, ID: uuid.New(), Type: identity.TypeSessionStarted, Stream: began, Subject: uuid.NewString()},
		{Position: 3, ID: uuid.New(), Type: identity.TypeUserRegistered, Stream: user, Subject: user.String()},
	}})
	<-renewed
	<-done
	sessions, users := h.all()
	if h.session(void) || !h.session(after) || !h.session(began) {
		t.Errorf("sessions %v, want %v and %v, and not %v", sessions, after, began, void)
	}
	if len(users) != 1 || users[0] != ending(user, at, uuid.Nil) {
		t.Errorf("users %v, want %v", users, user)
	}
	select {
	case <-renewed:
		t.Error("it is told anew a second time")
	default:
	}
}
