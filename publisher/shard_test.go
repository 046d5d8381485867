package publisher

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/eventstore"
	"usher.example/eventstore/cloudevent"
	"usher.example/identity"
	"usher.example/internal/devstack"
)

// publishPerUser publishes what the stream lacks under the subjects of the version before shards.
func (s *site) publishPerUser(t testing.TB, nc *nats.Conn) {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	events, err := s.ReadAll(t.Context(), lastSequence(t, nc), 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		header, body := cloudevent.Encode(e, cloudevent.Options{Source: "urn:usher:test"})
		header.Set(jetstream.ExpectedLastSeqHeader, strconv.FormatInt(e.Position-1, 10))
		subject := cloudevent.Subject(e)
		if e.Stream.Subject != uuid.Nil {
			subject = "usher.v1." + e.Stream.Subject.String() + "." + e.Type
		}
		if _, err := js.PublishMsg(t.Context(), &nats.Msg{Subject: subject, Header: header, Data: body}); err != nil {
			t.Fatal(err)
		}
	}
}

func (s *site) mustRotateKey(t testing.TB) {
	t.Helper()
	if _, err := s.Append(t.Context(), eventstore.Append{
		Stream: eventstore.SystemStream("keys"), Expected: eventstore.AnyVersion,
		Events: []eventstore.NewEvent{identity.NewEvent(identity.KeyRotated{KeyID: "key", Algorithm: "ES256", SignsFrom: time.Now().UTC()})},
	}); err != nil {
		t.Fatal(err)
	}
}

// A stream whose subjects name users is made anew under the same sequences, once. Durable consumers go on where they are,
// but for one that names a user: it waits for its owner.
func TestSubjectsOfUsersBecomeShards(t *testing.T) {
	t.Parallel()
	onBothStores(t, func(t *testing.T, s *site) {
		nc := connection(t, devstack.NATS(t))
		s.mustFlush(t, s.relay(t, nc)) // makes the stream
		ada := s.mustRegister(t)
		s.appendEvents(t, 100)
		s.mustRotateKey(t) // whose subject is the same in both versions
		s.publishPerUser(t, nc)

		all := newSubscriber(t, nc, jetstream.ConsumerConfig{Durable: "all"})
		some := newSubscriber(t, nc, jetstream.ConsumerConfig{Durable: "some", FilterSubject: "usher.v1.*.user.imported"})
		newSubscriber(t, nc, jetstream.ConsumerConfig{Durable: "one", FilterSubjects: []string{"usher.v1." + ada.String() + ".>", "usher.v1.system.>"}})
		all.handle(t, nc, 50)
		some.handleOne(t, nc, 1)
		before := streamInfo(t, nc)

		r := s.relay(t, nc)
		s.mustFlush(t, r)
		s.checkStream(t, nc)
		if n, created := r.Counters().Rebuilds, streamInfo(t, nc).Created; n != 1 || created.Equal(before.Created) {
			t.Errorf("%d rebuilds, want 1", n)
		}
		all.handle(t, nc, s.head(t))
		some.handleOne(t, nc, 3) // 2 is of a session
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		one, err := js.Consumer(t.Context(), DefaultStream, "one")
		if err != nil {
			t.Fatal(err)
		}
		info := one.CachedInfo()
		if !info.Paused || info.Config.Metadata[cloudevent.MetadataPerUser] == "" || !strings.Contains(info.Config.FilterSubjects[0], ada.String()) {
			t.Errorf("the consumer that names a user is paused: %v, with %v and %v", info.Paused, info.Config.Metadata, info.Config.FilterSubjects)
		}

		// Once the owner has named another filter it gets everything since.
		info.Config.FilterSubjects = []string{"usher.v1." + cloudevent.Shard(ada) + ".>", "usher.v1.system.>"}
		if _, err := js.UpdateConsumer(t.Context(), DefaultStream, info.Config); err != nil {
			t.Fatal(err)
		}
		if _, err := js.ResumeConsumer(t.Context(), DefaultStream, "one"); err != nil {
			t.Fatal(err)
		}
		(&subscriber{name: "one"}).handleOne(t, nc, 1)

		// It is done once, whoever comes next.
		for range 2 {
			s.appendEvents(t, 5)
			next := s.relay(t, nc)
			s.mustFlush(t, next)
			wantSound(t, next)
		}
		s.checkStream(t, nc)
	})
}

