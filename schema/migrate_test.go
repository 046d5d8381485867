package schema_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	"golang.org/x/sync/errgroup"
	_ "modernc.org/sqlite"

	"usher.example/eventstore/sqlite"
	"usher.example/internal/devstack"
	"usher.example/schema"
)

func TestMain(m *testing.M) { os.Exit(devstack.Main(m)) }

// dialect is one kind of database: how to make an empty one, and how to open it.
type dialect struct {
	name   string
	fresh  func(t *testing.T) string
	open   func(dsn string) (*schema.Migrator, error)
	driver string
	tables string // counts the tables of a database
}

var dialects = []dialect{
	{
		name:   "postgres",
		fresh:  func(t *testing.T) string { return devstack.Database(t, "empty", nil) },
		open:   schema.Postgres,
		driver: "pgx",
		tables: "SELECT count(*) FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'migrations'",
	},
	{
		name:   "sqlite",
		fresh:  func(t *testing.T) string { return filepath.Join(t.TempDir(), "usher.db") },
		open:   schema.SQLite,
		driver: "sqlite",
		tables: "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name NOT IN ('migrations', 'sqlite_sequence')",
	},
}

func each(t *testing.T, test func(t *testing.T, d dialect)) {
	for _, d := range dialects {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			test(t, d)
		})
	}
}

