package subscription_test

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/eventstore"
	"usher.example/eventstore/cloudevent"
	"usher.example/identity"
	"usher.example/internal/devstack"
	"usher.example/subscription"
)

// told is what a feed told.
type told struct {
	mu       sync.Mutex
	sessions []uuid.UUID
	users    []string // with until when their sessions began, and which is spared
	consents []string // with until when their sessions began, and by which client
}

func (h *told) endSession(session uuid.UUID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sessions = append(h.sessions, session)
}

func (h *told) endUser(user uuid.UUID, before time.Time, except uuid.UUID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.users = append(h.users, ending(user, before, except))
}

func (h *told) endConsent(user uuid.UUID, client string, before time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.consents = append(h.consents, withdrawal(user, client, before))
}

func withdrawal(user uuid.UUID, client string, before time.Time) string {
	return fmt.Sprint(user, client, before.UTC().Format(time.RFC3339Nano))
}

// withdrawn is what was told of consents.
func (h *told) withdrawn() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return once(h.consents)
}

func ending(user uuid.UUID, before time.Time, except uuid.UUID) string {
	return fmt.Sprint(user, before.UTC().Format(time.RFC3339Nano), except)
}

func (h *told) session(id uuid.UUID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Contains(h.sessions, id)
}

// all is everything that was told, in the order in which it came first: a feed whose connection was slow begins anew, and
// tells all of it once more.
func (h *told) all() (sessions []uuid.UUID, users []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return once(h.sessions), once(h.users)
}

func once[T comparable](list []T) (first []T) {
	for _, v := range list {
		if !slices.Contains(first, v) {
			first = append(first, v)
		}
	}
	return first
}

// feed runs a feed on a broker until the test ends.
func (s *stack) feed(tb testing.TB) (*subscription.RevocationFeed, *told) {
	tb.Helper()
	h := &told{}
	f := &subscription.RevocationFeed{JetStream: connect(tb, s.broker), Lifetime: time.Hour, EndSession: h.endSession, EndUser: h.endUser, EndConsent: h.endConsent,
		Logger: slog.New(slog.NewTextHandler(s.output, nil))}
	if age := f.Age(); age != math.MaxInt64 {
		tb.Errorf("Age before Run = %v, want the greatest there is", age)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := ended(tb, done); err != nil {
			tb.Errorf("Run() = %v, want nil", err)
		}
	})
	return f, h
}

func wantReady(tb testing.TB, f *subscription.RevocationFeed) {
	tb.Helper()
	select {
	case <-f.Ready():
	case <-time.After(20 * time.Second):
		tb.Fatal("the feed is not ready")
	}
}