// Relays of both versions that take turns, as during an upgrade, leave a stream with both kinds of subjects.
func TestSubjectsOfBothKinds(t *testing.T) {
	t.Parallel()
	s, nc := newSite(t), connection(t, devstack.NATS(t))
	s.appendEvents(t, 20)
	s.mustFlush(t, s.relay(t, nc))
	s.mustRegister(t) // its last event is a session's
	s.publishPerUser(t, nc)
	s.mustRotateKey(t)
	s.publishPerUser(t, nc)
	r := s.relay(t, nc)
	s.mustFlush(t, r)
	s.checkStream(t, nc)
	if n := r.Counters().Rebuilds; n != 1 {
		t.Errorf("%d rebuilds, want 1", n)
	}
}

// A message under another subject than its event has is found by a scrub, wherever it is.
func TestScrubFindsWhatIsMisplaced(t *testing.T) {
	t.Parallel()
	s, nc := newSite(t), connection(t, devstack.NATS(t))
	s.mustFlush(t, s.relay(t, nc))
	s.appendEvents(t, 5)
	s.publishPerUser(t, nc)
	s.appendEvents(t, 5)
	events, err := s.ReadAll(t.Context(), 5, 5)
	if err != nil {
		t.Fatal(err)
	}
	r := s.relay(t, nc)
	for _, e := range events {
		header, body := cloudevent.Encode(e, cloudevent.Options{Source: "urn:usher:test"})
		if _, err := r.js.PublishMsg(t.Context(), &nats.Msg{Subject: cloudevent.Subject(e), Header: header, Data: body}); err != nil {
			t.Fatal(err)
		}
	}
	report, err := r.Scrub(t.Context())
	if err != nil || report.Misplaced != 5 || !slices.Equal(report.Positions, []int64{1, 2, 3, 4, 5}) || report.Foreign+report.Missing != 0 {
		t.Fatalf("Scrub() = %+v, %v, want 5 misplaced", report, err)
	}
	s.mustFlush(t, r)
	s.checkStream(t, nc)
}

// The messages of a user are deleted one by one, so a relay can be killed between any two of them. The next one deletes
// the others before it says that the user is erased.
func TestKilledWhileErasing(t *testing.T) {
	t.Parallel()
	s, server := newSite(t), devstack.NATS(t)
	nc := connection(t, server)
	sameHolder := func(c *Config) { c.Holder = "the same each time" }
	requests, err := nc.SubscribeSync("$JS.API.STREAM.MSG.DELETE." + DefaultStream)
	if err != nil {
		t.Fatal(err)
	}
	erased := map[uuid.UUID]int64{}
	partly := 0
	for range 2 * *dose {
		user := s.mustRegister(t)
		for range 2 * requestsAhead {
			s.mustStartSession(t, user)
		}
		s.mustFlush(t, s.relay(t, nc, sameHolder))
		at := s.erase(t, user)
		erased[user] = at
		cmd, _ := startRelay(t, s.dsn, server.URL())
		if _, err := requests.NextMsg(30 * time.Second); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err == nil {
			t.Fatal("the relay ended before it was killed")
		}
		told := lastSequence(t, nc) >= at
		switch left := len(inStream(t, nc, user)); {
		case told && left > 1:
			t.Fatalf("%d messages of an erased user are left, and it is told", left)
		case !told && left > 0:
			partly++
		}
		s.mustFlush(t, s.relay(t, nc, sameHolder))
		for { // what the relays ask for from here on is not the next one's
			if _, err := requests.NextMsg(time.Millisecond); err != nil {
				break
			}
		}
	}
	for user, at := range erased {
		wantErased(t, nc, user, at)
	}
	wantSound(t, s.relay(t, nc, sameHolder))
	t.Logf("%d of %d kills came while a user's messages were being deleted", partly, 2**dose)
}
