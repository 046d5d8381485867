package identity

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/internal/devstack"
)

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
