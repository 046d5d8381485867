package identity

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/internal/devstack"
)

// clock is a clock that a test sets.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) set(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// loggedIn is a user with a session, on a service whose clock the test sets.
func loggedIn(t *testing.T, d *database, change func(*Config)) (*Service, *clock, LoginResult) {
	t.Helper()
	at := &clock{now: time.Now()}
	s := d.service(t, func(c *Config) {
		c.Now = at.Now
		if change != nil {
			change(c)
		}
	})
	mustRegister(t, s, "ada@example.org")
	return s, at, mustLogin(t, s)
}

func mustLogin(t *testing.T, s *Service) LoginResult {
	t.Helper()
	r, err := s.Login(t.Context(), Credentials{Email: "ada@example.org", Password: secret,
		Metadata: eventstore.Metadata{Address: "192.0.2.1", UserAgent: "a browser"}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (s *Service) refreshed(t *testing.T, token RefreshToken) (LoginResult, error) {
	t.Helper()
	return s.Refresh(t.Context(), token, eventstore.Metadata{})
}

func mustRefresh(t *testing.T, s *Service, token RefreshToken) LoginResult {
	t.Helper()
	r, err := s.refreshed(t, token)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func wantRefused(t *testing.T, s *Service, when string, token RefreshToken) {
	t.Helper()
	if _, err := s.refreshed(t, token); !errors.Is(err, ErrInvalidRefreshToken) {
		t.Errorf("%s: Refresh() = %v, want %v", when, err, ErrInvalidRefreshToken)
	}
}

// sessionEvents are the events of sessions, with the reasons of those that ended.
func (d *database) sessionEvents(t *testing.T, s *Service) (list []string) {
	t.Helper()
	for _, e := range d.events(t, s) {
		if e.Stream.Kind != eventstore.KindSession {
			continue
		}
		name := e.Type
		if p, err := DecodeAny(e); err == nil {
			if ended, ok := p.(SessionEnded); ok {
				name += " " + ended.Reason
			}
		}
		list = append(list, name)
	}
	return list
}

func wantSessions(t *testing.T, d *database, s *Service, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, d.sessionEvents(t, s)); diff != "" {
		t.Errorf("events of sessions (-want +got):\n%s", diff)
	}
}

func TestSessionsOfAUser(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s, at, first := loggedIn(t, d, nil)
		at.add(time.Minute)
		second := mustLogin(t, s)
		at.add(time.Minute)
		mustRefresh(t, s, first.Refresh)
		list, err := s.Sessions(t.Context(), first.User.ID, second.Session)
		if err != nil {
			t.Fatal(err)
		}
		want := []Session{
			{ID: first.Session, CreatedAt: first.StartedAt, LastUsedAt: at.Now().UTC().Truncate(time.Microsecond), UserAgent: "a browser", Address: "192.0.2.1"},
			{ID: second.Session, CreatedAt: second.StartedAt, LastUsedAt: second.StartedAt, UserAgent: "a browser", Address: "192.0.2.1", Current: true},
		}
		if diff := cmp.Diff(want, list); diff != "" {
			t.Errorf("Sessions() (-want +got):\n%s", diff)
		}

		other := uuid.Must(uuid.NewV7())
		if _, err := s.EndSession(t.Context(), other, first.Session, EndedRevoked, eventstore.Metadata{}); !errors.Is(err, ErrNotFound) {
			t.Errorf("EndSession() of somebody else = %v, want %v", err, ErrNotFound)
		}
		if _, err := s.EndSession(t.Context(), first.User.ID, first.Session, EndedRevoked, eventstore.Metadata{}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.EndSession(t.Context(), first.User.ID, first.Session, EndedRevoked, eventstore.Metadata{}); !errors.Is(err, ErrNotFound) {
			t.Errorf("EndSession() again = %v, want %v", err, ErrNotFound)
		}
		for range 70 { // more than are ended at a time
			mustLogin(t, s)
		}
		if _, err := s.EndSessions(t.Context(), first.User.ID, second.Session, EndedLogout, eventstore.Metadata{}); err != nil {
			t.Fatal(err)
		}
		if list, err = s.Sessions(t.Context(), first.User.ID, uuid.Nil); err != nil || len(list) != 1 || list[0].ID != second.Session {
			t.Errorf("Sessions() = %v, %v, want the one that was spared", list, err)
		}
	})
}

// What the user's own stream says of sessions holds at once, whatever their rows say.
func TestSessionsEndWithTheUsersOwnEvents(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, nil)
		u := mustRegister(t, s, "ada@example.org")
		goesOn := func(r LoginResult) bool {
			_, err := s.SessionUser(t.Context(), u.ID, r.Session)
			if err != nil && !errors.Is(err, ErrSessionEnded) {
				t.Fatal(err)
			}
			return err == nil
		}
		before, kept := mustLogin(t, s), mustLogin(t, s)
		d.appendTo(t, s, u.ID, PasswordChanged{Reason: ReasonRehash})
		if !goesOn(before) {
			t.Error("a rehash ended a session")
		}
		d.appendTo(t, s, u.ID, PasswordChanged{Reason: ReasonChange, Session: kept.Session})
		after := mustLogin(t, s) // at once: it must not count as one that began before
		if goesOn(before) || !goesOn(kept) || !goesOn(after) {
			t.Errorf("after the password changed: before %v, kept %v, after %v", goesOn(before), goesOn(kept), goesOn(after))
		}
		wantRefused(t, s, "a session that ended with the password", before.Refresh)
		mustRefresh(t, s, kept.Refresh)

		d.appendTo(t, s, u.ID, Locked{})
		if goesOn(kept) || goesOn(after) {
			t.Error("a locked user's session goes on")
		}
		if _, err := s.refreshed(t, after.Refresh); !errors.Is(err, ErrUserLocked) {
			t.Errorf("Refresh() of a locked user = %v, want %v", err, ErrUserLocked)
		}
		d.appendTo(t, s, u.ID, Unlocked{})
		if goesOn(kept) || goesOn(after) || !goesOn(mustLogin(t, s)) {
			t.Error("unlocking brought sessions back, or lets none begin")
		}
		if n, err := s.ExpireSessions(t.Context()); n != 3 || err != nil {
			t.Errorf("ExpireSessions() = %d, %v, want the 3 that are over", n, err)
		}
		if list, err := s.Sessions(t.Context(), u.ID, uuid.Nil); err != nil || len(list) != 1 {
			t.Errorf("Sessions() = %v, %v, want 1", list, err)
		}
	})
}

