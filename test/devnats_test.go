package test

import (
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Whoever connects to the NATS of `usher dev` without a login, as anything on the machine can, reads what is published, and does
// nothing that usher depends on.
func TestDevNATSWithoutALogin(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	_, c := d.startDev()
	if info, err := os.Stat(filepath.Join(d.dir, "data", "addresses.json")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("addresses.json, which has a password, has the mode %v, %v", info.Mode(), err)
	}
	ada := c.mustRegister(t, "ada@example.org")
	eventually(t, "the registration is published", func() error { return d.caughtUp(ada.position) })

	at, err := url.Parse(d.natsURL)
	if err != nil {
		t.Fatal(err)
	}
	refused := make(chan error, 64)
	conn, err := nats.Connect("nats://"+at.Host, nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused <- err }))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), "USHER")
	if err != nil {
		t.Fatal(err)
	}
	ordered, err := stream.OrderedConsumer(t.Context(), jetstream.OrderedConsumerConfig{FilterSubjects: []string{"usher.v1.*.user.registered"}})
	if err != nil {
		t.Fatal(err)
	}
	durable, err := stream.CreateConsumer(t.Context(), jetstream.ConsumerConfig{Durable: "billing", AckPolicy: jetstream.AckExplicitPolicy, FilterSubject: "usher.v1.*.user.registered"})
	if err != nil {
		t.Fatal(err)
	}
	for name, consumer := range map[string]jetstream.Consumer{"an ordered consumer": ordered, "a durable one": durable} {
		m, err := consumer.Next(jetstream.FetchMaxWait(patience))
		if err != nil {
			t.Errorf("%s gets %v", name, err)
		} else if name == "a durable one" {
			if err := m.DoubleAck(t.Context()); err != nil {
				t.Errorf("%s can't acknowledge: %v", name, err)
			}
		}
	}
	live, err := conn.SubscribeSync("usher.v1.>")
	if err != nil {
		t.Fatal(err)
	}
	c.mustRegister(t, "bob@example.org")
	if _, err := live.NextMsg(patience); err != nil {
		t.Errorf("a plain subscription gets %v", err)
	}
	// A consumer that its reader deletes goes by itself soon; that is all that was refused so far.
	for len(refused) > 0 {
		if err := <-refused; !strings.Contains(err.Error(), "$JS.API.CONSUMER.DELETE.USHER.") {
			t.Error(err)
		}
	}

	for _, subject := range []string{
		"usher.v1.a3.user.registered", "usher.appended", "$JS.API.STREAM.DELETE.USHER", "$JS.API.STREAM.PURGE.USHER", "$JS.API.STREAM.UPDATE.USHER", "$JS.API.STREAM.CREATE.MINE",
		"$JS.API.STREAM.MSG.DELETE.USHER", "$JS.API.CONSUMER.DELETE.USHER.projection-users", "$JS.API.CONSUMER.CREATE.USHER", "$JS.API.CONSUMER.CREATE.USHER.projection-users",
		"$JS.API.CONSUMER.CREATE.USHER.projection-users.usher.v1.>", "$JS.API.CONSUMER.DURABLE.CREATE.USHER.mail", "$JS.API.CONSUMER.MSG.NEXT.USHER.projection-users",
		"$JS.API.CONSUMER.RESET.USHER.projection-users", "$JS.API.CONSUMER.PAUSE.USHER.projection-users",
		"$JS.API.CONSUMER.LIST.USHER", "$JS.API.CONSUMER.NAMES.USHER", "$JS.ACK.USHER.projection-users.1.1.1.1.1", "_INBOX.usher.a.b",
	} {
		if err := conn.Publish(subject, nil); err != nil {
			t.Fatal(err)
		}
		wantViolation(t, refused, "somebody without a login publishes "+subject)
	}
	if _, err := conn.Subscribe("_INBOX.usher.>", func(*nats.Msg) {}); err != nil {
		t.Fatal(err)
	}
	wantViolation(t, refused, "somebody without a login subscribes to usher's replies")
	if _, err := nats.Connect("nats://usher:guess@" + at.Host); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("a wrong password: %v", err)
	}

	// usher's own commands have the login.
	if out := d.command("check", "--component", "broker", "--verbose"); out == "" {
		t.Error("usher check says nothing")
	}
}
