package publisher

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
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

// mustRegister appends the first event of a user, and one of a session.
func (s *site) mustRegister(t testing.TB) uuid.UUID {
	t.Helper()
	user, err := s.register(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.mustStartSession(t, user)
	return user
}

func (s *site) mustStartSession(t testing.TB, user uuid.UUID) {
	t.Helper()
	if _, err := s.Append(t.Context(), eventstore.Append{
		Stream:   eventstore.SessionStream(uuid.Must(uuid.NewV7()), user),
		Events:   []eventstore.NewEvent{identity.NewEvent(identity.SessionStarted{Methods: []string{identity.MethodPassword}, ExpiresAt: time.Now()})},
		Metadata: eventstore.Metadata{Address: "192.0.2.77", UserAgent: agentOf(user)},
	}); err != nil {
		t.Fatal(err)
	}
}

// agentOf is a user agent that only one user has.
func agentOf(user uuid.UUID) string { return "Browser-of-" + user.String() }

// emailOf is the address that importUser gives a user.
func emailOf(user uuid.UUID) string { return user.String() + "@example.org" }

// erase appends a user's last event.
func (s *site) erase(t testing.TB, user uuid.UUID) int64 {
	t.Helper()
	r, err := s.Append(t.Context(), eventstore.Append{
		Stream: eventstore.UserStream(user), Expected: eventstore.AnyVersion, Events: []eventstore.NewEvent{identity.NewEvent(identity.Erased{})},
	})
	if err != nil {
		t.Fatal(err)
	}
	return r.Position
}

func (s *site) mustFlush(t testing.TB, r *Relay) {
	t.Helper()
	if err := r.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// inStream are the sequences of a user's messages.
func inStream(t testing.TB, nc *nats.Conn, user uuid.UUID) (sequences []int64) {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), DefaultStream)
	if err != nil {
		t.Fatal(err)
	}
	for at := uint64(1); ; {
		m, err := stream.GetMsg(t.Context(), at, jetstream.WithGetMsgSubject(cloudevent.ShardSubjects(cloudevent.Shard(user))))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return sequences
		}
		if err != nil {
			t.Fatal(err)
		}
		if m.Header.Get(cloudevent.HeaderSubject) == user.String() {
			sequences = append(sequences, int64(m.Sequence))
		}
		at = m.Sequence + 1
	}
}