// Every process is told of the sessions that others end, and of those that ended before it began.
func TestSessionEndedIsTold(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s, _, first := loggedIn(t, d, nil)
		second := mustLogin(t, s)
		if _, err := s.EndSession(t.Context(), first.User.ID, first.Session, EndedLogout, eventstore.Metadata{}); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var told []uuid.UUID
		other := d.service(t, func(c *Config) {
			c.AccessLifetime = time.Hour
			c.SessionEnded = func(id uuid.UUID) {
				mu.Lock()
				defer mu.Unlock()
				told = append(told, id)
			}
		})
		knows := func(id uuid.UUID) func() bool {
			return func() bool {
				mu.Lock()
				defer mu.Unlock()
				return slices.Contains(told, id)
			}
		}
		following(t, other)
		devstack.Eventually(t, "it is told of a session that ended before", knows(first.Session))
		if _, err := s.EndSession(t.Context(), second.User.ID, second.Session, EndedLogout, eventstore.Metadata{}); err != nil {
			t.Fatal(err)
		}
		devstack.Eventually(t, "it is told of a session that ends", knows(second.Session))
	})
}

// While a process can't know what others end, it asks.
func TestSessionUserWithoutFollowing(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s, _, r := loggedIn(t, d, nil)
		other := d.service(t, nil)
		if _, err := other.SessionUser(t.Context(), r.User.ID, r.Session); err != nil {
			t.Fatal(err)
		}
		if _, err := other.SessionUser(t.Context(), uuid.Must(uuid.NewV7()), r.Session); !errors.Is(err, ErrSessionEnded) {
			t.Errorf("SessionUser() of nobody = %v, want %v", err, ErrSessionEnded)
		}
		if _, err := s.EndSession(t.Context(), r.User.ID, r.Session, EndedLogout, eventstore.Metadata{}); err != nil {
			t.Fatal(err)
		}
		if _, err := other.SessionUser(t.Context(), r.User.ID, r.Session); !errors.Is(err, ErrSessionEnded) {
			t.Errorf("SessionUser() = %v, want %v", err, ErrSessionEnded)
		}
	})
}

// A session that began after a lock was lifted goes on in a process that has not heard of that yet.
func TestSessionOfAUserWhoIsLetInAgain(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s, other := d.service(t, nil), d.service(t, nil)
		u := mustRegister(t, s, "ada@example.org")
		former, err := s.Login(t.Context(), Credentials{Email: "ada@example.org", Password: secret})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.LockUser(t.Context(), u.ID, byAdmin); err != nil {
			t.Fatal(err)
		}
		other.trust.caughtUp.Store(time.Now().Add(time.Hour).UnixNano()) // it is told of nothing from now on
		if locked, err := other.User(t.Context(), u.ID); err != nil || locked.Status != StatusLocked {
			t.Fatalf("User = %+v, %v, want one who is locked", locked, err)
		}
		if _, err := s.UnlockUser(t.Context(), u.ID, byAdmin); err != nil {
			t.Fatal(err)
		}
		begun, err := s.Login(t.Context(), Credentials{Email: "ada@example.org", Password: secret})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := other.SessionUser(t.Context(), u.ID, begun.Session); err != nil {
			t.Errorf("SessionUser = %v, want that it goes on", err)
		}
		if _, err := other.SessionUser(t.Context(), u.ID, former.Session); !errors.Is(err, ErrSessionEnded) {
			t.Errorf("SessionUser of a session from before the lock = %v, want %v", err, ErrSessionEnded)
		}
	})
}
