package identity

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/google/uuid"

	"usher.example/internal/devstack"
)

// undo takes the events after a position from the log, and the one session that began with them.
func (d *database) undo(t *testing.T, head int64, session uuid.UUID) {
	t.Helper()
	for _, statement := range []string{
		"DELETE FROM events WHERE position > " + strconv.FormatInt(head, 10),
		"DELETE FROM streams WHERE stream = '" + session.String() + "'",
		"DELETE FROM sessions WHERE session_id = '" + session.String() + "'",
	} {
		if _, err := d.db.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
}

// A session that began in another history is none any more, though nothing tells that it ended, and its user is as before.
func TestSessionOfAnotherHistory(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, func(c *Config) { c.AccessLifetime = time.Hour })
		u := mustRegister(t, s, "ada@example.org")
		kept := mustLogin(t, s)
		head, err := s.store.Head(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		void := mustLogin(t, s)
		following(t, s)
		wantGoesOn := func(session uuid.UUID) {
			t.Helper()
			devstack.Eventually(t, "what is in memory is believed", func() bool { return s.trust.holds(s.now()) })
			for range 2 {
				if _, err := s.SessionUser(t.Context(), u.ID, session); err != nil {
					t.Fatal(err)
				}
			}
			if _, doubted := s.doubts.about(session, s.now()); doubted {
				t.Error("the session is looked up each time")
			}
		}
		wantGoesOn(kept.Session)
		wantGoesOn(void.Session)
		d.undo(t, head, void.Session)
		mustLogin(t, s) // takes the position
		devstack.Eventually(t, "the session that is not in the log is refused", func() bool {
			_, err := s.SessionUser(t.Context(), u.ID, void.Session)
			return errors.Is(err, ErrSessionEnded)
		})
		wantGoesOn(kept.Session)
	})
}

// Where following starts anew it begins behind what was read before, and knows all the same what that was: the log may have
// become another one before it starts, and again it may not be able to read on.
func TestAnotherHistoryWhileStartingAnew(t *testing.T) {
	t.Parallel()
	for name, longer := range map[string]bool{"shorter": false, "longer": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			onBoth(t, func(t *testing.T, d *database) {
				ctx, cut := context.WithCancel(t.Context())
				defer cut()
				forks, renewed := 0, 0
				s := d.service(t, func(c *Config) {
					c.AccessLifetime = time.Hour
					c.Forked = func() func() {
						forks++
						cut() // so that it can't read on either
						return func() { renewed++ }
					}
				})
				u := mustRegister(t, s, "ada@example.org")
				head, err := s.store.Head(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				void := mustLogin(t, s)
				var f tail
				if err := s.catchUp(t.Context(), &f); err != nil {
					t.Fatal(err)
				}
				if _, err := s.SessionUser(t.Context(), u.ID, void.Session); err != nil {
					t.Fatal(err)
				}
				if err := s.startFollowing(t.Context(), &f); err != nil { // what comes after that fails
					t.Fatal(err)
				}
				d.undo(t, head, void.Session)
				if longer {
					mustLogin(t, s)
					mustLogin(t, s)
				}
				if err := s.catchUp(ctx, &f); !errors.Is(err, context.Canceled) {
					t.Fatalf("catchUp = %v, want that it can't read on", err)
				}
				if err := s.catchUp(t.Context(), &f); err != nil {
					t.Fatal(err)
				}
				if !s.trust.holds(s.now()) {
					t.Fatal("memory is not believed")
				}
				if _, err := s.SessionUser(t.Context(), u.ID, void.Session); !errors.Is(err, ErrSessionEnded) {
					t.Errorf("the session that is not in the log: %v", err)
				}
				if forks != 1 || renewed != 1 {
					t.Errorf("told %d times of another history, and %d times that it is over, want once each", forks, renewed)
				}
			})
		})
	}
}
