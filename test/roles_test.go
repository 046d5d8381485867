package test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"usher.example/internal/devstack"
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

// operateProjections makes every call of the API about projections on that of users. Where the API's role has no right to
// do what is asked, a worker does it. super is the DSN of a superuser, and alter changes the schema as one.
func (d *deployment) operateProjections(c *client, super string, alter func(sql string)) (user string) {
	t := d.t
	t.Helper()
	name, value := bearer(c.login(t, d.admin))
	type status struct {
		State      string
		Generation int
		Rebuild    *struct {
			State      string
			Generation int
		}
		Parked     []struct{ Position int64 }
		ParkedSize int `json:"parked_events"`
		Skipped    int `json:"skipped_events"`
	}
	now := func() status {
		t.Helper()
		list := into[struct{ Items []json.RawMessage }](t, c.want(t, http.StatusOK, "GET", "/v1/projections", nil, name, value))
		for _, raw := range list.Items {
			var of struct{ Name string }
			var s status
			if err := errors.Join(json.Unmarshal(raw, &of), json.Unmarshal(raw, &s)); err != nil {
				t.Fatal(err)
			}
			if of.Name == "users" {
				return s
			}
		}
		t.Fatal("there is no projection of users")
		return status{}
	}
	await := func(what string, is func(s status) bool) {
		t.Helper()
		eventually(t, what, func() error {
			if s := now(); !is(s) {
				return fmt.Errorf("it is %+v", s)
			}
			return nil
		})
	}
	ask := func(want int, method, what string, body any) status {
		t.Helper()
		return into[status](t, c.want(t, want, method, "/v1/projections/users/"+what, body, name, value))
	}

	user = c.mustRegister(t, "sick@example.org").ID
	change := func(what string, parked int) {
		t.Helper()
		c.want(t, http.StatusNoContent, "POST", "/v1/users/"+user+"/"+what, nil, name, value)
		await(what+" is parked", func(s status) bool { return s.ParkedSize == parked })
	}
	await("the user is there", func(s status) bool { return s.State == "running" })
	alter("ALTER TABLE readmodels.users_1 ADD CONSTRAINT nobody_is_locked CHECK (status <> 'locked') NOT VALID")
	change("lock", 1)
	change("unlock", 2)
	wantProblem(t, c.want(t, http.StatusConflict, "POST", "/v1/projections/users/retry", nil, name, value), http.StatusConflict, "poison_event")
	skip := map[string]any{"user": user, "position": now().Parked[0].Position}
	if s := ask(http.StatusOK, "POST", "skip", skip); s.ParkedSize != 0 || s.Skipped != 1 {
		t.Errorf("after a skip: %+v", s)
	}
	change("lock", 1)
	alter("ALTER TABLE readmodels.users_1 DROP CONSTRAINT nobody_is_locked")
	if s := ask(http.StatusOK, "POST", "retry", map[string]any{"user": user}); s.ParkedSize != 0 {
		t.Errorf("after a retry: %+v", s)
	}
	if s := ask(http.StatusOK, "POST", "pause", nil); s.State != "paused" {
		t.Errorf("after a pause: %+v", s)
	}
	ask(http.StatusOK, "POST", "resume", nil)
	ask(http.StatusAccepted, "POST", "rebuild", nil)
	await("the rebuild is done", func(s status) bool { return s.Generation == 2 && s.Rebuild == nil })

	// Somebody reads the view for long, so the next generation is filled and can't take its place.
	reader, err := pgx.Connect(t.Context(), super)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close(context.WithoutCancel(t.Context())) //nolint:errcheck // the test is over
	if _, err := reader.Exec(t.Context(), "BEGIN; SELECT count(*) FROM readmodels.users_live"); err != nil {
		t.Fatal(err)
	}
	there := func() (is bool) {
		t.Helper()
		if err := reader.QueryRow(t.Context(), "SELECT to_regclass('readmodels.users_3') IS NOT NULL").Scan(&is); err != nil {
			t.Fatal(err)
		}
		return is
	}
	ask(http.StatusAccepted, "POST", "rebuild", nil)
	await("the next generation is filled", func(s status) bool { return s.Rebuild != nil && s.Rebuild.State == "comparing" })
	if !there() {
		t.Error("the next generation has no table users_3")
	}
	if s := ask(http.StatusOK, "DELETE", "rebuild", nil); s.Rebuild != nil || s.Generation != 2 {
		t.Errorf("after the rebuild was cancelled: %+v", s)
	}
	if _, err := reader.Exec(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its tables are gone", func() error {
		if there() {
			return errors.New("users_3 is there")
		}
		return nil
	})
	return user
}

