package test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/eventstore"
	"usher.example/eventstore/cloudevent"
)

// event is an event as `usher events` prints it.
type event struct {
	Position int64
	ID       string
	Type     string
	Subject  string
	Stream   string
	Version  int
	Data     struct{ Email, Name string }
}

func parseEvents(t *testing.T, text string) (events []event) {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(text))
	for {
		var e event
		if err := decoder.Decode(&e); errors.Is(err, io.EOF) {
			return events
		} else if err != nil {
			t.Fatalf("read events: %v", err)
		}
		events = append(events, e)
	}
}

// history is the whole log. It fails unless positions are gapless and versions ascend in every stream.
func (d *deployment) history() []event {
	d.t.Helper()
	events := parseEvents(d.t, d.command("events", "tail", "--from", "1", "--no-follow", "--json"))
	versions := map[string]int{}
	for i, e := range events {
		if e.Position != int64(i+1) {
			d.t.Fatalf("event %d of the log is at position %d", i+1, e.Position)
		}
		if versions[e.Stream]++; e.Version != versions[e.Stream] {
			d.t.Errorf("position %d has version %d of stream %s, want %d", e.Position, e.Version, e.Stream, versions[e.Stream])
		}
	}
	return events
}

// wantRegistered fails unless every registration that was answered is in the log, at the position that was told.
func wantRegistered(t *testing.T, log []event, registrations []registration) {
	t.Helper()
	for _, r := range registrations {
		if r.position < 1 || r.position > int64(len(log)) {
			t.Errorf("%s was answered with position %d and the log ends at %d", r.Email, r.position, len(log))
			continue
		}
		if e := log[r.position-1]; e.Type != "user.registered" || e.Subject != r.ID || e.Data.Email != r.Email {
			t.Errorf("%s was answered with position %d, where there is %s of %s", r.Email, r.position, e.Type, e.Data.Email)
		}
	}
}

// registeredUsers counts the users that a log has.
func registeredUsers(log []event) (n int) {
	for _, e := range log {
		if e.Type == "user.registered" {
			n++
		}
	}
	return n
}

// namesOf are the users of a log who are not erased, by their names.
func namesOf(log []event) map[string]string {
	names := map[string]string{}
	for _, e := range log {
		switch e.Type {
		case "user.registered", "user.profile_updated":
			names[e.Subject] = e.Data.Name
		case "user.erased":
			delete(names, e.Subject)
		}
	}
	return names
}

// wantOnce fails unless an address was registered exactly once, or not at all where it may not have been.
func wantOnce(t *testing.T, log []event) {
	t.Helper()
	at := map[string]int64{}
	for _, e := range log {
		if e.Type != "user.registered" {
			continue
		}
		if first := at[e.Data.Email]; first != 0 {
			t.Errorf("%s was registered at %d and at %d", e.Data.Email, first, e.Position)
		}
		at[e.Data.Email] = e.Position
	}
}

// connect connects to the broker for as long as the test runs.
func (d *deployment) connect() *nats.Conn {
	d.t.Helper()
	conn, err := nats.Connect(d.natsURL)
	if err != nil {
		d.t.Fatalf("connect to NATS: %v", err)
	}
	d.t.Cleanup(conn.Close)
	return conn
}

// wantPublished waits until the log is published, and fails unless the JetStream stream has every event of it exactly
// once and in order.
func (d *deployment) wantPublished(log []event) {
	d.t.Helper()
	js, err := jetstream.New(d.connect())
	if err != nil {
		d.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	defer cancel()
	var stream jetstream.Stream
	eventually(d.t, "the log is published", func() error {
		if stream, err = js.Stream(ctx, "USHER"); err != nil {
			return err
		}
		if last := stream.CachedInfo().State.LastSeq; last < uint64(len(log)) {
			return fmt.Errorf("up to %d of %d", last, len(log))
		}
		return nil
	})
	if state := stream.CachedInfo().State; state.FirstSeq != 1 || state.Msgs != uint64(len(log)) {
		d.t.Errorf("the JetStream stream has %d messages from %d on, want %d", state.Msgs, state.FirstSeq, len(log))
	}
	consumer, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{})
	if err != nil {
		d.t.Fatal(err)
	}
	messages, err := consumer.Messages()
	if err != nil {
		d.t.Fatal(err)
	}
	defer messages.Stop()
	for i, want := range log {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			d.t.Fatalf("message %d: %v", i+1, err)
		}
		meta, err := m.Metadata()
		if err != nil {
			d.t.Fatal(err)
		}
		got := decodeMessage(d.t, m.Headers(), m.Data())
		if meta.Sequence.Stream != uint64(want.Position) || got.Position != want.Position || got.ID.String() != want.ID ||
			m.Subject() != "usher.v1."+shard(want.Subject)+"."+want.Type {
			d.t.Fatalf("message %d is position %d, %s on %s; want position %d, %s", meta.Sequence.Stream, got.Position, got.ID,
				m.Subject(), want.Position, want.ID)
		}
	}
}

