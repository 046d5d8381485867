package test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// forged is a call of append_events with one event about no user.
const forged = `SELECT append_events(false, ARRAY[%s]::uuid[], ARRAY[%s]::uuid[], ARRAY[%s], ARRAY[%s], ARRAY[1], ARRAY[1], ARRAY['{}'::jsonb], NULL, NULL, ARRAY[%s],
	ARRAY[1], ARRAY[gen_random_uuid()], ARRAY[%s], ARRAY[1]::smallint[], ARRAY['{"role": "admin"}'::jsonb], ARRAY[NULL]::bytea[], %s)`

// wantNoEscalation tries as each role to come to what another may. target is the id of a user.
func (d *deployment) wantNoEscalation(super, target string) {
	t := d.t
	t.Helper()
	user := "'" + target + "'"
	const nothing = "NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL"
	anew := "gen_random_uuid()"

	everybody := []string{
		"UPDATE events SET type = type WHERE position = 1", "DELETE FROM events WHERE position = 1", "TRUNCATE events",
		"UPDATE events_000000000001 SET type = type", "DELETE FROM events_000000000001", "ALTER TABLE events DISABLE TRIGGER ALL",
		"INSERT INTO events SELECT * FROM events LIMIT 1", "INSERT INTO events_000000000001 SELECT * FROM events LIMIT 1",
		"DROP TABLE events", "DROP FUNCTION make_apply_state()", "SELECT make_apply_state()", "DELETE FROM migrations",
		"SELECT apply_state('credentials', NULL, NULL, NULL, NULL)", "SELECT erase_state(ARRAY[" + user + "]::uuid[])",
		// Whatever is made where another looks runs with the other's rights.
		"CREATE FUNCTION public.format(text, name, text) RETURNS text LANGUAGE sql AS 'SELECT $1'",
		"CREATE FUNCTION readmodels.evil() RETURNS int LANGUAGE sql AS 'SELECT 1'",
		"CREATE TABLE public.t (a int)", "CREATE TABLE readmodels.t (a int)", "CREATE TEMPORARY TABLE text (a int)", "CREATE SCHEMA usher_api",
		"CREATE OR REPLACE VIEW readmodels.users_live AS SELECT 1", "ALTER TABLE readmodels.users_1 ENABLE ROW LEVEL SECURITY",
		"CREATE TRIGGER evil AFTER INSERT ON readmodels.users_1 EXECUTE FUNCTION suppress_redundant_updates_trigger()",
		"CREATE INDEX ON readmodels.users_1 (lower(name))",
		"SET ROLE usher_owner", "GRANT usher_owner TO CURRENT_USER", "ALTER ROLE usher_owner PASSWORD 'mine'", "ALTER ROLE CURRENT_USER SUPERUSER",
		// Partitions without end.
		"SELECT ensure_partitions(100000000, 1)", "SELECT ensure_partitions(20000001, 1)", "SELECT ensure_partitions(40000000)", "SELECT ensure_partitions(9223372036854775807)",
		"SELECT ensure_partitions(20000001, 9000000000000000000)", "SELECT ensure_partitions(20000001, 0)", "SELECT ensure_partitions(20000001, NULL)",
		"COPY (SELECT 1) TO PROGRAM 'true'", "ALTER FUNCTION last_partitioned() OWNER TO CURRENT_USER",
	}
	secrets := []string{
		"SELECT hash FROM credentials", "SELECT history FROM credentials", "SELECT secret FROM factors", "SELECT hash FROM codes",
		"SELECT private FROM signing_keys", "SELECT * FROM signing_keys", "SELECT hash FROM client_secrets",
	}
	accounts := []string{
		"UPDATE credentials SET hash = 'mine' WHERE user_id = " + user, "INSERT INTO credentials SELECT * FROM credentials",
		"DELETE FROM factors", "UPDATE factors SET secret = ''", "INSERT INTO codes (user_id) VALUES (" + user + ")", "DELETE FROM codes",
		"INSERT INTO admins VALUES (" + user + ")", "DELETE FROM admins", "UPDATE reservations SET stream = " + user, "DELETE FROM reservations",
		// Beside a master key that nobody is given nothing starts.
		"INSERT INTO master_keys VALUES ('\\x0102030405060708', '\\x00', 'accepted', now())", "INSERT INTO master_keys VALUES ('\\x0102030405060708', NULL, 'retired', now())",
		"DELETE FROM user_keys", "UPDATE user_keys SET wrapped = ''", "UPDATE streams SET state = 'erased'", "DELETE FROM sessions",
		"UPDATE signing_keys SET private = ''", "INSERT INTO clients SELECT * FROM clients", "UPDATE throttle SET failures = 0",
		"INSERT INTO erasures (subject, actor, requested_at) VALUES (" + user + ", 'user', now())", "UPDATE webhooks SET url = 'https://example.org'",
		fmt.Sprintf(forged, user, user, "'user'", "1", "false", "'user.role_granted'", nothing),
		fmt.Sprintf(forged, anew, user, "'session'", "0", "false", "'session.started'", nothing),
		fmt.Sprintf(forged, user, "NULL", "'system'", "1", "false", "'webhook.disabled'", nothing), // the user's stream, called a system's
		fmt.Sprintf(forged, anew, user, "'system'", "0", "false", "'webhook.disabled'", nothing),
		fmt.Sprintf(forged, anew, "NULL", "'system'", "0", "false", "'user.erased'", nothing),
		fmt.Sprintf(forged, anew, "NULL", "'system'", "0", "false", "E'webhook.disabled\\nuser.erased'", nothing), // nor what no subject can be
		fmt.Sprintf(forged, anew, "NULL", "'system'", "0", "true", "'webhook.disabled'", nothing),
		fmt.Sprintf(forged, anew, "NULL", "'system'", "0", "false", "'webhook.disabled'", `NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
			ARRAY['admins'], ARRAY['[{"append": 1, "user_id": "`+target+`"}]'::jsonb], ARRAY[NULL]::jsonb[], ARRAY[NULL]::jsonb[]`),
		fmt.Sprintf(forged, anew, "NULL", "'system'", "0", "false", "'webhook.disabled'", "ARRAY[1], ARRAY['email'], ARRAY['x'::bytea], NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL"),
		fmt.Sprintf(forged, anew, "NULL", "'system'", "0", "false", "'webhook.disabled'", "NULL, NULL, NULL, ARRAY[1], ARRAY['email'], ARRAY['x'::bytea], NULL, NULL, NULL, NULL, NULL, NULL, NULL"),
	}
	readModels := []string{
		"SELECT make_read_model('evil', 1, '{}')", "SELECT index_read_model('users', 1, '{}')", "SELECT analyze_read_model('users', 1)",
		"SELECT show_read_model('users', 1, true)", "SELECT drop_read_model('users', 1)", "DELETE FROM readmodels.users_live",
	}
	for role, attempts := range map[string][]string{
		"usher_api":     slices.Concat(everybody, readModels),
		"usher_worker":  slices.Concat(everybody, secrets, accounts),
		"usher_monitor": slices.Concat(everybody, secrets, accounts, readModels, []string{"SELECT * FROM user_keys", "SELECT secrets FROM webhooks", "INSERT INTO leases (name, holder, epoch, expires_at) VALUES ('a', 'b', 1, now())", "SELECT ensure_partitions(1)"}),
	} {
		conn := d.loggedIn(super, role)
		for _, statement := range attempts {
			var refused *pgconn.PgError
			if _, err := conn.Exec(t.Context(), statement); !errors.As(err, &refused) || refused.Code != "42501" {
				t.Errorf("%s: %s: %v, want it refused for want of privilege", role, statement, err)
			}
		}
	}

	// What a worker gives the functions of read models is data, and makes nothing that runs.
	worker := d.loggedIn(super, "usher_worker")
	for _, statement := range []string{
		`SELECT make_read_model('x', 1, '{"columns": [{"name": "a", "type": "int) AS SELECT 1; --"}], "key": ["a"], "fill": 90}')`,
		`SELECT make_read_model('x', 1, '{"columns": [{"name": "a", "type": "readmodels.users_1"}], "key": ["a"], "fill": 90}')`,
		`SELECT make_read_model('x"; DROP TABLE public.events; --', 1, '{"columns": [{"name": "a", "type": "int"}], "key": ["a"], "fill": 90}')`,
		`SELECT index_read_model('users', 1, '{"name": "evil", "columns": ["lower(name)"]}')`,
		`SELECT drop_read_model('../public.events', 1)`, `SELECT show_read_model('Users', 1, true)`,
	} {
		var refused *pgconn.PgError
		if _, err := worker.Exec(t.Context(), statement); !errors.As(err, &refused) {
			t.Errorf("usher_worker: %s: %v, want it refused", statement, err)
		}
	}

	// It makes the partition that the log comes to next.
	var made int
	if err := worker.QueryRow(t.Context(), "SELECT ensure_partitions(20000001)").Scan(&made); err != nil || made != 1 {
		t.Errorf("usher_worker made %d partitions: %v", made, err)
	}

	all := d.loggedIn(super, "postgres")
	for what, query := range map[string]string{
		"a role makes things in a schema": `SELECT r.rolname || ' in ' || n.nspname FROM pg_roles r, pg_namespace n
			WHERE r.rolname IN ('usher_api', 'usher_worker', 'usher_monitor') AND has_schema_privilege(r.rolname, n.nspname, 'CREATE')`,
		"a role owns": `SELECT c.oid::regclass::text FROM pg_class c WHERE pg_get_userbyid(c.relowner) IN ('usher_api', 'usher_worker', 'usher_monitor')`,
		"a function's names are found by the path of whoever calls it": `SELECT p.oid::regprocedure::text FROM pg_proc p
			WHERE p.pronamespace IN ('public'::regnamespace, 'readmodels'::regnamespace) AND NOT coalesce('search_path=pg_catalog' = ANY (p.proconfig), false)`,
		"a function can be called by anybody": `SELECT p.oid::regprocedure::text FROM pg_proc p
			WHERE p.pronamespace IN ('public'::regnamespace, 'readmodels'::regnamespace) AND has_function_privilege('public', p.oid, 'EXECUTE')`,
		"roles.sql does not say who reads a table": `SELECT c.relname::text FROM pg_class c
			WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
			  AND NOT has_any_column_privilege('usher_api', c.oid, 'SELECT') AND NOT has_any_column_privilege('usher_worker', c.oid, 'SELECT')`,
	} {
		rows, err := all.Query(t.Context(), query)
		if err != nil {
			t.Fatal(err)
		}
		found, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		if len(found) > 0 {
			t.Errorf("%s: %s", what, strings.Join(found, ", "))
		}
	}
}

// loggedIn is a connection of a database user.
func (d *deployment) loggedIn(dsn, user string) *pgx.Conn {
	d.t.Helper()
	conn, err := pgx.Connect(d.t.Context(), loggedInAs(d.t, dsn, user))
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { conn.Close(context.Background()) }) //nolint:errcheck // the test is over
	return conn
}
