package schema_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What there was before clients were streams and roles had meanings is taken over.
func TestTakeover(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d dialect) {
		dsn := d.fresh(t)
		m, db := d.migrator(t, dsn), d.database(t, dsn)
		if err := m.UpTo(t.Context(), 39); err != nil {
			t.Fatal(err)
		}
		exec := func(query string) {
			t.Helper()
			if _, err := db.Exec(query); err != nil {
				t.Fatalf("%s: %v", query, err)
			}
		}
		id := func(n int) string { return fmt.Sprintf("0198c0de-0000-7000-8000-%012d", n) }
		bytes := map[string]string{"postgres": `'\xab'::bytea`, "sqlite": `x'ab'`}[d.name]
		exec(`INSERT INTO clients (client_id, name, secret_hash, created_at) VALUES ('` + id(1) + `', 'shop', ` + bytes + `, '2026-01-02 03:04:05')`)
		if d.name == "postgres" {
			exec("SELECT ensure_partitions(100, 100)")
		}
		for i, e := range [][3]string{
			{"user.role_granted", `{"role":"auditor"}`, "open"}, {"user.role_granted", `{"role":"writer"}`, "open"}, {"user.imported", `{"email_verified":true,"roles":["operator","auditor"]}`, "open"},
			{"user.imported", `{"email_verified":true}`, "open"}, {"user.role_granted", `{"role":"operator"}`, "erased"}, {"user.disabled", `{"role":"operator"}`, "open"},
		} {
			exec(fmt.Sprintf(`INSERT INTO streams (stream, kind, version, state) VALUES ('%s', 'user', 1, '%s')`, id(10+i), e[2]))
			exec(fmt.Sprintf(`INSERT INTO events (position, stream, kind, subject, version, event_id, type, schema_version, data, metadata, recorded_at)
				VALUES (%d, '%s', 'user', '%[2]s', 1, '%[3]s', '%s', 1, '%s', '{}', '2026-01-02 03:04:05')`, i+1, id(10+i), id(20+i), e[0], e[1]))
		}
		if holders, err := m.UnadoptedRoles(t.Context()); err != nil || len(holders) != 0 {
			t.Errorf("UnadoptedRoles before it = %v, %v", holders, err)
		}
		if _, err := m.Up(t.Context()); err != nil {
			t.Fatal(err)
		}
		holders, err := m.UnadoptedRoles(t.Context())
		if diff := cmp.Diff(map[string]int{"auditor": 2, "operator": 1}, holders); diff != "" || err != nil {
			t.Errorf("%v, roles (-want +got):\n%s", err, diff)
		}
		n := count(t, db, `SELECT count(*) FROM clients c JOIN client_secrets s ON s.client_id = c.client_id AND s.secret_id = c.client_id AND s.hash = `+bytes+`
			WHERE c.name = 'shop' AND c.version = 0 AND s.kind = 'secret' AND c.changed_at = c.created_at AND s.created_at = c.created_at AND s.expires_at IS NULL`)
		if n != 1 {
			t.Errorf("%d clients were taken over with their secrets, want 1", n)
		}
	})
}