func runSQL(t *testing.T, dsn, sql string) error {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	_, err = conn.Exec(t.Context(), sql)
	return errors.Join(err, conn.Close(t.Context()))
}

// withRoles makes a server whose database is migrated by usher_owner and has the rights of deploy/postgres/roles.sql, and answers with
// the DSN of its superuser.
func withRoles(t *testing.T) (super string) {
	t.Helper()
	super = devstack.OwnPostgres(t, devstack.PostgresOptions{}).DSN("postgres")
	script, err := os.ReadFile(filepath.Join("..", "deploy", "postgres", "roles.sql"))
	if err != nil {
		t.Fatal(err)
	}
	grant := func() {
		t.Helper()
		if err := runSQL(t, super, string(script)); err != nil {
			t.Fatal(err)
		}
	}
	grant()
	if err := runSQL(t, super, "ALTER ROLE usher_owner LOGIN; ALTER ROLE usher_api LOGIN; ALTER ROLE usher_worker LOGIN; ALTER ROLE usher_monitor LOGIN"); err != nil {
		t.Fatal(err)
	}
	if err := migrate(t.Context(), loggedInAs(t, super, "usher_owner")); err != nil {
		t.Fatal(err)
	}
	grant()
	return super
}

// deploy/postgres/roles.sql gives every process the rights that it needs, and takes from all of them that of changing an
// event.
func TestLeastPrivilegeOnPostgres(t *testing.T) {
	t.Parallel()
	super := withRoles(t)
	run := func(sql string) {
		t.Helper()
		if err := runSQL(t, super, sql); err != nil {
			t.Fatal(err)
		}
	}

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
	if out := d.command("purge", "--yes"); !strings.HasPrefix(out, "removed ") {
		t.Errorf("usher purge as usher_worker:\n%s", out)
	}
	d.as("usher_api")
	d.walkThrough(c)
	e.taken(t, 1)
	d.as("usher_monitor")
	if out := d.command("check", "--verbose"); strings.Contains(out, "warning  the database user") {
		t.Errorf("usher check as usher_monitor:\n%s", out)
	}
	for _, read := range []string{"users list", "keys list", "clients list", "webhooks list", "projections list", "outbox status", "events tail --no-follow --last 100"} {
		out := d.command(strings.Fields(read)...)
		if shown := strings.Contains(out, "ada@example.org"); shown != (read == "users list") { // the log keeps it sealed
			t.Errorf("usher %s as usher_monitor:\n%s", read, out)
		}
	}

	// Only the owner may have the stream made anew.
	for _, user := range []string{"usher_api", "usher_worker", "usher_monitor"} {
		d.as(user)
		if _, stderr, err := d.try("outbox", "reset", "--force", "--yes"); err == nil || !strings.Contains(stderr, "relay_orders") {
			t.Errorf("usher outbox reset as %s: %v\n%s", user, err, stderr)
		}
	}
	d.as("usher_owner")
	if out := d.command("outbox", "reset", "--force", "--yes"); !strings.Contains(out, "published the log again, up to position ") {
		t.Errorf("usher outbox reset as usher_owner:\n%s", out)
	}
	d.as("usher_monitor")

	gone := d.operateProjections(c, super, run)
	d.as("usher_api")
	d.operateProjectionsByCommand(c, super, run)

	// A worker that starts before the API does waits until that has applied the ledger of erasures.
	ledger := filepath.Join(d.dir, "erasures.log")
	if err := os.WriteFile(ledger, []byte("2026-01-02T03:04:05Z "+gone+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.env = append(d.env, "ERASURE_LEDGER="+ledger)
	d.as("usher_worker")
	late := d.start("webhooks", "run")
	eventually(t, "the worker waits", func() error {
		if !strings.Contains(late.stderr.String(), "waiting for `usher serve`") {
			return errors.New(late.stderr.String())
		}
		return nil
	})
	name, value := bearer(c.login(t, d.admin))
	c.want(t, http.StatusOK, "GET", "/v1/users/"+gone, nil, name, value)
	d.as("usher_api")
	d.startServe()
	eventually(t, "the user is erased", func() error {
		a, err := c.call("GET", "/v1/users/"+gone, nil, name, value)
		if err == nil && a.status != http.StatusNotFound {
			err = fmt.Errorf("answer %d: %s", a.status, a.body)
		}
		return err
	})
	late.alive(t)

	d.wantNoEscalation(super, c.mustRegister(t, "target@example.org").ID)
}
