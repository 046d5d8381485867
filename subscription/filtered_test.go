package subscription_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/eventstore"
	"usher.example/eventstore/cloudevent"
	"usher.example/identity"
	"usher.example/subscription"
)

// inShard makes a user of a shard.
func inShard(shard byte) uuid.UUID {
	user := uuid.Must(uuid.NewV7())
	user[len(user)-1] = shard
	return user
}

// versionsOf says which versions of a user's stream were handled, in their order.
func (l *ledger) versionsOf(user uuid.UUID) (versions []int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.events {
		if e.Stream.ID == user {
			versions = append(versions, e.Version)
		}
	}
	return versions
}

func ascending(versions []int, n int) bool {
	for i, v := range versions {
		if v != i+1 {
			return false
		}
	}
	return len(versions) == n
}

func TestFilterOnAShard(t *testing.T) {
	t.Parallel()
	s, l := setup(t), newLedger()
	users := []uuid.UUID{inShard(0x0a), inShard(0xa0), inShard(0xaa), inShard(0x0a)}
	s.append(t, 200, users...)
	s.publish(t, cloudevent.Options{})
	sub := s.on(l)
	sub.Subjects = []string{subscription.Shard(users[3])}
	start(t, sub)
	l.await(t, 200)
	for _, user := range []uuid.UUID{users[0], users[3]} {
		if got := l.versionsOf(user); !ascending(got, 50) || len(l.events) != 100 {
			t.Errorf("%d events, versions %v, want 1 to 50 of two users", len(l.events), got)
		}
	}
}

func TestFilterOnATypeChanges(t *testing.T) {
	t.Parallel()
	s, l := setup(t), newLedger()
	users := newUsers(10)
	s.append(t, 30, users...)
	s.publish(t, cloudevent.Options{})
	sub := s.on(l)
	sub.Subjects = []string{subscription.Type("user.registered")}
	stop := start(t, sub)
	l.await(t, 10)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if len(l.events) != 10 {
		t.Errorf("%d events, want 10 registrations", len(l.events))
	}
	// The next release of the service wants more.
	sub = s.on(l)
	sub.Subjects = []string{subscription.Type("user.registered"), subscription.Type("user.profile_updated")}
	start(t, sub)
	l.await(t, 30)
	l.exact(t, s)
}

func TestLossBehindAFilter(t *testing.T) {
	t.Parallel()
	s := setup(t)
	users := []uuid.UUID{inShard(0), inShard(1), inShard(2), inShard(3)}
	s.append(t, 200, users...)
	s.publish(t, cloudevent.Options{})
	for _, lost := range []uint64{8, 12, 100, 104, 108} { // all of users[3]
		if err := s.stream(t).DeleteMsg(t.Context(), lost); err != nil {
			t.Fatal(err)
		}
	}

	l := newLedger()
	sub := s.on(l)
	sub.Subjects = []string{subscription.Kind(eventstore.KindUser)}
	start(t, sub)
	l.await(t, 200)
	for _, user := range users {
		if got := l.versionsOf(user); !ascending(got, 50) {
			t.Errorf("versions of %s = %v, want 1 to 50", user, got)
		}
	}

	l = newLedger()
	sub = s.on(l)
	sub.Name, sub.Source, sub.Subjects = "sourceless", nil, []string{subscription.Shard(users[3])}
	err := run(t, sub)
	var gap *subscription.GapError
	if !errors.As(err, &gap) || *gap != (subscription.GapError{After: 4, Next: 16}) {
		t.Errorf("Run() = %v, want a gap between 4 and 16", err)
	}
}

// What came before an erasure was purged, and is not missed behind a filter: not even where there is no source.
func TestErasureBehindAFilter(t *testing.T) {
	t.Parallel()
	s := setup(t)
	users := []uuid.UUID{inShard(0), inShard(1), inShard(2), inShard(3)}
	s.append(t, 40, users...)
	s.publish(t, cloudevent.Options{})
	withSource, without := newLedger(), newLedger()
	for name, l := range map[string]*ledger{"with-source": withSource, "without": without} {
		sub := s.on(l)
		sub.Name, sub.Subjects = name, []string{subscription.Kind(eventstore.KindUser)}
		if name == "without" {
			sub.Source = nil
		}
		start(t, sub)
		l.await(t, 40)
		if _, err := s.stream(t).PauseConsumer(t.Context(), name, time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	s.append(t, 10, users[3])
	s.publish(t, cloudevent.Options{})
	if err := s.stream(t).Purge(t.Context(), jetstream.WithPurgeSubject(subscription.Shard(users[3]))); err != nil {
		t.Fatal(err)
	}
	if _, err := s.log.Append(t.Context(), eventstore.Append{
		Stream: eventstore.UserStream(users[3]), Expected: eventstore.AnyVersion, Events: []eventstore.NewEvent{identity.NewEvent(identity.Erased{})},
	}); err != nil {
		t.Fatal(err)
	}
	s.publish(t, cloudevent.Options{})
	for name, l := range map[string]*ledger{"with-source": withSource, "without": without} {
		if _, err := s.stream(t).ResumeConsumer(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		l.await(t, 51)
	}
	if got := withSource.versionsOf(users[3]); !ascending(got, 21) {
		t.Errorf("with a source, versions %v, want 1 to 21", got)
	}
	for _, e := range withSource.events[40:50] {
		if !e.Forgotten || e.Personal != nil {
			t.Errorf("%s at %d is not forgotten", e.Type, e.Position)
		}
	}
	if got := without.versionsOf(users[3]); len(got) != 11 || got[9] != 10 || got[10] != 21 {
		t.Errorf("without a source, versions %v, want 1 to 10 and 21", got)
	}
}
