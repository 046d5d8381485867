package identity

import (
	"errors"
	"fmt"
	"slices"
	"strings"
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

func TestRefreshRotates(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s, at, first := loggedIn(t, d, nil)
		second := mustRefresh(t, s, first.Refresh)
		if second.Refresh == first.Refresh || second.Session != first.Session || second.User.ID != first.User.ID {
			t.Error("the first refresh did not give the session's next token")
		}
		if !second.ExpiresAt.Equal(first.ExpiresAt) || second.Position != 0 {
			t.Errorf("refreshed until %v at %d, want %v and no position", second.ExpiresAt, second.Position, first.ExpiresAt)
		}
		// A lost reply: the same token again, within the grace, gets the same successor.
		at.add(9 * time.Second)
		if again := mustRefresh(t, s, first.Refresh); again.Refresh != second.Refresh {
			t.Error("the token before got another successor")
		}
		// However late, as long as nobody can know that it has arrived.
		third := mustRefresh(t, s, second.Refresh)
		for range 3 {
			at.add(24 * time.Hour)
			if again := mustRefresh(t, s, second.Refresh); again.Refresh != third.Refresh {
				t.Error("the token before got another successor, late")
			}
		}
		fourth := mustRefresh(t, s, third.Refresh)
		at.add(time.Hour)
		wantRefused(t, s, "the token two before", second.Refresh)
		wantRefused(t, s, "the newest, once the session has ended", fourth.Refresh)
		wantSessions(t, d, s, "session.started", "session.reuse_detected", "session.ended reuse")
	})
}

// Two who share a session get the same successor at each rotation, one of them late: that is not a reply that was lost.
func TestSharedSessionEnds(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s, at, first := loggedIn(t, d, nil)
		late := func(token RefreshToken) RefreshToken { // one of them in time and the other late, who changes nothing
			t.Helper()
			next := mustRefresh(t, s, token).Refresh
			at.add(20 * time.Minute)
			for range 2 {
				if again := mustRefresh(t, s, token); again.Refresh != next {
					t.Error("the other got another successor")
				}
			}
			return next
		}
		token := late(late(first.Refresh))
		for range 2 { // a rotation that is asked for once, or in time, begins the count anew
			before := token
			token = mustRefresh(t, s, token).Refresh
			mustRefresh(t, s, before)
			token = late(late(token))
		}
		newest := mustRefresh(t, s, token)
		at.add(20 * time.Minute)
		wantRefused(t, s, "the token before, late for the third time in a row", token)
		wantRefused(t, s, "the newest", newest.Refresh)
		wantSessions(t, d, s, "session.started", "session.reuse_detected", "session.ended reuse")
	})
}

// Once the access token that came with a refresh was used, its reply is known to have arrived: the refresh token before is a
// copy in somebody's hands from the end of the grace on. An access token of before the refresh tells nothing.
func TestUsedReplyIsNotLost(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s, at, first := loggedIn(t, d, nil)
		devstack.Background(t, s.RecordUses)
		noted := func() (used bool) {
			t.Helper()
			if err := d.db.QueryRow(t.Context(), `SELECT used_at IS NOT NULL FROM sessions`).Scan(&used); err != nil {
				t.Fatal(err)
			}
			return used
		}
		access := func() uuid.UUID { // as they have: a UUIDv7 of when it was issued
			t.Helper()
			id, err := newSessionID(at.Now())
			if err != nil {
				t.Fatal(err)
			}
			return id
		}
		at.add(2 * time.Second)
		old := access()
		at.add(time.Minute)
		second := mustRefresh(t, s, first.Refresh)
		if err := s.recordUse(t.Context(), use{first.Session, sessionStart(old)}); err != nil || noted() {
			t.Errorf("an access token of before the refresh counts as the use of its reply, %v", err)
		}
		s.Used(first.Session, old)
		s.Used(first.Session, access())
		devstack.Eventually(t, "the use is noted", noted)
		if again := mustRefresh(t, s, first.Refresh); again.Refresh != second.Refresh {
			t.Error("the token before got another successor")
		}
		third := mustRefresh(t, s, second.Refresh)
		if noted() {
			t.Error("the use of a token of before counts for the newest refresh")
		}
		at.add(11 * time.Second)
		if again := mustRefresh(t, s, second.Refresh); again.Refresh != third.Refresh {
			t.Error("the token before got another successor")
		}
		s.Used(first.Session, access())
		devstack.Eventually(t, "the next use is noted", noted)
		wantRefused(t, s, "the token before, after the grace", second.Refresh)
		wantRefused(t, s, "the newest, once the session has ended", third.Refresh)
		wantSessions(t, d, s, "session.started", "session.reuse_detected", "session.ended reuse")
	})
}

// A refresh token is good once. One that was used before, and is no lost reply, is somebody's copy: it ends
// the session, and with it every other token of it.
func TestASVS_10_4_5_ReplayedRefreshTokenEndsTheSession(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s, _, first := loggedIn(t, d, nil)
		third := mustRefresh(t, s, mustRefresh(t, s, first.Refresh).Refresh)
		wantRefused(t, s, "a token two back, within the grace", first.Refresh)
		wantRefused(t, s, "the newest, once the session has ended", third.Refresh)
		wantSessions(t, d, s, "session.started", "session.reuse_detected", "session.ended reuse")
	})
}

