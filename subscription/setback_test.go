package subscription_test

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"usher.example/eventstore/cloudevent"
	"usher.example/subscription"
)

// gated is a broker that does something the first time a durable consumer is to be set, before it is: between the look at it and
// the setting.
type gated struct {
	jetstream.JetStream
	first  sync.Once
	before func()
}

func (g *gated) ResetConsumerToSequence(ctx context.Context, stream, consumer string, sequence uint64) (*jetstream.ConsumerResetResponse, error) {
	g.first.Do(g.before)
	return g.JetStream.ResetConsumerToSequence(ctx, stream, consumer, sequence)
}

// The relay makes the durable consumer anew, behind the checkpoint and with its mark, after the subscription has looked at the one
// before and before that is set to the checkpoint: the one that is set is the relay's, whose acknowledgements go as far as the
// checkpoint then. The subscription is told all the same that the log was restored.
func TestRestoredBetweenTheLookAndTheSetting(t *testing.T) {
	t.Parallel()
	s, l := setup(t), newLedger()
	s.append(t, 20, newUsers(2)...)
	s.publish(t, cloudevent.Options{})
	stop := start(t, s.on(l)) // which makes the first consumer
	l.await(t, 20)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	l.checkpoint = 12 // what is acknowledged goes further, so it has to be set
	sub := s.on(l)
	sub.JetStream = &gated{JetStream: s.js, before: func() { s.setBack(t, "9", 9) }}
	wantRestored(t, run(t, sub), subscription.RestoredError{After: 9, Checkpoint: 12})
	if len(l.events) != 20 {
		t.Errorf("%d events were handed over, want none after the 20 before", len(l.events))
	}
}

// Another durable consumer that says nothing of a restore may take the place as well, as where its owner makes it anew: nothing is
// lost or handed over twice by that.
func TestAnotherBetweenTheLookAndTheSetting(t *testing.T) {
	t.Parallel()
	s, l := setup(t), newLedger()
	s.append(t, 20, newUsers(2)...)
	s.publish(t, cloudevent.Options{})
	stop := start(t, s.on(l))
	l.await(t, 20)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	l.events, l.checkpoint = l.events[:12], 12
	sub := s.on(l)
	sub.JetStream = &gated{JetStream: s.js, before: func() {
		if err := s.js.DeleteConsumer(t.Context(), subscription.Stream, sub.Name); err != nil {
			t.Error(err)
		}
		if _, err := s.js.CreateConsumer(t.Context(), subscription.Stream, jetstream.ConsumerConfig{
			Durable: sub.Name, AckPolicy: jetstream.AckAllPolicy, MaxDeliver: -1, MaxAckPending: 400,
		}); err != nil {
			t.Error(err)
		}
	}}
	start(t, sub)
	l.await(t, 20)
	l.exact(t, s)
	if !strings.Contains(s.output.String(), "another took its place") {
		t.Error("it went on from a consumer that it had not looked at")
	}
}
