package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"usher.example/eventstore/sqlite"
	"usher.example/identity"
)

// An operator sees who is throttled, and why, a page after the other.
func TestUsersThrottled(t *testing.T) {
	t.Parallel()
	dir := devDirectory(t)
	users := func(args ...string) outcome {
		t.Helper()
		return usher(t, dir, []string{"BCRYPT_ROUNDS=4"}, append([]string{"users", "--dir", dir}, args...)...)
	}
	if out := users("throttled").wantDone(t).stdout; strings.Count(out, "\n") != 1 {
		t.Errorf("before any failure:\n%s", out)
	}
	s, err := sqlite.Open(t.Context(), filepath.Join(dir, databaseFile))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	last := time.Now().UTC().Truncate(time.Second)
	since := last.Add(-time.Hour / 2)
	fail := func(key string, user any, failures int) {
		t.Helper()
		if _, err := s.Exec(t.Context(), `INSERT INTO throttle (key, scope, user_id, failures, since, failed_at, forget_at, slowed) VALUES ($1, 'login', $2, $3, $4, $5, $6, true)`,
			[]byte(key), user, failures, since, last, last.Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	var ids []string
	for _, email := range []string{"ada@example.org", "bob@example.org"} {
		var made struct{ ID string }
		if err := json.Unmarshal([]byte(users("create", email, "--json").wantDone(t).stdout), &made); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, made.ID)
		fail(email, made.ID, 30)
	}
	fail("nobody", nil, 30)
	until := last.Add(5 * time.Minute).Format(time.RFC3339)
	out := users("throttled").wantDone(t).stdout
	for _, want := range []string{ids[0] + "  ada@example.org  login   30     " + since.Format(time.RFC3339) + "  " + until, ids[1] + "  bob@example.org", "and 1 address that nobody has"} {
		if !strings.Contains(out, want) {
			t.Errorf("users throttled lacks %q:\n%s", want, out)
		}
	}
	type page struct {
		Items []struct {
			Email    string
			Throttle []identity.Throttling
		}
		NextCursor string `json:"next_cursor"`
		Nobody     int    `json:"unknown_addresses"`
	}
	read := func(flags ...string) (p page) {
		t.Helper()
		if err := json.Unmarshal([]byte(users(append([]string{"throttled", "--json", "--limit", "1"}, flags...)...).wantDone(t).stdout), &p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	first := read()
	second := read("--cursor", first.NextCursor)
	if len(first.Items) != 1 || first.Items[0].Email != "ada@example.org" || len(first.Items[0].Throttle) != 1 || first.Items[0].Throttle[0].Failures != 30 || first.Nobody != 1 {
		t.Errorf("the first page: %+v", first)
	}
	if len(second.Items) != 1 || second.Items[0].Email != "bob@example.org" || second.NextCursor != "" {
		t.Errorf("the second page: %+v", second)
	}
	for _, flags := range [][]string{{"--limit", "0"}, {"--limit", "201"}, {"--cursor", "ada"}} {
		if o := users(append([]string{"throttled"}, flags...)...); o.code != exitUse || !strings.Contains(o.stderr, flags[0]+" takes ") {
			t.Errorf("users throttled %q: exit code %d\n%s", flags, o.code, o.stderr)
		}
	}
}