// happen publishes an event that happened some time ago.
func (s *stack) happen(tb testing.TB, stream eventstore.Stream, ago time.Duration, p identity.Payload) (at time.Time) {
	tb.Helper()
	info, err := s.stream(tb).Info(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	data, personal := identity.Encode(p)
	at = time.Now().Add(-ago).UTC().Truncate(time.Microsecond)
	header, body := cloudevent.Encode(eventstore.Event{
		Position: int64(info.State.LastSeq) + 1, Stream: stream, Version: 1, ID: uuid.Must(uuid.NewV7()), Type: p.EventType(), SchemaVersion: 1,
		Data: data, Personal: personal, RecordedAt: at,
	}, cloudevent.Options{Source: "urn:usher:test"})
	subject := cloudevent.Subject(eventstore.Event{Stream: stream, Type: p.EventType()})
	if _, err := s.js.PublishMsg(tb.Context(), &nats.Msg{Subject: subject, Header: header, Data: body}); err != nil {
		tb.Fatal(err)
	}
	return at
}

// endSession ends a new session of somebody.
func (s *stack) endSession(tb testing.TB, ago time.Duration) uuid.UUID {
	tb.Helper()
	session := uuid.Must(uuid.NewV7())
	s.happen(tb, eventstore.SessionStream(session, uuid.Must(uuid.NewV7())), ago, identity.SessionEnded{Reason: identity.EndedLogout})
	return session
}

func TestRevocationFeed(t *testing.T) {
	t.Parallel()
	s := setup(t)
	old, before := s.endSession(t, 2*time.Hour), s.endSession(t, time.Minute)
	f, h := s.feed(t)
	another, elsewhere := s.feed(t)
	wantReady(t, f)
	if !h.session(before) || h.session(old) {
		t.Error("what ended within the lifetime of a token is to be told of, and nothing else")
	}

	users := newUsers(6)
	kept := uuid.Must(uuid.NewV7())
	on := func(i int, p identity.Payload) time.Time { return s.happen(t, eventstore.UserStream(users[i]), 0, p) }
	on(0, identity.Registered{})
	want := []string{
		ending(users[0], on(0, identity.Locked{}), uuid.Nil),
		ending(users[1], on(1, identity.Disabled{}), uuid.Nil),
		ending(users[2], on(2, identity.PasswordChanged{Reason: identity.ReasonChange, Session: kept}), kept),
		ending(users[3], on(3, identity.PasswordChanged{Reason: identity.ReasonReset}), uuid.Nil),
	}
	on(4, identity.PasswordChanged{Reason: identity.ReasonRehash})
	want = append(want, ending(users[5], on(5, identity.Erased{}), uuid.Nil))
	on(0, identity.ConsentGiven{Client: "shop", Scopes: []string{"openid"}})
	consents := []string{withdrawal(users[0], "shop", on(0, identity.ConsentWithdrawn{Client: "shop"}))}
	last := s.endSession(t, 0)
	for _, h := range []*told{h, elsewhere} {
		devstack.Eventually(t, "the last session is told of", func() bool { return h.session(last) })
		devstack.Eventually(t, "the consent is told of", func() bool { return cmp.Equal(consents, h.withdrawn()) })
		sessions, users := h.all()
		slices.Sort(users) // events of different types come in any order
		if diff := cmp.Diff(slices.Sorted(slices.Values(want)), users); diff != "" {
			t.Errorf("users (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]uuid.UUID{before, last}, sessions); diff != "" {
			t.Errorf("sessions (-want +got):\n%s", diff)
		}
	}
	wantReady(t, another)
	devstack.Eventually(t, "the feed is current", func() bool { return f.Age() < time.Second })
}

// What can't be read may have ended every session of the user whom a header names.
func TestRevocationFeedOfBrokenMessages(t *testing.T) {
	t.Parallel()
	s := setup(t)
	_, h := s.feed(t)
	user := newUsers(1)[0]
	for _, named := range []string{user.String(), "nobody"} {
		m := &nats.Msg{Subject: "usher.v1.a3.session.ended", Header: nats.Header{"ce-subject": {named}}, Data: []byte("{")}
		if _, err := s.js.PublishMsg(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	last := s.endSession(t, 0)
	devstack.Eventually(t, "what comes later is told of", func() bool { return h.session(last) })
	if _, users := h.all(); len(users) != 1 || users[0][:36] != user.String() {
		t.Errorf("told of %v, want all sessions of %s", users, user)
	}
}

// The broker stops: that shows. It comes back: what happened meanwhile is told, and what happens then.
func TestRevocationFeedWithoutABroker(t *testing.T) {
	t.Parallel()
	s := setup(t)
	f, h := s.feed(t)
	wantReady(t, f)
	s.broker.Shutdown()
	devstack.Eventually(t, "it shows", func() bool { return f.Age() > 2*feedSecond })
	if err := s.broker.Restart(); err != nil {
		t.Fatal(err)
	}
	devstack.Eventually(t, "the connection is back", s.js.Conn().IsConnected)
	meanwhile := s.endSession(t, time.Second)
	devstack.Eventually(t, "the session is told of", func() bool { return h.session(meanwhile) })
	devstack.Eventually(t, "the feed is current", func() bool { return f.Age() < time.Second })
}

// feedSecond is how often a feed makes sure that it is current.
const feedSecond = time.Second

// Its consumer, or the whole stream, is deleted: it goes on.
func TestRevocationFeedGoesOn(t *testing.T) {
	t.Parallel()
	s := setup(t)
	f, h := s.feed(t)
	wantReady(t, f)
	first := s.endSession(t, 0)
	devstack.Eventually(t, "the session is told of", func() bool { return h.session(first) })

	for name := range s.stream(t).ConsumerNames(t.Context()).Name() {
		if err := s.js.DeleteConsumer(t.Context(), subscription.Stream, name); err != nil {
			t.Fatal(err)
		}
	}
	second := s.endSession(t, 0)
	devstack.Eventually(t, "a session is told of after the consumer was deleted", func() bool { return h.session(second) })

	if err := s.js.DeleteStream(t.Context(), subscription.Stream); err != nil {
		t.Fatal(err)
	}
	s.createStream(t, jetstream.StreamConfig{})
	third := s.endSession(t, 0)
	devstack.Eventually(t, "a session is told of after the stream was made again", func() bool { return h.session(third) })
}

// A service that begins before the stream is there hears of everything.
func TestRevocationFeedBeforeTheStream(t *testing.T) {
	t.Parallel()
	s := setup(t)
	if err := s.js.DeleteStream(t.Context(), subscription.Stream); err != nil {
		t.Fatal(err)
	}
	f, h := s.feed(t)
	devstack.Eventually(t, "it says so", func() bool { return len(s.output.String()) > 0 })
	select {
	case <-f.Ready():
		t.Error("the feed is ready without a stream")
	default:
	}
	s.createStream(t, jetstream.StreamConfig{})
	session := s.endSession(t, 0)
	devstack.Eventually(t, "the session is told of", func() bool { return h.session(session) })
	wantReady(t, f)
}
