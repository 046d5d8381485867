package main

import (
	"database/sql"
	"strings"
	"sync"
	"testing"

	"usher.example/internal/devstack"
)

// Everything goes through a pooler that gives each transaction another server connection: migrations by several processes at once, which
// leave no lock behind, and the commands of an operator. Where statements would get lost, a start and the check say what to set.
func TestBehindATransactionPooler(t *testing.T) {
	t.Parallel()
	direct := emptyPostgres(t)
	pooler := devstack.PgBouncer(t, devstack.SharedPostgres(t), map[string]string{"pool_mode": "transaction"})
	dir := t.TempDir()
	env := settingsFor(pooler.DSN(direct, "default_query_exec_mode=simple_protocol", "pool_max_conns=4"))
	applied := make([]int, 4)
	var group sync.WaitGroup
	for i := range applied {
		group.Go(func() {
			applied[i] = strings.Count(usher(t, dir, env, "migrate", "up").wantDone(t).stdout, "applied ")
		})
	}
	group.Wait()
	migrated := 0
	for _, n := range applied {
		if n > 0 {
			migrated++
		}
	}
	if migrated != 1 {
		t.Errorf("the processes applied %v migrations, want one of them all", applied)
	}
	db, err := sql.Open("pgx", direct)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var held int
	if err := db.QueryRow("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())").Scan(&held); err != nil || held != 0 {
		t.Errorf("%d advisory locks are held after the migrations, %v", held, err)
	}
	usher(t, dir, env, "users", "create", "ada@example.org").wantDone(t)
	usher(t, dir, env, "check", "--component", "database").wantDone(t)
	if text := usher(t, dir, env, "events", "tail", "--no-follow").wantDone(t).stdout; !strings.Contains(text, "user.registered") {
		t.Errorf("events tail through a pooler:\n%s", text)
	}

	if major, minor := devstack.PgBouncerVersion(t); major == 1 && minor < 24 { // from there on it keeps statements by default
		named := append(env, "DATABASE_URL="+pooler.DSN(direct))
		wantNoStart(t, named, "default_query_exec_mode=exec")
		o := usher(t, dir, named, "check", "--component", "database")
		if o.code != exitFailed || !strings.Contains(o.stdout, "default_query_exec_mode=exec") {
			t.Errorf("check: exit code %d\n%s%s", o.code, o.stdout, o.stderr)
		}
	}
}
