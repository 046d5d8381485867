package main

import (
	"testing"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/eventstore/cloudevent"
	"usher.example/internal/devstack"
	"usher.example/publisher"
)

// A stream that somebody emptied, and consumers that somebody changed or that wait for their owner, are told at once.
func TestCheckOfTheBroker(t *testing.T) {
	t.Parallel()
	broker := devstack.NATS(t)
	env := append(settingsFor(migratedPostgres(t)), "NATS_URL="+broker.URL())
	usher(t, t.TempDir(), env, "users", "create", "ada@example.org", "--verified").wantDone(t)
	usher(t, t.TempDir(), env, "publish").wantDone(t)
	conn, err := broker.Connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), publisher.DefaultStream)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []jetstream.ConsumerConfig{
		{Durable: "projection-users", AckPolicy: jetstream.AckAllPolicy, MaxDeliver: -1},
		{Durable: "projection-sessions", AckPolicy: jetstream.AckAllPolicy, MaxDeliver: -1, HeadersOnly: true},
		{Durable: "billing", AckPolicy: jetstream.AckExplicitPolicy, HeadersOnly: true},
		{Durable: "crm", FilterSubject: "usher.v1." + uuid.NewString() + ".>", Metadata: map[string]string{cloudevent.MetadataPerUser: "true"}},
	} {
		if _, err := stream.CreateConsumer(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	want := func(stream health, exit int) {
		t.Helper()
		code, status, details := checked(t, env, "--component", "broker")
		for name, want := range map[string]health{
			"broker/stream": stream, "broker/consumer projection-users": healthy, "broker/consumer projection-sessions": warning,
			"broker/consumer billing": healthy, "broker/consumer crm": warning,
		} {
			if status[name] != want {
				t.Errorf("%s is %q, want %q\n%s", name, status[name], want, details)
			}
		}
		if code != exit {
			t.Errorf("exit code %d, want %d", code, exit)
		}
	}
	want(healthy, exitDone)
	if err := stream.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	want(failed, exitFailed)
	usher(t, t.TempDir(), env, "publish").wantDone(t) // fills it again
	want(healthy, exitDone)
}
