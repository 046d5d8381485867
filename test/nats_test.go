package test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/internal/devstack"
	"usher.example/internal/devstack/mailserver"
	"usher.example/subscription"
)

// guardedNATS is a server with the users and permissions of deploy/nats/nats.conf. url is its address for one of them.
func guardedNATS(t *testing.T) (url func(user string) string) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "deploy", "nats", "nats.conf"))
	if err != nil {
		t.Fatal(err)
	}
	// Every password is the user's name, as in a file that somebody filled in.
	conf := string(raw)
	for _, user := range []string{"relay", "api", "worker", "usher", "operator", "verifier", "billing"} {
		conf = strings.ReplaceAll(conf, "$NATS_"+strings.ToUpper(user)+"_PASSWORD", user)
	}
	path := filepath.Join(t.TempDir(), "nats.conf")
	if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	opts, err := server.ProcessConfigFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !opts.JetStream || !opts.SyncAlways {
		t.Errorf("the file sets JetStream %v, syncing always %v", opts.JetStream, opts.SyncAlways)
	}
	s := devstack.NATS(t, func(o *devstack.NATSOptions) {
		o.Configure = func(s *server.Options) { s.Users, s.SyncAlways = opts.Users, opts.SyncAlways }
	})
	return func(user string) string { return strings.Replace(s.URL(), "nats://", "nats://"+user+":"+user+"@", 1) }
}

