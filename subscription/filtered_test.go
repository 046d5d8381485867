package subscription_test

import (
	"errors"
	"testing"

	"github.com/google/uuid"

	"usher/eventstore"
	"usher/eventstore/cloudevent"
	"usher/subscription"
)

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

func TestFilterOnAUser(t *testing.T) {
	t.Parallel()
	s, l := setup(t), newLedger()
	users := newUsers(4)
	s.append(t, 200, users...)
	s.publish(t, cloudevent.Options{})
	sub := s.on(l)
	sub.Subjects = []string{subscription.User(users[3])}
	start(t, sub)
	l.await(t, 200)
	if got := l.versionsOf(users[3]); !ascending(got, 50) || len(l.events) != 50 {
		t.Errorf("%d events, versions %v, want 1 to 50 of one user", len(l.events), got)
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
	users := newUsers(4)
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
	sub.Name, sub.Source, sub.Subjects = "sourceless", nil, []string{subscription.User(users[3])}
	err := run(t, sub)
	var gap *subscription.GapError
	if !errors.As(err, &gap) || *gap != (subscription.GapError{After: 4, Next: 16}) {
		t.Errorf("Run() = %v, want a gap between 4 and 16", err)
	}
}