// shard is the part of a subject that says which users' events come under it.
func shard(user string) string {
	if user == "system" {
		return user
	}
	return user[len(user)-2:]
}

func decodeMessage(t *testing.T, header nats.Header, body []byte) eventstore.Event {
	t.Helper()
	e, err := cloudevent.Decode(header, body)
	if err != nil {
		t.Fatalf("message is no event: %v", err)
	}
	return e
}

// wantReadModel fails unless the read model has exactly the users of a log, with every address as it was registered.
func (d *deployment) wantReadModel(c *client, log []event) {
	d.t.Helper()
	listed := c.users(d.t, c.login(d.t, d.admin), int64(len(log)))
	registered := 0
	for _, e := range log {
		if e.Type != "user.registered" {
			continue
		}
		registered++
		if u := listed[e.Subject]; u.Email != e.Data.Email || u.Name != e.Data.Name {
			d.t.Errorf("the read model has %+v for %s of position %d", u, e.Data.Email, e.Position)
		}
	}
	if len(listed) != registered {
		d.t.Errorf("the read model has %d users, the log %d", len(listed), registered)
	}
}

// subscribers listen as other services do: one at the plain subject, one at a durable consumer.
type subscribers struct {
	plain   *nats.Subscription
	durable jetstream.Consumer
}

func (d *deployment) subscribe() subscribers {
	d.t.Helper()
	conn := d.connect()
	plain, err := conn.SubscribeSync("usher.v1.>")
	if err != nil {
		d.t.Fatal(err)
	}
	if err := conn.Flush(); err != nil {
		d.t.Fatal(err)
	}
	js, err := jetstream.New(conn)
	if err != nil {
		d.t.Fatal(err)
	}
	var durable jetstream.Consumer
	eventually(d.t, "there is a JetStream stream to subscribe to", func() (err error) {
		durable, err = js.CreateOrUpdateConsumer(d.t.Context(), "USHER", jetstream.ConsumerConfig{
			Durable: "billing", AckPolicy: jetstream.AckExplicitPolicy, FilterSubject: "usher.v1.*.user.registered",
		})
		return err
	})
	return subscribers{plain, durable}
}

// wantEvent fails unless both subscribers get the registration, as a CloudEvent.
func (s subscribers) wantEvent(t *testing.T, r registration) {
	t.Helper()
	check := func(who, subject string, header nats.Header, body []byte) bool {
		t.Helper()
		e := decodeMessage(t, header, body)
		if e.Position != r.position {
			return false
		}
		var payload struct{ Email, Name string }
		if err := json.Unmarshal(body, &payload); err != nil {
			t.Fatalf("%s: %v", who, err)
		}
		if subject != "usher.v1."+shard(r.ID)+".user.registered" || payload.Email != r.Email || header["ce-specversion"][0] != "1.0" ||
			header["ce-type"][0] != "user.registered" || header["ce-subject"][0] != r.ID {
			t.Errorf("%s got %s %v %s, want the registration of %s", who, subject, header, body, r.Email)
		}
		return true
	}
	for deadline := time.Now().Add(patience); ; {
		m, err := s.plain.NextMsg(time.Until(deadline))
		if err != nil {
			t.Fatalf("plain subscriber: %v", err)
		}
		if strings.HasPrefix(m.Subject, "usher.v1.") && check("plain subscriber", m.Subject, m.Header, m.Data) {
			break
		}
	}
	for {
		m, err := s.durable.Next(jetstream.FetchMaxWait(patience))
		if err != nil {
			t.Fatalf("durable consumer: %v", err)
		}
		if err := m.Ack(); err != nil {
			t.Fatal(err)
		}
		if check("durable consumer", m.Subject(), m.Headers(), m.Data()) {
			break
		}
	}
}
