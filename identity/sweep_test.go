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