// A hundred refreshes with one token, in two processes: one successor, and nobody is logged out.
func TestRefreshConcurrently(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s, _, first := loggedIn(t, d, nil)
		services := []*Service{s, d.service(t, nil)}
		tokens := make([]RefreshToken, 100)
		var wg sync.WaitGroup
		for i := range tokens {
			wg.Go(func() {
				r, err := services[i%2].Refresh(t.Context(), first.Refresh, eventstore.Metadata{})
				if err != nil {
					t.Error(err)
				}
				tokens[i] = r.Refresh
			})
		}
		wg.Wait()
		slices.Sort(tokens)
		if distinct := slices.Compact(tokens); len(distinct) != 1 || distinct[0] == first.Refresh {
			t.Fatalf("%d different successors, want 1", len(distinct))
		}
		mustRefresh(t, s, tokens[0])
		wantSessions(t, d, s, "session.started")
	})
}

// A session that is not used for a while ends.
func TestASVS_7_3_1_IdleSessionEnds(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s, at, idle := loggedIn(t, d, func(c *Config) { c.SessionIdle, c.SessionMax = time.Hour, 3*time.Hour })
		if !idle.RefreshExpiresAt.Equal(idle.StartedAt.Add(time.Hour)) {
			t.Errorf("expires at %v, want an hour after %v", idle.RefreshExpiresAt, idle.StartedAt)
		}
		at.add(59 * time.Minute)
		idle = mustRefresh(t, s, idle.Refresh)
		at.add(61 * time.Minute)
		wantRefused(t, s, "idle for too long", idle.Refresh)
		wantSessions(t, d, s, "session.started", "session.ended expired")
	})
}

// A session ends at the latest after a time that its refreshes don't prolong, and so do the
// refresh tokens that it gives.
func TestASVS_7_3_2_10_4_8_SessionEndsHoweverBusy(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s, at, busy := loggedIn(t, d, func(c *Config) { c.SessionIdle, c.SessionMax = time.Hour, 3*time.Hour })
		for range 3 {
			at.add(55 * time.Minute)
			busy = mustRefresh(t, s, busy.Refresh)
		}
		if left := busy.RefreshExpiresAt.Sub(at.Now()); left > 15*time.Minute+time.Millisecond {
			t.Errorf("may be refreshed for %v, past the end of the session", left)
		}
		at.add(16 * time.Minute)
		wantRefused(t, s, "past the absolute limit", busy.Refresh)
		wantSessions(t, d, s, "session.started", "session.ended expired")
	})
}

// A database that was restored from a backup knows less than the tokens that were given out since. They still work.
func TestRefreshAheadOfTheRow(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s, _, first := loggedIn(t, d, nil)
		newest := mustRefresh(t, s, mustRefresh(t, s, first.Refresh).Refresh)
		if _, err := d.db.Exec(t.Context(), `UPDATE sessions SET counter = 0`); err != nil {
			t.Fatal(err)
		}
		next := mustRefresh(t, s, newest.Refresh)
		wantRefused(t, s, "an old token all the same", first.Refresh)
		wantRefused(t, s, "once the session has ended", next.Refresh)
	})
}

// A refresh token can't be guessed. It is authenticated by 256 bits under a key that no token and no
// database gives away, whatever is known of other tokens.
func TestASVS_7_2_3_RefreshTokensCanNotBeGuessed(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s, _, r := loggedIn(t, d, nil)
		stranger := d.service(t, func(c *Config) { c.RefreshKey = []byte("another key") })
		forms := map[string]RefreshToken{
			"nothing":       "",
			"cut":           r.Refresh[1:],
			"another key":   stranger.refreshToken(r.Session, 0),
			"altered":       RefreshToken(strings.ToUpper(string(r.Refresh))),
			"a line break":  r.Refresh[:10] + "\n" + r.Refresh[11:],
			"no session":    s.refreshToken(uuid.Must(uuid.NewV7()), 0),
			"session's end": r.Refresh + "AA",
		}
		raw, err := refreshText.DecodeString(string(r.Refresh))
		if err != nil {
			t.Fatal(err)
		}
		if len(raw)-refreshContent < 128/8 {
			t.Errorf("a token is authenticated by %d bytes", len(raw)-refreshContent)
		}
		for bit := range 8 * len(raw) {
			raw[bit/8] ^= 1 << (bit % 8)
			forms[fmt.Sprintf("bit %d", bit)] = RefreshToken(refreshText.EncodeToString(raw))
			raw[bit/8] ^= 1 << (bit % 8)
		}
		for name, token := range forms {
			wantRefused(t, s, name, token)
		}
		mustRefresh(t, s, r.Refresh)

		seen := map[RefreshToken]bool{}
		for range 50 {
			next := mustLogin(t, s)
			if seen[next.Refresh] {
				t.Fatal("two sessions have the same token")
			}
			seen[next.Refresh] = true
		}
	})
}

func FuzzRefreshToken(f *testing.F) {
	s := New(Config{RefreshKey: []byte("a key")})
	good := s.refreshToken(uuid.MustParse("01980000-0000-7000-8000-000000000001"), 7)
	f.Add(string(good))
	f.Add(string(good[:20]))
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		session, counter, err := s.parseRefreshToken(RefreshToken(text))
		if err == nil && s.refreshToken(session, counter) != RefreshToken(text) {
			t.Errorf("%q was taken for another token", text)
		}
	})
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
