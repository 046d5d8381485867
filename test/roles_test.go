package test

import (
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"usher/internal/devstack"
)

// loggedInAs is a DSN for another database user.
func loggedInAs(t *testing.T, dsn, user string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.User(user)
	return u.String()
}

// as has the processes that are started from here on use another database user.
func (d *deployment) as(user string) {
	d.env = append(d.env, "DATABASE_URL="+loggedInAs(d.t, d.setting("DATABASE_URL"), user))
}

// deploy/postgres/roles.sql gives every process the rights that it needs, and takes from all of them that of changing an
// event.
func TestLeastPrivilegeOnPostgres(t *testing.T) {
	t.Parallel()
	super := devstack.OwnPostgres(t, devstack.PostgresOptions{}).DSN("postgres")
	script, err := os.ReadFile(filepath.Join("..", "deploy", "postgres", "roles.sql"))
	if err != nil {
		t.Fatal(err)
	}
	run := func(dsn, sql string) error {
		t.Helper()
		conn, err := pgx.Connect(t.Context(), dsn)
		if err != nil {
			t.Fatal(err)
		}
		_, err = conn.Exec(t.Context(), sql)
		return errors.Join(err, conn.Close(t.Context()))
	}
	grant := func() {
		t.Helper()
		if err := run(super, string(script)); err != nil {
			t.Fatal(err)
		}
	}
	grant()
	if err := run(super, "ALTER ROLE usher_owner LOGIN; ALTER ROLE usher_api LOGIN; ALTER ROLE usher_worker LOGIN; ALTER ROLE usher_monitor LOGIN"); err != nil {
		t.Fatal(err)
	}
	if err := migrate(t.Context(), loggedInAs(t, super, "usher_owner")); err != nil {
		t.Fatal(err)
	}
	grant()

	d := newServeDeployment(t, super, devstack.NATSProcess(t, t.TempDir(), 0).URL())
	d.env = append(d.env, "WEBHOOK_ALLOW=127.0.0.0/8")
	d.as("usher_api")
	_, c := d.startServe()
	e := newEndpoint(t)
	d.addWebhook(e, "--events", "user.registered")
	d.as("usher_worker")
	d.start("publish", "--continuous")
	d.start("project")
	d.start("webhooks", "run")
	d.as("usher_monitor")
	d.walkThrough(c)
	e.taken(t, 1)
	if out := d.command("check", "--component", "database", "--verbose"); strings.Contains(out, "warning") {
		t.Errorf("usher check as usher_monitor:\n%s", out)
	}

	for _, user := range []string{"usher_api", "usher_worker", "usher_monitor"} {
		for _, statement := range []string{
			"UPDATE events SET type = type WHERE position = 1", "DELETE FROM events WHERE position = 1", "TRUNCATE events",
			"UPDATE events_000000000001 SET type = type", "DELETE FROM events_000000000001", "ALTER TABLE events DISABLE TRIGGER ALL",
			"DROP TABLE events", "CREATE OR REPLACE FUNCTION append_events() RETURNS int LANGUAGE sql AS 'SELECT 1'; DROP FUNCTION make_apply_state()",
			"DELETE FROM migrations",
		} {
			var refused *pgconn.PgError
			if err := run(loggedInAs(t, super, user), statement); !errors.As(err, &refused) || refused.Code != "42501" {
				t.Errorf("%s: %s: %v, want it refused for want of privilege", user, statement, err)
			}
		}
	}
	var refused *pgconn.PgError
	err = run(loggedInAs(t, super, "usher_monitor"), "INSERT INTO leases (name, holder, epoch, expires_at) VALUES ('a', 'b', 1, now())")
	if !errors.As(err, &refused) || refused.Code != "42501" {
		t.Errorf("usher_monitor writes: %v", err)
	}
}
