package devstack_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"usher.example/internal/devstack"
)

func TestDatabaseClonesTemplateMigratedOnce(t *testing.T) {
	t.Parallel()
	var migrations atomic.Int32
	migrate := func(ctx context.Context, dsn string) error {
		migrations.Add(1)
		return exec(ctx, dsn, "CREATE TABLE users AS SELECT 7 AS n")
	}
	template := "Clones" + rand.Text() // templates outlast a test, which may run more than once
	const clones = 6
	var names sync.Map
	t.Run("clones", func(t *testing.T) {
		for i := range clones {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				dsn := devstack.Database(t, template, migrate)
				if _, taken := names.LoadOrStore(query[string](t, dsn, "SELECT current_database()"), true); taken {
					t.Errorf("%s was given out twice", dsn)
				}
				if err := exec(t.Context(), dsn, fmt.Sprintf("UPDATE users SET n = n + %d", i)); err != nil {
					t.Fatal(err)
				}
				if got := query[int](t, dsn, "SELECT n FROM users"); got != 7+i {
					t.Errorf("n = %d, want %d", got, 7+i)
				}
			})
		}
	})
	if got := migrations.Load(); got != 1 {
		t.Errorf("migrated %d times, want 1", got)
	}
	admin := devstack.SharedPostgres(t).DSN("postgres")
	names.Range(func(name, _ any) bool {
		if query[bool](t, admin, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name) {
			t.Errorf("database %s is left behind", name)
		}
		return true
	})
}

// failingTest is a test that has failed, or is about to.
type failingTest struct {
	*testing.T
	failed   bool
	fatal    string
	log      strings.Builder
	cleanups []func()
}

func (f *failingTest) Failed() bool                    { return f.failed }
func (f *failingTest) Cleanup(fn func())               { f.cleanups = append(f.cleanups, fn) }
func (f *failingTest) Logf(format string, args ...any) { fmt.Fprintf(&f.log, format, args...) }
func (f *failingTest) Fatalf(format string, args ...any) {
	f.fatal = fmt.Sprintf(format, args...)
	panic(f)
}

func TestDatabaseReportsMigration(t *testing.T) {
	t.Parallel()
	f := &failingTest{T: t}
	func() {
		defer func() { _ = recover() }()
		devstack.Database(f, "refused", func(ctx context.Context, dsn string) error {
			return exec(ctx, dsn, "CREATE TABLE users (no_such_type no_such_type)")
		})
	}()
	if !strings.Contains(f.fatal, "no_such_type") {
		t.Errorf("fatal = %q, want the error of the migration", f.fatal)
	}
}

// An open connection does not keep the database from being dropped.
func TestDatabaseDropsWithOpenConnections(t *testing.T) {
	t.Parallel()
	f := &failingTest{T: t}
	dsn := devstack.Database(f, "empty", nil)
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	idle := make(chan error, 1)
	go func() { idle <- exec(t.Context(), dsn, "SELECT pg_sleep(60)") }()
	admin := devstack.SharedPostgres(t).DSN("postgres")
	name := strings.TrimPrefix(u.Path, "/")
	eventually(t, deadline(t), func(context.Context) error {
		if query[int](t, admin, "SELECT count(*) FROM pg_stat_activity WHERE datname = $1", name) == 0 {
			return errors.New("no connection")
		}
		return nil
	})
	for _, cleanup := range f.cleanups {
		cleanup()
	}
	if err := <-idle; err == nil {
		t.Error("the connection outlived its database")
	}
	if f.log.Len() > 0 {
		t.Errorf("log = %q, want nothing", f.log.String())
	}
}

func BenchmarkDatabase(b *testing.B) {
	migrate := func(ctx context.Context, dsn string) error {
		for i := range 30 {
			if err := exec(ctx, dsn, fmt.Sprintf("CREATE TABLE t%d (id bigint PRIMARY KEY, v text UNIQUE)", i)); err != nil {
				return err
			}
		}
		return nil
	}
	devstack.Database(b, "bench", migrate)
	for b.Loop() {
		devstack.Database(b, "bench", migrate)
	}
}

// Every test has a file of its own, and all are copies of what was migrated once.
func TestSQLiteIsACopy(t *testing.T) {
	t.Parallel()
	migrations := 0
	migrate := func(_ context.Context, path string) error {
		migrations++
		return os.WriteFile(path, []byte("migrated"), 0o600)
	}
	template := "Copies" + rand.Text()
	a, b := devstack.SQLite(t, template, migrate), devstack.SQLite(t, template, migrate)
	if err := os.WriteFile(a, []byte("changed"), 0o600); err != nil {
		t.Fatal(err)
	}
	if raw, err := os.ReadFile(b); err != nil || string(raw) != "migrated" || migrations != 1 {
		t.Errorf("the second file has %q, %v, after %d migrations", raw, err, migrations)
	}
}
