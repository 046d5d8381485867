package publisher

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/eventstore/cloudevent"
	"usher.example/internal/devstack"
)

// A rebuild that dies at a step is finished by the next relay, also if the stream is to be reset by then: what it knew of durable
// consumers it had written down before it deleted them. The relay that dies is one that lacks a right from there on.
func TestRebuildCutAtEachStep(t *testing.T) {
	t.Parallel()
	for step, right := range map[string]string{
		"delete the stream":         "$JS.API.STREAM.DELETE.>",
		"create the stream":         "$JS.API.STREAM.CREATE.>",
		"fill the stream":           cloudevent.SubjectPrefix + ">",
		"make a consumer":           "$JS.API.CONSUMER.CREATE.>",
		"reset the first consumer":  "$JS.API.CONSUMER.RESET.*.early",
		"release the first":         "$JS.API.CONSUMER.PAUSE.*.early",
		"reset the second consumer": "$JS.API.CONSUMER.RESET.*.late",
		"release the second":        "$JS.API.CONSUMER.PAUSE.*.late",
	} {
		for _, then := range []string{"", "reset"} {
			t.Run(strings.TrimSpace(step+" "+then), func(t *testing.T) {
				t.Parallel()
				cutRebuild(t, right, then == "reset")
			})
		}
	}
}

func cutRebuild(t *testing.T, right string, reset bool) {
	const events = 40
	s := newSite(t)
	broker := devstack.NATS(t, func(o *devstack.NATSOptions) {
		o.DontListen = true
		o.Configure = func(o *server.Options) {
			o.Users = []*server.User{
				{Username: "whole"},
				{Username: "cut", Permissions: &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{right}}}},
			}
			o.NoAuthUser = "whole"
		}
	})
	nc := connection(t, broker)
	same := func(c *Config) { c.Holder = "the same each time" }
	s.appendEvents(t, events)
	if err := s.relay(t, nc, same).Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	early := newSubscriber(t, nc, jetstream.ConsumerConfig{Durable: "early"})
	late := newSubscriber(t, nc, jetstream.ConsumerConfig{Durable: "late"})
	early.handle(t, nc, 5)
	late.handle(t, nc, 30)
	before := consumerConfigs(t, nc)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), DefaultStream)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.DeleteMsg(t.Context(), 20); err != nil {
		t.Fatal(err)
	}

	ctx, die := context.WithCancel(t.Context())
	defer die()
	refused := make(chan struct{}, 1)
	lame, err := broker.Connect(nats.UserInfo("cut", ""), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {
		select {
		case refused <- struct{}{}:
		default:
		}
		die()
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer lame.Close()
	if err := s.relay(t, lame, same).Flush(ctx); err == nil {
		t.Fatal("the rebuild was not cut short")
	}
	select {
	case <-refused:
	default:
		t.Fatal("it was cut short by something else")
	}

	r := s.relay(t, nc, same)
	if reset {
		if err := r.Reset(t.Context(), true); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.checkStream(t, nc)
	early.handle(t, nc, events)
	late.handle(t, nc, events)
	if after := consumerConfigs(t, nc); !slices.Equal(after, before) {
		t.Errorf("consumers afterwards:\n%s\nbefore:\n%s", strings.Join(after, "\n"), strings.Join(before, "\n"))
	}
}
