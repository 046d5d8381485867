package identity

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

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

// stick makes the database refuse whatever removes the session of an id.
func (d *database) stick(t *testing.T, session uuid.UUID) {
	t.Helper()
	statements := []string{fmt.Sprintf(`CREATE TRIGGER stuck BEFORE DELETE ON sessions WHEN OLD.session_id = '%s' BEGIN SELECT RAISE(FAIL, 'stuck'); END`, session)}
	if d.db.Dialect() == eventstore.Postgres {
		statements = []string{
			`CREATE FUNCTION stuck() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''stuck''; END'`,
			fmt.Sprintf(`CREATE TRIGGER stuck BEFORE DELETE ON sessions FOR EACH ROW WHEN (OLD.session_id = '%s') EXECUTE FUNCTION stuck()`, session),
		}
	}
	for _, text := range statements {
		if _, err := d.db.Exec(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
}

// spoil makes the events of a user unreadable.
func (d *database) spoil(t *testing.T, user uuid.UUID) {
	t.Helper()
	if n, err := d.db.Exec(t.Context(), `UPDATE events SET data = '[1]' WHERE stream = $1`, user); n == 0 || err != nil {
		t.Fatalf("%d events, %v", n, err)
	}
}

// A user who can't be read, and a session that can't be ended, hold up the end of nobody else's.
func TestSweepGoesOn(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s, _, login := loggedIn(t, d, nil)
		stuck, next := mustLogin(t, s), mustLogin(t, s)
		eve := mustRegister(t, s, "eve@example.org")
		unread, err := s.Login(t.Context(), Credentials{Email: "eve@example.org", Password: secret})
		if err != nil {
			t.Fatal(err)
		}
		last := mustLogin(t, s)
		d.spoil(t, eve.ID)
		d.stick(t, stuck.Session)
		d.appendTo(t, s, login.User.ID, Locked{})
		s = d.service(t, nil) // which has nobody in memory
		n, err := s.ExpireSessions(t.Context())
		if n != 3 || err == nil || !strings.Contains(err.Error(), "2 failed") {
			t.Errorf("ExpireSessions() = %d, %v, want the three that can be ended, and what of the two others", n, err)
		}
		for id, want := range map[uuid.UUID]bool{
			login.Session: false, stuck.Session: true, next.Session: false, unread.Session: true, last.Session: false,
		} {
			if _, err := s.session(t.Context(), id); errors.Is(err, ErrSessionEnded) == want {
				t.Errorf("session %s: %v, want it to go on: %v", id, err, want)
			}
		}
	})
}

// Of those who are to be erased, one who can't be holds up no other, whether their own wish was cut short or a ledger has them.
func TestErasuresGoOn(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		ledger := &Ledger{filepath.Join(t.TempDir(), "erasures.log")}
		s := d.service(t, func(c *Config) { c.Ledger = ledger })
		var users []uuid.UUID
		for i := range 3 {
			u := mustRegister(t, s, fmt.Sprintf("user%d@example.org", i))
			users = append(users, u.ID)
			if err := ledger.Record(t.Context(), Erasure{u.ID, time.Now()}); err != nil {
				t.Fatal(err)
			}
		}
		d.spoil(t, users[0])
		s = d.service(t, func(c *Config) { c.Ledger = ledger })
		again, last, err := s.ApplyLedger(t.Context())
		if len(again) != 2 || last != 5 || err == nil || !strings.Contains(err.Error(), users[0].String()) {
			t.Errorf("ApplyLedger() = %v, %d, %v, want the two who can be erased, and what of %s", again, last, err, users[0])
		}
		if n, err := s.FinishErasures(t.Context()); n != 0 || err == nil || !strings.Contains(err.Error(), users[0].String()) {
			t.Errorf("FinishErasures() = %d, %v, want what of %s", n, err, users[0])
		}
	})
}

// A session of which nothing can be shown but when it was is listed all the same, and the others with it.
func TestSessionsOfWhichOneCantBeRead(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s, _, login := loggedIn(t, d, nil)
		second := mustLogin(t, s)
		if _, err := d.db.Exec(t.Context(), `UPDATE sessions SET client = $2 WHERE session_id = $1`, second.Session, []byte("damaged")); err != nil {
			t.Fatal(err)
		}
		list, err := s.Sessions(t.Context(), login.User.ID, login.Session)
		shown := map[uuid.UUID]string{}
		for _, v := range list {
			shown[v.ID] = v.Address
		}
		if diff := cmp.Diff(map[uuid.UUID]string{login.Session: "192.0.2.1", second.Session: ""}, shown); diff != "" || err != nil {
			t.Errorf("Sessions() = %v, (-want +got):\n%s", err, diff)
		}
	})
}
