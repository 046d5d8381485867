package identity

import (
	"testing"
	"time"

	"usher.example/eventstore"
)

// One process sweeps in a turn, and goes on doing so when the database has another history, as after a failover.
func TestSweepInTurn(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s, now, _ := loggedIn(t, d, nil)
		sweep := func(holder string, left int) {
			t.Helper()
			if err := s.sweepInTurn(t.Context(), holder); err != nil {
				t.Error(err)
			}
			var n int
			if err := d.db.QueryRow(t.Context(), "SELECT count(*) FROM sessions").Scan(&n); err != nil || n != left {
				t.Errorf("%d sessions are left, %v, want %d", n, err, left)
			}
		}
		sweep("ada", 1)
		now.add(100 * 24 * time.Hour)
		sweep("bob", 1)
		sweep("ada", 0)
		if d.db.Dialect() == eventstore.SQLite { // which has no history
			return
		}
		mustLogin(t, s)
		now.add(100 * 24 * time.Hour)
		_, err := d.db.Exec(t.Context(), "CREATE OR REPLACE FUNCTION log_history() RETURNS text LANGUAGE sql AS $$ SELECT '7/5/00000002' $$")
		if err != nil {
			t.Fatal(err)
		}
		sweep("ada", 0)
	})
}

// A session that is refreshed in the last moment before it would be idle for too long goes on, also where its row was read before.
func TestSweepSparesWhatWasRefreshed(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		meanwhile := func() {}
		s, at, login := loggedIn(t, d, func(c *Config) {
			now := c.Now
			c.SessionIdle, c.Now = time.Hour, func() time.Time {
				meanwhile()
				return now()
			}
		})
		at.add(time.Hour - time.Second)
		meanwhile = func() { // once the rows are read
			meanwhile = func() {}
			login = mustRefresh(t, s, login.Refresh)
			at.add(2 * time.Second)
		}
		if n, err := s.ExpireSessions(t.Context()); n != 0 || err != nil {
			t.Errorf("ExpireSessions() = %d, %v, want none that is over", n, err)
		}
		mustRefresh(t, s, login.Refresh)
		at.add(2 * time.Hour)
		if n, err := s.ExpireSessions(t.Context()); n != 1 || err != nil {
			t.Errorf("ExpireSessions() = %d, %v, want the one that is over", n, err)
		}
	})
}