// occurrences counts how often a text is in the files under a directory.
func occurrences(t testing.TB, dir, text string) (n int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		n += bytes.Count(raw, []byte(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// wantErased fails unless the stream has nothing of a user but that the user was erased, at a position.
func wantErased(t testing.TB, nc *nats.Conn, user uuid.UUID, at int64) {
	t.Helper()
	if got := inStream(t, nc, user); len(got) != 1 || got[0] != at {
		t.Errorf("the stream has messages of an erased user at %v, want %d alone", got, at)
	}
}

// wantSound fails unless the relay misses nothing and has nothing to mend.
func wantSound(t testing.TB, r *Relay) {
	t.Helper()
	if report, err := r.Scrub(t.Context()); err != nil || report.Damaged() {
		t.Errorf("Scrub() = %+v, %v, want no damage", report, err)
	}
	if err := r.Flush(t.Context()); err != nil {
		t.Error(err)
	}
	if n := r.Counters().Rebuilds; n != 0 {
		t.Errorf("the stream was rebuilt %d times", n)
	}
}

// What the stream has of a user is gone before it tells that the user is erased, from the broker's files as well, and it is
// not missed. Everybody else's messages stay.
func TestErase(t *testing.T) {
	t.Parallel()
	onBothStores(t, func(t *testing.T, s *site) {
		dir := t.TempDir()
		nc := connection(t, devstack.NATS(t, func(o *devstack.NATSOptions) { o.StoreDir = dir }))
		r := s.relay(t, nc)
		first := s.mustRegister(t)
		s.appendEvents(t, 50)
		ada, bob := s.mustRegister(t), s.mustRegister(t)
		s.appendEvents(t, 50)
		last := s.mustRegister(t)
		s.mustFlush(t, r)
		for _, user := range []uuid.UUID{first, ada, bob, last} {
			if n := len(inStream(t, nc, user)); n != 2 {
				t.Fatalf("%d messages of a user, want 2", n)
			}
			if occurrences(t, dir, emailOf(user)) == 0 || occurrences(t, dir, agentOf(user)) == 0 {
				t.Fatal("the search of the broker's files finds nothing")
			}
		}
		before := streamInfo(t, nc).State.Msgs
		erased := map[uuid.UUID]int64{ada: s.erase(t, ada), first: s.erase(t, first)}
		s.mustFlush(t, r)
		erased[last] = s.erase(t, last) // with nothing after it
		s.mustFlush(t, r)
		for user, at := range erased {
			wantErased(t, nc, user, at)
			if n := occurrences(t, dir, emailOf(user)) + occurrences(t, dir, agentOf(user)); n != 0 {
				t.Errorf("the broker's files have an erased user's data in %d places", n)
			}
		}
		if n := len(inStream(t, nc, bob)); n != 2 || occurrences(t, dir, emailOf(bob)) == 0 {
			t.Errorf("%d messages of another user, want 2", n)
		}
		if got := streamInfo(t, nc).State; got.Msgs != before-6+3 || int64(got.LastSeq) != s.head(t) {
			t.Errorf("the stream has %d messages up to %d, want %d up to %d", got.Msgs, got.LastSeq, before-3, s.head(t))
		}
		wantSound(t, r)
		wantSound(t, s.relay(t, nc)) // which has the account of what is missing to draw up anew

		// What tells of an erasure is itself missed when it is lost.
		stream, err := r.js.Stream(t.Context(), DefaultStream)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.DeleteMsg(t.Context(), uint64(erased[ada])); err != nil {
			t.Fatal(err)
		}
		s.mustFlush(t, r)
		if n := r.Counters().Rebuilds; n != 1 {
			t.Errorf("the stream was rebuilt %d times, want once", n)
		}
		for user, at := range erased { // and filling it again brings nobody back
			wantErased(t, nc, user, at)
			if n := occurrences(t, dir, emailOf(user)) + occurrences(t, dir, agentOf(user)); n != 0 {
				t.Errorf("the broker's files have an erased user's data in %d places after a rebuild", n)
			}
		}
	})
}

// Users come and go while the relay runs, some before their first event is published.
func TestEraseUnderWay(t *testing.T) {
	t.Parallel()
	onBothStores(t, func(t *testing.T, s *site) {
		dir := t.TempDir()
		nc := connection(t, devstack.NATS(t, func(o *devstack.NATSOptions) { o.StoreDir = dir }))
		r := s.relay(t, nc)
		devstack.Background(t, r.Run)
		stop := s.keepAppending(t, 4)
		erased := map[uuid.UUID]int64{}
		for range 30 {
			user := s.mustRegister(t)
			erased[user] = s.erase(t, user)
		}
		stop()
		s.awaitPublished(t, r)
		for user, at := range erased {
			wantErased(t, nc, user, at)
			if n := occurrences(t, dir, emailOf(user)) + occurrences(t, dir, agentOf(user)); n != 0 {
				t.Errorf("the broker's files have an erased user's data in %d places", n)
			}
		}
		if n := r.Counters().Rebuilds; n != 0 {
			t.Errorf("the stream was rebuilt %d times", n)
		}
	})
}

// A relay that dies when it has deleted some or all of a user's messages, and before it says so, is followed by one that
// deletes the others, and says so.
func TestEraseCutShort(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	nc := connection(t, devstack.NATS(t))
	r := s.relay(t, nc)
	ada, bob := s.mustRegister(t), s.mustRegister(t)
	s.appendEvents(t, 10)
	s.mustFlush(t, r)
	adas, bobs := s.erase(t, ada), s.erase(t, bob)
	if err := r.forget(t.Context(), ada, adas); err != nil {
		t.Fatal(err)
	}
	if err := r.deleteMessages(t.Context(), inStream(t, nc, bob)[1:], func(int) bool { return false }); err != nil {
		t.Fatal(err)
	}
	if all, some := inStream(t, nc, ada), inStream(t, nc, bob); len(all) != 0 || len(some) != 1 {
		t.Fatalf("messages at %v and %v are left, want none and one", all, some)
	}
	next := s.relay(t, nc)
	s.mustFlush(t, next)
	wantErased(t, nc, ada, adas)
	wantErased(t, nc, bob, bobs)
	wantSound(t, next)
}

// A server that lost power may have what was purged before. A scrub, which follows a restart, purges it again.
func TestPurgedMessagesComeBack(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	nc := connection(t, devstack.NATS(t))
	r := s.relay(t, nc)
	ada, bob := s.mustRegister(t), s.mustRegister(t)
	s.mustFlush(t, r)
	at := s.erase(t, ada)
	events, err := s.ReadAll(t.Context(), at-1, 1)
	if err != nil {
		t.Fatal(err)
	}
	header, body := cloudevent.Encode(events[0], cloudevent.Options{Source: "urn:usher:test"})
	if _, err := r.js.PublishMsg(t.Context(), &nats.Msg{Subject: cloudevent.Subject(events[0]), Header: header, Data: body}); err != nil {
		t.Fatal(err)
	}
	if got := inStream(t, nc, ada); len(got) != 3 {
		t.Fatalf("messages at %v, want all that there ever were", got)
	}
	wantSound(t, r)
	wantErased(t, nc, ada, at)
	if got := inStream(t, nc, bob); len(got) != 2 {
		t.Errorf("messages of another user at %v, want 2", got)
	}
}

// Where overwriting takes too long, the messages are purged all the same.
func TestEraseInBoundedTime(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	nc := connection(t, devstack.NATS(t))
	r := s.relay(t, nc, func(c *Config) { c.OverwriteFor = time.Nanosecond })
	ada := s.mustRegister(t)
	s.mustFlush(t, r)
	at := s.erase(t, ada)
	s.mustFlush(t, r)
	wantErased(t, nc, ada, at)
	wantSound(t, r)
}

// In a cluster every server overwrites its copy. What replicates them has one more, which the servers drop by themselves.
func TestEraseInACluster(t *testing.T) {
	t.Parallel()
	cluster := devstack.NATSCluster(t, 3)
	s, nc := newSite(t), connection(t, cluster)
	r := s.relay(t, nc, func(c *Config) { c.Stream.Replicas = 3 })
	ada := s.mustRegister(t)
	s.appendEvents(t, 20)
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	devstack.Eventually(t, "published", func() bool { return r.Flush(ctx) == nil })
	for _, server := range cluster.Servers {
		devstack.Eventually(t, "every server has a copy", func() bool {
			return occurrences(t, filepath.Join(server.StoreDir(), "jetstream", "$G"), emailOf(ada)) > 0
		})
	}
	at := s.erase(t, ada)
	devstack.Eventually(t, "published", func() bool { return r.Flush(ctx) == nil })
	wantErased(t, nc, ada, at)
	wantSound(t, r)
	for _, server := range cluster.Servers {
		devstack.Eventually(t, "every server has overwritten its copy", func() bool {
			return occurrences(t, filepath.Join(server.StoreDir(), "jetstream", "$G"), emailOf(ada)) == 0
		})
	}
}
