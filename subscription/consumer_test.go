package subscription_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/eventstore/cloudevent"
	"usher.example/internal/devstack"
	"usher.example/subscription"
)

func TestDrift(t *testing.T) {
	t.Parallel()
	ours := jetstream.ConsumerConfig{Durable: "test", AckPolicy: jetstream.AckAllPolicy, MaxDeliver: -1, MaxAckPending: 1, Description: "any"}
	filtered := ours
	filtered.FilterSubject = "usher.v1.a3.>"
	changed := ours
	changed.HeadersOnly, changed.MaxDeliver, changed.FilterSubjects = true, 3, []string{"usher.v1.system.>"}
	for name, test := range map[string]struct {
		config   jetstream.ConsumerConfig
		subjects []string
		want     []string
	}{
		"as it was made":   {ours, nil, nil},
		"with its filter":  {filtered, []string{"usher.v1.a3.>"}, nil},
		"another filter":   {filtered, nil, []string{"FilterSubjects is [usher.v1.a3.>], wanted []"}},
		"changed by hand":  {changed, nil, []string{"MaxDeliver is 3, wanted -1", "HeadersOnly is true, wanted false", "FilterSubjects is [usher.v1.system.>], wanted []"}},
		"somebody else's":  {jetstream.ConsumerConfig{MaxDeliver: -1}, nil, []string{"AckPolicy is AckExplicit, wanted AckAll"}},
		"without a filter": {ours, []string{"usher.v1.a3.>"}, []string{"FilterSubjects is [], wanted [usher.v1.a3.>]"}},
	} {
		if diff := cmp.Diff(test.want, subscription.Drift(test.config, test.subjects...)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// Somebody edits the durable consumer of a subscription that runs, so that it brings nothing more, or no bodies: the
// subscription notices, sets it right and hands everything over.
func TestConsumerChangedByHand(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*jetstream.ConsumerConfig){
		"filtered":     func(c *jetstream.ConsumerConfig) { c.FilterSubject = "usher.v1.system.>" },
		"headers only": func(c *jetstream.ConsumerConfig) { c.HeadersOnly = true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, l := setup(t), newLedger()
			users := newUsers(3)
			s.append(t, 20, users...)
			s.publish(t, cloudevent.Options{})
			sub := s.on(l)
			start(t, sub)
			l.await(t, 20)
			consumer, err := s.stream(t).Consumer(t.Context(), sub.Name)
			if err != nil {
				t.Fatal(err)
			}
			config := consumer.CachedInfo().Config
			change(&config)
			if _, err := s.js.UpdateConsumer(t.Context(), subscription.Stream, config); err != nil {
				t.Fatal(err)
			}
			devstack.Eventually(t, "the consumer is as it was", func() bool {
				now, err := s.stream(t).Consumer(t.Context(), sub.Name)
				return err == nil && subscription.Drift(now.CachedInfo().Config) == nil
			})
			s.append(t, 20, users...)
			s.publish(t, cloudevent.Options{})
			l.await(t, 40)
			l.exact(t, s)
		})
	}
}

// What the server never changes about a consumer makes it anew, where the checkpoint is beside the log. Elsewhere it is
// somebody's mistake, and told.
func TestConsumerOfAnotherKind(t *testing.T) {
	t.Parallel()
	s, l := setup(t), newLedger()
	s.append(t, 20, newUsers(3)...)
	s.publish(t, cloudevent.Options{})
	sub := s.on(l)
	if _, err := s.stream(t).CreateConsumer(t.Context(), jetstream.ConsumerConfig{Durable: sub.Name, AckPolicy: jetstream.AckExplicitPolicy}); err != nil {
		t.Fatal(err)
	}
	sub.BesideLog = true
	start(t, sub)
	l.await(t, 20)
	l.exact(t, s)
}
