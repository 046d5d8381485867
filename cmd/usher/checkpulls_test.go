package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/internal/devstack"
	"usher.example/publisher"
)

// A NATS user who may not read through the durable consumers of read models is told so, and which permission that is. To try it
// takes nothing from the owner of a durable consumer, and leaves the owner's request waiting.
func TestCheckTriesPulls(t *testing.T) {
	t.Parallel()
	const next = "$JS.API.CONSUMER.MSG.NEXT.USHER."
	broker := devstack.NATS(t, func(o *devstack.NATSOptions) {
		user := func(name string, permissions *server.Permissions) *server.User {
			return &server.User{Username: name, Password: name, Permissions: permissions}
		}
		o.Configure = func(s *server.Options) {
			s.Users = []*server.User{
				user("all", nil),
				user("some", &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{next + "projection-users", next + "projection-stats"}}}),
				user("deaf", &server.Permissions{Subscribe: &server.SubjectPermission{Deny: []string{"_INBOX.>"}}}),
			}
		}
	})
	url := func(user string) string {
		return strings.Replace(broker.URL(), "nats://", "nats://"+user+":"+user+"@", 1)
	}
	settings := settingsFor(migratedPostgres(t))
	as := func(user string) []string {
		return append(settings[:len(settings):len(settings)], "NATS_URL="+url(user))
	}
	usher(t, t.TempDir(), as("all"), "users", "create", "ada@example.org", "--verified").wantDone(t)
	usher(t, t.TempDir(), as("all"), "publish").wantDone(t)

	conn, err := nats.Connect(url("all"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	// One has something for its owner, who does not ask; the other has nothing, and its owner waits.
	var consumers []jetstream.Consumer
	for _, c := range []jetstream.ConsumerConfig{
		{Durable: "projection-users", AckPolicy: jetstream.AckAllPolicy},
		{Durable: "projection-sessions", AckPolicy: jetstream.AckAllPolicy, DeliverPolicy: jetstream.DeliverNewPolicy},
	} {
		consumer, err := js.CreateConsumer(t.Context(), publisher.DefaultStream, c)
		if err != nil {
			t.Fatal(err)
		}
		consumers = append(consumers, consumer)
	}
	batch, err := consumers[1].Fetch(1, jetstream.FetchMaxWait(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	stand := func() (list []jetstream.ConsumerInfo) {
		t.Helper()
		for _, c := range consumers {
			info, err := c.Info(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, *info)
		}
		return list
	}
	var before []jetstream.ConsumerInfo
	devstack.Eventually(t, "the owner's request waits", func() bool {
		before = stand()
		return before[1].NumWaiting == 1
	})
	if before[0].NumPending == 0 {
		t.Fatal("nothing is there to be taken")
	}

	for _, c := range []struct {
		user  string
		pull  health
		says  []string
		spare string
	}{
		{"all", healthy, nil, "may not"},
		{"some", failed, []string{"the NATS user some may not publish to " + next + "projection-users, nor publish to " + next + "projection-stats; "}, "projection-sessions"},
		{"deaf", failed, []string{"the NATS user deaf may not subscribe to _INBOX.deaf."}, "projection"},
	} {
		_, status, details := checked(t, as(c.user), "--component", "projections")
		if got := status["projections/pull"]; got != c.pull {
			t.Errorf("%s: pull is %q, want %q\n%s", c.user, got, c.pull, details)
		}
		for _, text := range c.says {
			if !strings.Contains(details, text) {
				t.Errorf("%s: the check says\n%swant %q", c.user, details, text)
			}
		}
		for line := range strings.Lines(details) {
			if strings.Contains(line, "NATS user") && strings.Contains(line, c.spare) {
				t.Errorf("%s: the check says %s", c.user, line)
			}
		}
		if diff := cmp.Diff(before, stand(), cmpopts.IgnoreFields(jetstream.ConsumerInfo{}, "TimeStamp")); diff != "" {
			t.Errorf("%s: the durable consumers stand elsewhere after the check:\n%s", c.user, diff)
		}
	}

	usher(t, t.TempDir(), as("all"), "users", "create", "bob@example.org", "--verified").wantDone(t)
	usher(t, t.TempDir(), as("all"), "publish").wantDone(t)
	got := 0
	for range batch.Messages() {
		got++
	}
	if got != 1 || batch.Error() != nil {
		t.Errorf("the owner, who waited, got %d messages, %v, want 1", got, batch.Error())
	}
	if m, err := consumers[0].Next(jetstream.FetchMaxWait(time.Minute)); err != nil {
		t.Error(err)
	} else if meta, err := m.Metadata(); err != nil || meta.Sequence.Stream != 1 || meta.NumDelivered != 1 {
		t.Errorf("the owner, who had not asked, got %+v, %v, want the first message for the first time", meta, err)
	}
}