func (d dialect) migrator(t *testing.T, dsn string) *schema.Migrator {
	t.Helper()
	m, err := d.open(dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// database opens a database past the migrator.
func (d dialect) database(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open(d.driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func count(t *testing.T, db *sql.DB, query string) (n int) {
	t.Helper()
	if err := db.QueryRow(query).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// The tables are made in public, whatever the search path of the database is for others.
func TestUpMakesTablesInPublic(t *testing.T) {
	t.Parallel()
	d := dialects[0]
	dsn := d.fresh(t)
	db := d.database(t, dsn)
	var name string
	if err := db.QueryRow("SELECT current_database()").Scan(&name); err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{"CREATE SCHEMA other", "ALTER DATABASE " + name + " SET search_path = other"} {
		if _, err := db.Exec(sql); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.migrator(t, dsn).Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := count(t, db, "SELECT count(*) FROM pg_tables WHERE schemaname = 'other'"); n != 0 {
		t.Errorf("%d tables are in another schema", n)
	}
	if err := d.migrator(t, dsn).Check(t.Context()); err != nil {
		t.Error(err)
	}
}

// A file's name is a name, whatever it means in a URL: neither a parameter nor another file.
func TestSQLiteInAnyDirectory(t *testing.T) {
	t.Parallel()
	above := t.TempDir()
	names := []string{"a?b=c", "a#b", "a%41b", "a b+ü"}
	for _, name := range names {
		path := filepath.Join(above, name, "usher.db")
		if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := migratedUp(t.Context(), schema.SQLite, path); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		store, err := sqlite.Open(t.Context(), path)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		store.Close()
	}
	entries, err := os.ReadDir(above)
	if err != nil || len(entries) != len(names) {
		t.Errorf("beside %q there is %v, %v", names, entries, err)
	}
}

// Nobody but its owner can read the database, whatever the umask is, nor one that an earlier version made.
func TestSQLiteIsPrivate(t *testing.T) {
	t.Parallel()
	for _, before := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "usher.db")
		if before {
			for _, name := range []string{path, path + "-wal", path + "-shm"} {
				if err := os.WriteFile(name, nil, 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.Chmod(name, 0o644); err != nil { // which no umask changes
					t.Fatal(err)
				}
			}
		}
		m, err := schema.SQLite(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Up(t.Context()); err != nil {
			t.Fatal(err)
		}
		files, err := filepath.Glob(path + "*")
		if err != nil || len(files) < 3 {
			t.Fatalf("files %v, %v, want those of the log too", files, err)
		}
		for _, name := range files {
			if info, err := os.Stat(name); err != nil || info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s has the mode %v, %v", filepath.Base(name), info.Mode(), err)
			}
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestUpAndDown(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d dialect) {
		ctx := t.Context()
		dsn := d.fresh(t)
		m, db := d.migrator(t, dsn), d.database(t, dsn)
		if err := m.Check(ctx); !errors.Is(err, schema.ErrPending) {
			t.Errorf("Check of an empty database: %v, want ErrPending", err)
		}
		if n := pending(t, m); n != total(t, m) {
			t.Errorf("%d of %d migrations are missing, want all", n, total(t, m))
		}
		var tables int
		for round := range 2 {
			applied, err := m.Up(ctx)
			if err != nil || len(applied) != total(t, m) {
				t.Fatalf("Up = %v, %v, want %d migrations", applied, err, total(t, m))
			}
			for i, a := range applied {
				if a.Version != status(t, m)[i].Version || a.Name == "" || a.Applied.IsZero() {
					t.Errorf("migration %d is %+v", i, a)
				}
			}
			if err := m.Check(ctx); err != nil {
				t.Errorf("Check: %v", err)
			}
			if n := pending(t, m); n != 0 {
				t.Errorf("%d migrations are missing, want none", n)
			}
			if again, err := m.Up(ctx); len(again) != 0 || err != nil {
				t.Errorf("Up again = %v, %v, want nothing", again, err)
			}
			if n := count(t, db, d.tables); n < 10 || round > 0 && n != tables {
				t.Errorf("%d tables, %d the first time", n, tables)
			} else {
				tables = n
			}
			if err := m.Zero(ctx); err != nil {
				t.Fatal(err)
			}
			if n := count(t, db, d.tables); n != 0 {
				t.Errorf("%d tables after Zero, want none", n)
			}
			if n := pending(t, m); n != total(t, m) {
				t.Errorf("%d of %d migrations are missing, want all", n, total(t, m))
			}
		}
	})
}

func status(t *testing.T, m *schema.Migrator) []schema.Migration {
	t.Helper()
	list, err := m.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func total(t *testing.T, m *schema.Migrator) int { return len(status(t, m)) }

func pending(t *testing.T, m *schema.Migrator) (n int) {
	for _, s := range status(t, m) {
		if s.Applied.IsZero() {
			n++
		}
	}
	return n
}

// A database that a newer usher has migrated is left alone.
func TestNewer(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d dialect) {
		ctx := t.Context()
		dsn := d.fresh(t)
		m := d.migrator(t, dsn)
		if _, err := m.Up(ctx); err != nil {
			t.Fatal(err)
		}
		newest := status(t, m)[total(t, m)-1].Version
		insert := fmt.Sprintf("INSERT INTO migrations (version_id, is_applied) VALUES (%d, true)", newest+1)
		if _, err := d.database(t, dsn).Exec(insert); err != nil {
			t.Fatal(err)
		}
		if err := m.Check(ctx); !errors.Is(err, schema.ErrNewer) {
			t.Errorf("Check: %v, want ErrNewer", err)
		}
		if applied, err := m.Up(ctx); !errors.Is(err, schema.ErrNewer) || len(applied) != 0 {
			t.Errorf("Up = %v, %v, want ErrNewer", applied, err)
		}
	})
}

// Those who migrate at the same time take turns: one does it, and the others find it done.
func TestAtOnce(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d dialect) {
		dsn := d.fresh(t)
		applied := make([][]schema.Migration, 6)
		group, ctx := errgroup.WithContext(t.Context())
		for i := range applied {
			m := d.migrator(t, dsn)
			group.Go(func() (err error) {
				applied[i], err = m.Up(ctx)
				return err
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		seen := map[int64]int{}
		for _, list := range applied {
			for _, a := range list {
				seen[a.Version]++
			}
		}
		m := d.migrator(t, dsn)
		for _, s := range status(t, m) {
			if seen[s.Version] != 1 {
				t.Errorf("migration %d was applied %d times, want once", s.Version, seen[s.Version])
			}
		}
		if err := m.Check(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// Whoever waits for another process that migrates can be told to stop waiting.
func TestWaitIsCancelled(t *testing.T) {
	t.Parallel()
	dsn := devstack.Database(t, "empty", nil)
	db := dialects[0].database(t, dsn)
	held, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if _, err := held.ExecContext(t.Context(), "SELECT pg_advisory_lock(7236000)"); err != nil {
		t.Fatal(err)
	}
	m := dialects[0].migrator(t, dsn)
	ctx, cancel := context.WithCancel(t.Context())
	deadline := time.Now().Add(30 * time.Second)
	done := make(chan error)
	go func() {
		_, err := m.Up(ctx)
		done <- err
	}()
	const waiters = `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`
	for count(t, db, waiters) == 0 {
		if time.Now().After(deadline) {
			t.Fatal("nobody waits")
		}
	}
	cancel()
	if err := <-done; err == nil {
		t.Error("Up went on without the lock")
	}
	if n := count(t, db, dialects[0].tables); n != 0 {
		t.Errorf("%d tables, want none", n)
	}
}
