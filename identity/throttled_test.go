package identity

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"usher.example/eventstore"
)

// Administrators see what keeps a user from logging in.
func TestThrottled(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		now := &clock{now: time.Now().Truncate(time.Second)}
		s := d.service(t, func(c *Config) { c.Now = now.Now })
		u := mustRegister(t, s, "ada@example.org")
		if list, err := s.Throttled(t.Context(), u.ID); err != nil || len(list) != 0 {
			t.Errorf("before any failure: %+v, %v", list, err)
		}
		phone, _ := s.on(t, "", "ada@example.org", secret)
		s.strangersGuess(t, "ada@example.org")
		now.add(time.Second)
		s.on(t, phone, "ada@example.org", wrong)
		list, err := s.Throttled(t.Context(), u.ID)
		if err != nil || len(list) != 2 {
			t.Fatalf("%+v, %v, want those on the device and those of strangers", list, err)
		}
		device, login := list[0], list[1]
		if device.Counted != scopeDevice || device.Failures != 1 || device.Until != nil {
			t.Errorf("the device: %+v", device)
		}
		until := now.Now().UTC().Add(9 * time.Second)
		if login.Counted != scopeLogin || login.Failures != accountFree || login.Until == nil || !login.Until.Equal(until) || !login.Since.Equal(until.Add(-firstWait)) {
			t.Errorf("strangers: %+v, want %v before %v", login, firstWait, until)
		}
		if _, err := s.Throttled(t.Context(), uuid.Must(uuid.NewV7())); !errors.Is(err, ErrNotFound) {
			t.Errorf("of nobody: %v", err)
		}
	})
}

// Administrators see who is throttled now, and why, a page after the other; and how many addresses are that nobody has.
func TestThrottledUsers(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		now := &clock{now: time.Now().Truncate(time.Second)}
		s := d.service(t, func(c *Config) { c.Now, c.RateLimits = now.Now, true })
		list := func() (got []string) {
			t.Helper()
			after := uuid.Nil
			for {
				page, err := s.ThrottledUsers(t.Context(), after, 2)
				if err != nil {
					t.Fatal(err)
				}
				for _, u := range page.Users {
					for _, why := range u.Throttle {
						got = append(got, fmt.Sprintf("%s %s %d", u.Email, why.Counted, why.Failures))
					}
				}
				if after = page.Last; after == uuid.Nil {
					return append(got, fmt.Sprintf("and %d", page.Nobody))
				}
				got = append(got, "more")
			}
		}
		want := func(when string, want ...string) {
			t.Helper()
			if diff := cmp.Diff(want, list()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", when, diff)
			}
		}
		want("before any failure", "and 0")
		users := map[string]*User{}
		for _, name := range []string{"ada", "bob", "cleo", "dora", "eve"} {
			users[name] = mustRegister(t, s, name+"@example.org")
		}
		phone, _ := s.on(t, "", "ada@example.org", secret)
		for range accountFree - 1 {
			s.try(t, "cleo@example.org", wrong) // who need not wait
		}
		for range accountFree {
			s.on(t, phone, "ada@example.org", wrong)
		}
		for _, name := range []string{"ada", "bob", "dora", "eve", "nobody"} {
			s.strangersGuess(t, name+"@example.org")
		}
		ada := []string{"ada@example.org device 4", "ada@example.org login 4"}
		got := list()
		slices.Sort(got[:2]) // both are of the same moment
		if diff := cmp.Diff(append(ada, "bob@example.org login 4", "more", "dora@example.org login 4", "eve@example.org login 4", "and 1"), got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if _, err := s.UnlockUser(t.Context(), users["bob"].ID, eventstore.Metadata{}); err != nil {
			t.Fatal(err)
		}
		mustErase(t, s, users["ada"].ID)
		want("after an unlock and an erasure", "dora@example.org login 4", "eve@example.org login 4", "and 1")
		now.add(firstWait - time.Second)
		want("at the end of the first wait", "dora@example.org login 4", "eve@example.org login 4", "and 1")
		now.add(time.Second)
		want("after it", "and 0")
		for wait := 2 * firstWait; ; wait *= 2 {
			s.try(t, "eve@example.org", wrong)
			now.add(min(wait, longestWait) - time.Second)
			if got := list(); !strings.HasPrefix(got[0], "eve@example.org login ") {
				t.Errorf("a second before a wait of %s ends: %q", min(wait, longestWait), got)
			}
			now.add(time.Second)
			want("after a wait", "and 0")
			if wait > 2*longestWait { // one more than there are different waits
				break
			}
		}
		// What is forgotten begins afresh.
		now.add(accountMemory)
		for range accountFree - 1 {
			s.try(t, "eve@example.org", wrong)
		}
		want("after all was forgotten, and less than a wait's failures", "and 0")
		s.try(t, "eve@example.org", wrong)
		want("after one more", "eve@example.org login 4", "and 0")
	})
}

// Whoever mistyped a password once is not looked at to find who is throttled, however many those are.
func TestThrottledUsersAreFoundByAnIndex(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		explain, fill := "EXPLAIN ", `SELECT gen_random_uuid()::text::bytea, 'login', gen_random_uuid(), CASE WHEN i % 1000 = 0 THEN 4 ELSE 1 END, $2, $2, $3, i % 1000 = 0
			FROM generate_series(1, $1::int) i`
		if d.db.Dialect() == eventstore.SQLite {
			explain, fill = "EXPLAIN QUERY PLAN ", `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1)
				SELECT randomblob(16), 'login', hex(randomblob(16)), CASE WHEN i % 1000 = 0 THEN 4 ELSE 1 END, $2, $2, $3, i % 1000 = 0 FROM n`
		}
		now := time.Now().UTC()
		if _, err := d.db.Exec(t.Context(), `INSERT INTO throttle (key, scope, user_id, failures, since, failed_at, forget_at, slowed) `+fill, 20_000, now, now.Add(accountMemory)); err != nil {
			t.Fatal(err)
		}
		if _, err := d.db.Exec(t.Context(), "ANALYZE"); err != nil {
			t.Fatal(err)
		}
		waits, args := waiting(now)
		of := plan(t, d.db, explain+fmt.Sprintf(throttledIDs, waits, len(args)+1, len(args)+2), append(args, uuid.Nil, 50)...)
		of += plan(t, d.db, explain+fmt.Sprintf(throttledNobody, waits, len(args)+1), append(args, maxNobody)...)
		if strings.Count(of, "throttle_slowed") != 2 {
			t.Errorf("the table is read to find who is throttled:\n%s", of)
		}
	})
}