// connectAs connects as one of the users. Refused permissions are told through the channel.
func connectAs(t *testing.T, url func(string) string, user string) (*nats.Conn, jetstream.JetStream, <-chan error) {
	t.Helper()
	refused := make(chan error, 16)
	conn, err := nats.Connect(url(user), nats.CustomInboxPrefix("_INBOX."+user), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		refused <- err
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return conn, js, refused
}

// With the users of deploy/nats/nats.conf every process can do its work, and none can do another's.
func TestLeastPrivilegeOnNATS(t *testing.T) {
	t.Parallel()
	url := guardedNATS(t)
	d := newServeDeployment(t, database(t), url("api"))
	mails := mailserver.Start(t, mailserver.Options{})
	d.env = append(d.env, "SMTP_URL="+mails.URL(), "WEBHOOK_ALLOW=127.0.0.0/8")
	_, c := d.startServe()
	e := newEndpoint(t)
	d.addWebhook(e, "--events", "user.registered")
	d.env = append(d.env, "NATS_URL="+url("relay"))
	d.start("publish", "--continuous")
	d.env = append(d.env, "NATS_URL="+url("worker"))
	d.start("project")
	webhooks := d.start("webhooks", "run")
	ada := c.mustRegister(t, "ada@example.org")
	eventually(t, "the event is published and in the read model", func() error { return d.caughtUp(ada.position) })
	eventually(t, "the mail that it calls for is sent", func() error { return wantMails(mails, 1) })
	e.taken(t, 1)
	if said := webhooks.stderr.String(); strings.Contains(said, "permissions violation") || strings.Contains(said, "were left") {
		t.Errorf("the webhooks worker may not do its work:\n%s", said)
	}
	for component, user := range map[string]string{"projections": "worker", "webhooks": "worker", "mail": "api"} {
		d.env = append(d.env, "NATS_URL="+url(user))
		if out := d.command("check", "--component", component, "--verbose"); !strings.Contains(out, " pull ") {
			t.Errorf("usher check of %s as %s does not try whether it may pull:\n%s", component, user, out)
		}
	}
	d.env = append(d.env, "NATS_URL="+url("operator"))
	if out := d.command("check", "--component", "broker", "--verbose"); strings.Contains(out, "failed") {
		t.Errorf("usher check as the operator:\n%s", out)
	}

	// The relay looks through the stream, and whoever does everything in one process reads it as well.
	for _, user := range []string{"relay", "usher"} {
		_, js, _ := connectAs(t, url, user)
		look, err := js.OrderedConsumer(t.Context(), "USHER", jetstream.OrderedConsumerConfig{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := look.Next(jetstream.FetchMaxWait(10 * time.Second)); err != nil {
			t.Errorf("%s reads the stream: %v", user, err)
		}
	}

	// A service makes the durable consumer that has its user's name, and reads with no other rights.
	_, operator, _ := connectAs(t, url, "operator")
	if _, err := operator.CreateConsumer(t.Context(), "USHER", jetstream.ConsumerConfig{Durable: "search", AckPolicy: jetstream.AckExplicitPolicy}); err != nil {
		t.Fatal(err)
	}
	conn, billing, refused := connectAs(t, url, "billing")
	consumer, err := billing.CreateConsumer(t.Context(), "USHER", jetstream.ConsumerConfig{Durable: "billing", AckPolicy: jetstream.AckExplicitPolicy})
	if err != nil {
		t.Fatal(err)
	}
	batch, err := consumer.Fetch(1, jetstream.FetchMaxWait(10*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	got := 0
	for m := range batch.Messages() {
		got++
		if err := m.DoubleAck(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if got != 1 || batch.Error() != nil {
		t.Errorf("the service fetched %d messages, %v, want 1", got, batch.Error())
	}

	// The API makes the consumer of the mails anew where somebody made another of it.
	_, js, _ := connectAs(t, url, "api")
	if err := js.DeleteConsumer(t.Context(), "USHER", "mail"); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		t.Errorf("the API deletes its own consumer: %v", err)
	}

	_, js, _ = connectAs(t, url, "verifier")
	verifierKeepsToItsPlaces(t, js, operator)

	for user, subjects := range map[string][]string{
		"verifier": {
			"usher.v1.forged.user.registered", "usher.appended", "$JS.API.STREAM.DELETE.USHER", "$JS.API.STREAM.PURGE.USHER", "$JS.API.STREAM.MSG.GET.USHER",
			"$JS.API.DIRECT.GET.USHER", "$JS.API.CONSUMER.LIST.USHER", "$JS.API.CONSUMER.NAMES.USHER", "$JS.API.CONSUMER.DELETE.USHER.billing", "$JS.API.CONSUMER.MSG.NEXT.USHER.billing", "$JS.ACK.USHER.billing.1.1.1.1.1",
			// A consumer of everything, of events with personal data, outside its places, and in the place of another's; and what others read.
			"$JS.API.CONSUMER.CREATE.USHER", "$JS.API.CONSUMER.CREATE.USHER.mine", "$JS.API.CONSUMER.DURABLE.CREATE.USHER.mine", "$JS.API.CONSUMER.CREATE.USHER.mine.usher.v1.>",
			"$JS.API.CONSUMER.CREATE.USHER.mine.usher.v1.*.session.ended", "$JS.API.CONSUMER.CREATE.USHER.verifier-session-ended-8.usher.v1.*.session.ended",
			"$JS.API.CONSUMER.CREATE.USHER.verifier-session-ended-0", "$JS.API.CONSUMER.DURABLE.CREATE.USHER.verifier-session-ended-0",
			"$JS.API.CONSUMER.CREATE.USHER.verifier-session-ended-0.usher.v1.*.user.email_changed", "$JS.API.CONSUMER.CREATE.USHER.verifier-session-ended-0.usher.v1.>",
			"$JS.API.CONSUMER.CREATE.USHER.billing.usher.v1.*.session.ended", "$JS.API.CONSUMER.CREATE.USHER.mail.usher.v1.*.session.ended",
			"$JS.API.CONSUMER.CREATE.USHER.search.usher.v1.*.session.ended", "$JS.API.CONSUMER.INFO.USHER.search", "$JS.API.CONSUMER.INFO.USHER.mail",
			"$JS.API.CONSUMER.DELETE.USHER.search", "$JS.API.CONSUMER.MSG.NEXT.USHER.search", "$JS.API.CONSUMER.RESET.USHER.search", "$JS.API.CONSUMER.PAUSE.USHER.search",
			"$JS.FC.USHER.search.AbCd", "$JS.FC._.abcdefgh.USHER.search.AbCd", "$JS.ACK.USHER.search.1.1.1.1.1",
		},
		"billing": {
			"usher.v1.forged.user.registered", "usher.appended", "$JS.API.CONSUMER.CREATE.USHER.mine", "$JS.API.CONSUMER.CREATE.USHER.search.>", "$JS.API.STREAM.DELETE.USHER",
			"$JS.API.STREAM.PURGE.USHER", "$JS.API.STREAM.MSG.GET.USHER", "$JS.API.DIRECT.GET.USHER", "$JS.API.CONSUMER.MSG.NEXT.USHER.search", "$JS.API.CONSUMER.MSG.NEXT.USHER.mail",
			"$JS.API.CONSUMER.INFO.USHER.search", "$JS.ACK.USHER.search.1.1.1.1.1", "$JS.ACK.USHER.projection-users.1.1.1.1.1", "$JS.API.CONSUMER.DELETE.USHER.search",
		},
		"api":      {"usher.v1.forged.user.registered", "$JS.API.STREAM.DELETE.USHER", "$JS.API.CONSUMER.MSG.NEXT.USHER.billing", "$JS.API.CONSUMER.CREATE.USHER.mine"},
		"worker":   {"usher.v1.forged.user.registered", "$JS.API.STREAM.DELETE.USHER", "$JS.API.STREAM.UPDATE.USHER", "$JS.API.STREAM.PURGE.USHER"},
		"operator": {"usher.v1.forged.user.registered"},
	} {
		conn, _, refused := connectAs(t, url, user)
		for _, subject := range subjects {
			if err := conn.Publish(subject, nil); err != nil {
				t.Fatal(err)
			}
			wantViolation(t, refused, user+" publishes "+subject)
		}
	}
	for _, subject := range []string{"usher.v1.>", "_INBOX.>", "_INBOX.relay.>", ">", "usher.appended"} {
		if _, err := conn.Subscribe(subject, func(*nats.Msg) {}); err != nil {
			t.Fatal(err)
		}
		wantViolation(t, refused, "billing subscribes to "+subject)
	}
	if _, err := nats.Connect(strings.Replace(url("relay"), ":relay@", ":guess@", 1)); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("a wrong password: %v, want %v", err, nats.ErrAuthorization)
	}
}

// A service that verifies tokens makes consumers of what ends sessions in its places, and the server holds it to that: whatever it
// says of others they stay as they were made.
func verifierKeepsToItsPlaces(t *testing.T, js, operator jetstream.JetStream) {
	t.Helper()
	const place, filter = "verifier-session-ended-0", "usher.v1.*.session.ended"
	search, err := operator.Consumer(t.Context(), "USHER", "search")
	if err != nil {
		t.Fatal(err)
	}
	before := search.CachedInfo()
	for _, c := range []jetstream.ConsumerConfig{
		{Name: place, FilterSubject: "usher.v1.*.user.registered"}, {Name: place, FilterSubjects: []string{filter, "usher.v1.>"}}, {Name: place},
		{Durable: "search", FilterSubject: filter, AckPolicy: jetstream.AckExplicitPolicy},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if _, err := js.CreateOrUpdateConsumer(ctx, "USHER", c); err == nil {
			t.Errorf("the verifier may make a consumer %+v", c)
		}
		cancel()
	}
	for _, config := range []string{
		`"name": "` + place + `", "filter_subject": "usher.v1.>"`,
		`"name": "` + place + `", "filter_subject": "` + filter + `", "filter_subjects": ["usher.v1.>"]`,
		`"durable_name": "search", "filter_subject": "` + filter + `"`,
	} {
		answer, err := js.Conn().RequestWithContext(t.Context(), "$JS.API.CONSUMER.CREATE.USHER."+place+"."+filter,
			[]byte(`{"stream_name": "USHER", "config": {`+config+`, "ack_policy": "explicit"}}`))
		if err != nil || !strings.Contains(string(answer.Data), `"error"`) {
			t.Errorf("the verifier makes another consumer than the subject says, %s: %v", config, err)
		}
	}
	if after, err := search.Info(t.Context()); err != nil || !cmp.Equal(before.Config, after.Config) || before.NumPending != after.NumPending {
		t.Errorf("the consumer that an operator made is %+v, was %+v: %v", after, before, err)
	}

	feed := &subscription.RevocationFeed{JetStream: js, Lifetime: time.Hour,
		EndSession: func(uuid.UUID) {}, EndUser: func(uuid.UUID, time.Time, uuid.UUID) {}}
	stop := devstack.Background(t, feed.Run)
	select {
	case <-feed.Ready():
	case <-time.After(patience):
		t.Error("the verifier's feed is not ready")
	}
	ready := time.Now()
	eventually(t, "the feed knows that it is still current", func() error {
		if age := feed.Age(); age > time.Since(ready) {
			return fmt.Errorf("it is of %v ago, as when it became ready", age)
		}
		return nil
	})
	stop()
	stream, err := operator.Stream(t.Context(), "USHER")
	if err != nil {
		t.Fatal(err)
	}
	for name := range stream.ConsumerNames(t.Context()).Name() {
		if strings.HasPrefix(name, "verifier-") {
			t.Errorf("the feed left %s", name)
		}
	}
}

func wantViolation(t *testing.T, refused <-chan error, what string) {
	t.Helper()
	select {
	case err := <-refused:
		if !errors.Is(err, nats.ErrPermissionViolation) {
			t.Errorf("%s: %v, want %v", what, err, nats.ErrPermissionViolation)
		}
	case <-time.After(patience):
		t.Errorf("%s and is not refused", what)
	}
}
