package schema_test

import (
	"context"
	"database/sql"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"usher.example/internal/devstack"
	"usher.example/schema"
)

// Tables that stay as they are when a user is erased, and why they may. Every other one has a column user_id, by which the
// user's rows are deleted. A new table belongs to one or the other.
var stays = map[string]string{
	"commands":      "ids of commands, and positions",
	"clients":       "services, not users",
	"erasures":      "that there was a user, and when the user was erased",
	"events":        "personal fields are sealed with the key that is destroyed",
	"leases":        "nothing about users",
	"master_keys":   "nothing about users",
	"migrations":    "nothing about users",
	"parked_events": "positions; a projection drops the user's as it comes to the erasure",
	"projections":   "nothing about users",
	"relay":         "nothing about users",
	"relay_orders":  "nothing about users",
	"reservations":  "HMACs, which are deleted by their stream",
	"signing_keys":  "nothing about users",
	"streams":       "that there was a user",
	"subscriptions": "nothing about users",
	"mail_targets":  "HMACs and times, which are deleted within the hour",

	"projection_generations": "nothing about users",
	"discarded_generations":  "nothing about users",
	"skipped_events":         "positions, and whom the events were about",

	"client_assertions":  "nothing about users",
	"client_secrets":     "nothing about users",
	"webhook_deliveries": "ids, positions and types; endpoints' answers are sealed with the key that is destroyed",
	"webhook_progress":   "nothing about users",
	"webhook_states":     "nothing about users",
	"webhooks":           "nothing about users",
}

func TestErasureReachesEveryTable(t *testing.T) {
	t.Parallel()
	for _, d := range []struct {
		dialect
		dsn string
		// tables lists those whose rows are deleted by user_id, and those of which they would have to be.
		reached, all, indexed string
	}{
		{
			dialect: dialects[0],
			dsn: devstack.Database(t, "erasure", func(ctx context.Context, dsn string) error {
				return migratedUp(ctx, schema.Postgres, dsn)
			}),
			reached: `SELECT m[1] FROM pg_proc p, regexp_matches(p.prosrc, 'DELETE FROM public\.(\w+) WHERE user_id = ANY', 'g') m WHERE p.proname = 'erase_state'`,
			all:     `SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition`,
			indexed: `SELECT DISTINCT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
				JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0] WHERE a.attname = 'user_id' AND i.indpred IS NULL`,
		},
		{
			dialect: dialects[1],
			dsn:     dialects[1].fresh(t),
			reached: `SELECT t.name FROM sqlite_schema t, pragma_table_info(t.name) c WHERE t.type = 'table' AND c.name = 'user_id'`,
			all:     `SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'`,
			indexed: `SELECT DISTINCT t.name FROM sqlite_schema t, pragma_index_list(t.name) i, pragma_index_info(i.name) c
				WHERE t.type = 'table' AND c.seqno = 0 AND c.name = 'user_id' AND NOT i.partial`,
		},
	} {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			if err := migratedUp(t.Context(), d.open, d.dsn); err != nil {
				t.Fatal(err)
			}
			db, err := sql.Open(d.driver, d.dsn)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			names := func(query string) (list []string) {
				t.Helper()
				rows, err := db.QueryContext(t.Context(), query)
				if err != nil {
					t.Fatal(err)
				}
				defer rows.Close()
				for rows.Next() {
					var name string
					if err := rows.Scan(&name); err != nil {
						t.Fatal(err)
					}
					list = append(list, name)
				}
				slices.Sort(list)
				return list
			}
			var want []string
			for _, name := range names(d.all) {
				if stays[name] == "" {
					want = append(want, name)
				}
			}
			reached := names(d.reached)
			if diff := cmp.Diff(want, reached); diff != "" {
				t.Errorf("tables whose rows go with their user, by a column user_id (-all others +those that do):\n%s", diff)
			}
			indexed := names(d.indexed)
			for _, name := range reached {
				if !slices.Contains(indexed, name) {
					t.Errorf("%s has no index that begins with user_id: an erasure would read all of it, and every append would wait", name)
				}
			}
			for name := range stays {
				if !slices.Contains(names(d.all), name) {
					t.Errorf("there is no table %s", name)
				}
			}
			if len(reached) < 5 || !strings.Contains(strings.Join(reached, " "), "user_keys") {
				t.Errorf("an erasure reaches %q only", reached)
			}
		})
	}
}

func migratedUp(ctx context.Context, open func(string) (*schema.Migrator, error), dsn string) error {
	m, err := open(dsn)
	if err != nil {
		return err
	}
	defer m.Close()
	_, err = m.Up(ctx)
	return err
}
