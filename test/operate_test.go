package test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/jackc/pgx/v5"
)

// operateProjectionsByCommand puts the read model of users right with the commands for it, as a database user who may not change
// its tables: a worker does it. super is the DSN of a superuser, and alter changes the schema as one.
func (d *deployment) operateProjectionsByCommand(c *client, super string, alter func(sql string)) {
	t := d.t
	t.Helper()
	type status struct {
		Name       string
		State      string
		Generation int
		Lag        int64
		ParkedSize int                       `json:"parked_events"`
		Standby    *struct{ Generation int } `json:"standby"`
		Rebuild    *struct{ State string }
		Parked     []struct{ Position int64 }
	}
	await := func(what string, is func(s status) bool) (s status) {
		t.Helper()
		eventually(t, what, func() error {
			var list []status
			if err := json.Unmarshal([]byte(d.command("projections", "list", "--json")), &list); err != nil {
				return err
			}
			for _, s = range list {
				if s.Name == "users" && is(s) {
					return nil
				}
			}
			return fmt.Errorf("they are %+v", list)
		})
		return s
	}
	want := func(says, line string) {
		t.Helper()
		if out := d.command(strings.Fields("projections " + line)...); out != "users: "+says+"\n" {
			t.Errorf("usher projections %s prints %q, want %q", line, out, says)
		}
	}
	refused := func(says, line string) {
		t.Helper()
		if _, stderr, err := d.try(strings.Fields("projections " + line)...); err == nil || !strings.Contains(stderr, says) {
			t.Errorf("usher projections %s: %v\n%s", line, err, stderr)
		}
	}
	live := await("the read model runs", func(s status) bool { return s.State == "running" })
	table := func() string { return fmt.Sprintf("readmodels.users_%d", live.Generation) }
	name, value := bearer(c.login(t, d.admin))
	user := c.mustRegister(t, "ill@example.org").ID
	change := func(what string, parked int) status {
		t.Helper()
		c.want(t, http.StatusNoContent, "POST", "/v1/users/"+user+"/"+what, nil, name, value)
		return await(what+" is parked", func(s status) bool { return s.ParkedSize == parked })
	}

	alter("ALTER TABLE " + table() + " ADD CONSTRAINT nobody_is_locked CHECK (status <> 'locked') NOT VALID")
	change("lock", 1)
	parked := change("unlock", 2).Parked
	refused("nobody_is_locked", "retry users --user "+user)
	want(fmt.Sprintf("position %d skipped, 1 event behind it applied", parked[0].Position), "skip users --yes --user "+user+fmt.Sprintf(" --position %d", parked[0].Position))
	change("lock", 1)
	alter("ALTER TABLE " + table() + " DROP CONSTRAINT nobody_is_locked")
	want("1 event applied", "retry users")
	refused("not parked", "retry users")

	way := live.Standby.Generation
	want(fmt.Sprintf("generation %d is live", way), "rollback users")
	before := live.Generation
	await("the standby is the live one", func(s status) bool { return s.Generation == way && s.Standby != nil && s.Standby.Generation == before })
	reader, err := pgx.Connect(t.Context(), super)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close(context.WithoutCancel(t.Context())) //nolint:errcheck // the test is over
	gone := func(table string) {
		t.Helper()
		eventually(t, table+" is gone", func() (err error) {
			var there bool
			if err = reader.QueryRow(t.Context(), "SELECT to_regclass($1) IS NOT NULL", table).Scan(&there); err == nil && there {
				err = fmt.Errorf("it is there")
			}
			return err
		})
	}
	alter("UPDATE projection_generations SET since = since - interval '60 days' WHERE projection = 'users'")
	if out := d.command("purge", "--yes"); !strings.Contains(out, "1 generation of read models") {
		t.Errorf("usher purge prints\n%s", out)
	}
	gone(fmt.Sprintf("readmodels.users_%d", before))
	refused("there is no standby generation", "rollback users")
	refused("there is no standby generation", "drop-standby users --yes")
	if out := d.command("projections", "rebuild", "users"); !strings.HasPrefix(out, "users: another process rebuilt it") {
		t.Errorf("usher projections rebuild users prints\n%s", out)
	}
	before = await("there is a standby again", func(s status) bool { return s.Standby != nil && s.Standby.Generation == way }).Generation
	standby := fmt.Sprintf("readmodels.users_%d", way)
	alter("ALTER TABLE " + standby + " ADD CONSTRAINT nobody_is_locked CHECK (status <> 'locked') NOT VALID")
	for _, what := range []string{"unlock", "lock"} {
		c.want(t, http.StatusNoContent, "POST", "/v1/users/"+user+"/"+what, nil, name, value)
	}
	await("the live one has both", func(s status) bool { return s.Lag == 0 })
	refused("nobody_is_locked", "rollback users")
	alter("ALTER TABLE " + standby + " DROP CONSTRAINT nobody_is_locked")
	want(fmt.Sprintf("generation %d is live", way), "rollback users")
	want("dropped", "drop-standby users --yes")
	gone(fmt.Sprintf("readmodels.users_%d", before))

	// Somebody reads the view for long, so the next generation is filled and can't take its place.
	if _, err := reader.Exec(t.Context(), "BEGIN; SELECT count(*) FROM readmodels.users_live"); err != nil {
		t.Fatal(err)
	}
	rebuild := d.start("projections", "rebuild", "users")
	await("the next generation is filled", func(s status) bool { return s.Rebuild != nil && s.Rebuild.State == "comparing" })
	want("cancelled", "cancel users --yes")
	<-rebuild.ended
	if code := rebuild.cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(rebuild.stderr.String(), "cancelled") {
		t.Errorf("the rebuild ended with exit code %d:\n%s", code, &rebuild.stderr)
	}
	if _, err := reader.Exec(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	refused("there is no rebuild", "cancel users")
	await("nothing is left of it", func(s status) bool { return s.Generation == way && s.Rebuild == nil })
}
