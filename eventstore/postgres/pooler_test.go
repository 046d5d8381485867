package postgres_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/eventstore/postgres"
	"usher.example/eventstore/storetest"
	"usher.example/internal/devstack"
)

// The core of the suite through a PgBouncer as it comes: in session mode with statements that are kept by name, which are what usher sends unless
// told otherwise, and in transaction mode without.
func TestStoreBehindAPooler(t *testing.T) {
	t.Parallel()
	for _, way := range []struct{ pool, parameter string }{
		{"session", "pool_max_conns=2"}, // its default_pool_size of 20 is all that the processes of a test have together
		{"transaction", "default_query_exec_mode=exec"},
	} {
		t.Run(way.pool, func(t *testing.T) {
			t.Parallel()
			pooler := devstack.PgBouncer(t, devstack.SharedPostgres(t), map[string]string{"pool_mode": way.pool})
			storetest.Core(t, storetest.Backend{
				Fresh: func(tb testing.TB) string {
					return pooler.DSN(migrated(tb), way.parameter)
				},
				Open: backend.Open,
			})
		})
	}
}

// modes are those that pgx knows.
var modes = []string{"cache_statement", "cache_describe", "describe_exec", "exec", "simple_protocol"}

// Where a pooler gives each transaction any server connection, statements that are kept by name get lost, unless the pooler knows of
// them. Then a process doesn't start; in every other mode it writes and reads.
func TestTransactionPooling(t *testing.T) {
	t.Parallel()
	dsn := migrated(t)
	pooler := devstack.PgBouncer(t, devstack.SharedPostgres(t), map[string]string{"pool_mode": "transaction"})
	major, minor := devstack.PgBouncerVersion(t)
	keeps := major > 1 || minor >= 24 // from 1.21 on it can, from 1.24 on it does so by default
	for _, mode := range modes {
		s, err := postgres.Open(t.Context(), pooler.DSN(dsn, "default_query_exec_mode="+mode), postgres.Options{})
		if mode == "cache_statement" && !keeps {
			if !errors.Is(err, postgres.ErrUnfit) || !strings.Contains(err.Error(), "default_query_exec_mode=exec") {
				t.Errorf("%s: open: %v, want ErrUnfit that says what to set", mode, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", mode, err)
			continue
		}
		t.Cleanup(s.Close)
		writesAndReads(t, mode, s)
	}
}

// writesAndReads appends, reads it back, and uses the other ways in which a database is spoken to.
func writesAndReads(t *testing.T, mode string, s *postgres.Store) {
	t.Helper()
	ctx, log := t.Context(), newLog(s)
	a := registration()
	result, err := log.Append(ctx, a)
	if err != nil {
		t.Errorf("%s: append: %v", mode, err)
		return
	}
	events, err := log.ReadStream(ctx, a.Stream.ID, 0, 10)
	if err != nil || len(events) != len(a.Events) || events[len(events)-1].Position != result.Position {
		t.Errorf("%s: read %v, %v, want the events up to %d", mode, events, err, result.Position)
	}
	err = s.Transact(ctx, func(tx eventstore.DB) error {
		rows := [][]any{{uuid.New(), []byte{0, '\\', 255}}, {uuid.New(), []byte{}}}
		copier, ok := tx.(interface {
			CopyFrom(ctx context.Context, table string, columns []string, rows int, row func(i int) []any) error
		})
		if !ok {
			return errors.New("a transaction has no COPY")
		}
		if err := copier.CopyFrom(ctx, "user_keys", []string{"user_id", "wrapped"}, len(rows), func(i int) []any { return rows[i] }); err != nil {
			return err
		}
		var wrapped []byte
		if err := tx.QueryRow(ctx, "SELECT wrapped FROM user_keys WHERE user_id = $1", rows[0][0]).Scan(&wrapped); err != nil {
			return err
		}
		if !slices.Equal(wrapped, rows[0][1].([]byte)) {
			t.Errorf("%s: read %v, want %v", mode, wrapped, rows[0][1])
		}
		return nil
	})
	if err != nil {
		t.Errorf("%s: transaction: %v", mode, err)
	}
}

// In statement mode no transaction lasts, so nothing starts.
func TestStatementPooling(t *testing.T) {
	t.Parallel()
	pooler := devstack.PgBouncer(t, devstack.SharedPostgres(t), map[string]string{"pool_mode": "statement"})
	for _, mode := range modes {
		s, err := postgres.Open(t.Context(), pooler.DSN(migrated(t), "default_query_exec_mode="+mode), postgres.Options{})
		if !errors.Is(err, postgres.ErrUnfit) {
			t.Errorf("%s: open: %v, want ErrUnfit", mode, err)
		}
		if err == nil {
			s.Close()
		}
	}
}

// Defaults of a role that change what statements mean are set right on connections to the server itself. A pooler's are left as they are,
// and the start is refused.
func TestDefaultsOfTheRole(t *testing.T) {
	t.Parallel()
	ctx := context.WithoutCancel(t.Context())
	for name, value := range map[string]string{
		"default_transaction_isolation": "serializable", "default_transaction_read_only": "on", "session_replication_role": "replica",
		"standard_conforming_strings": "off", "datestyle": "German", "timezone": "Asia/Kathmandu", "client_encoding": "LATIN1",
		"search_path": "pg_catalog", "bytea_output": "escape", "intervalstyle": "sql_standard", "extra_float_digits": "-15", "array_nulls": "off",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := migrated(t)
			admin := open(t, dsn, postgres.Options{})
			var database string
			if err := admin.QueryRow(ctx, "SELECT current_database()").Scan(&database); err != nil {
				t.Fatal(err)
			}
			if _, err := admin.Exec(ctx, "ALTER DATABASE "+database+" SET "+name+" = '"+value+"'"); err != nil {
				t.Fatal(err)
			}
			writesAndReads(t, name, open(t, dsn, postgres.Options{}))
			bent := slices.Contains([]string{"default_transaction_isolation", "default_transaction_read_only", "session_replication_role", "search_path"}, name)
			for _, mode := range []string{"session", "transaction"} {
				pooler := devstack.PgBouncer(t, devstack.SharedPostgres(t), map[string]string{"pool_mode": mode})
				s, err := postgres.Open(ctx, pooler.DSN(dsn, "default_query_exec_mode=exec"), postgres.Options{})
				switch {
				case bent && (!errors.Is(err, postgres.ErrUnfit) || !strings.Contains(err.Error(), name)):
					t.Errorf("%s pooling: open: %v, want ErrUnfit that names the setting", mode, err)
				case !bent && err != nil:
					t.Errorf("%s pooling: %v", mode, err)
				case !bent:
					writesAndReads(t, name, s)
				}
				if err == nil {
					s.Close()
				}
			}
		})
	}
}
