package devstack

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// sharedPostgres is the one server of a test binary and the databases made on it.
type sharedPostgres struct {
	mu        sync.Mutex
	server    *Postgres
	err       error
	templates map[string]*template
	kept      []string

	// clone keeps clones apart: a template must have no connection while it is copied, and copies at the
	// same time would only wait for the same disk.
	clone sync.Mutex
}

type template struct {
	once sync.Once
	name string
	err  error
}

var shared = sharedPostgres{templates: map[string]*template{}}

// SharedPostgres returns the one server that all tests of a test binary share, started at the first call:
// the server of TEST_DATABASE_URL where that is set, else a child process. It is not durable. The test fails
// unless the package's TestMain calls Main, which stops the server. Do not kill it: OwnPostgres is for that.
func SharedPostgres(tb TB) *Postgres {
	tb.Helper()
	if !mainRuns.Load() {
		tb.Fatalf("devstack: the package needs func TestMain(m *testing.M) { os.Exit(devstack.Main(m)) }")
	}
	// The server outlives the test that happens to be first, and so must the context.
	p, err := shared.start(context.WithoutCancel(tb.Context()))
	if err != nil {
		tb.Fatalf("devstack: %v", err)
	}
	return p
}

func (s *sharedPostgres) start(ctx context.Context) (*Postgres, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server == nil && s.err == nil {
		if dsn := os.Getenv("TEST_DATABASE_URL"); dsn != "" {
			s.server, s.err = externalPostgres(dsn)
		} else {
			s.server, s.err = StartPostgres(ctx, PostgresOptions{})
		}
	}
	return s.server, s.err
}

// externalPostgres never repeats the URL in an error, since it may hold a password.
func externalPostgres(dsn string) (*Postgres, error) {
	u, err := url.Parse(dsn)
	if err != nil || (u.Scheme != "postgres" && u.Scheme != "postgresql") {
		return nil, errors.New("TEST_DATABASE_URL: expected postgres://user:password@host:port/database")
	}
	return &Postgres{dsn: u, external: true}, nil
}

// stop ends the shared server, unless databases of failed tests are to be looked at.
func (s *sharedPostgres) stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if s.server.external {
		var errs error
		for _, t := range s.templates {
			if t.name != "" {
				errs = errors.Join(errs, s.server.drop(ctx, t.name))
			}
		}
		return errs
	}
	if len(s.kept) > 0 {
		fmt.Fprintf(os.Stderr, "devstack: databases of failed tests are kept for an hour, start them by\n  %s/postgres -D %s -p %d -k ''\n",
			s.server.bin, s.server.data(), s.server.port)
		return s.server.Halt()
	}
	return s.server.Stop()
}

// Database returns the DSN of a new database on the shared server, cloned from the template called name. The
// first call for a name in a test binary makes the template by calling migrate, which must close its
// connections before it returns. A nil migrate leaves the template empty. The database is dropped when the
// test ends, connections and all, unless the test failed: then it is kept and its DSN logged.
func Database(tb TB, name string, migrate func(ctx context.Context, dsn string) error) string {
	tb.Helper()
	p := SharedPostgres(tb)
	t := shared.template(name)
	// As the server does, the template outlives this test.
	t.once.Do(func() { t.name, t.err = p.makeTemplate(context.WithoutCancel(tb.Context()), name, migrate) })
	if t.err != nil {
		tb.Fatalf("devstack: template %s: %v", name, t.err)
	}
	database := databaseName(name)
	if err := p.cloneDatabase(tb.Context(), database, t.name); err != nil {
		tb.Fatalf("devstack: clone %s: %v", name, err)
	}
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("database kept: %s", redacted(p.DSN(database)))
			shared.keep(database)
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := p.drop(ctx, database); err != nil {
			tb.Logf("devstack: drop %s: %v", database, err)
		}
	})
	return p.DSN(database)
}

func redacted(dsn string) string {
	u, err := url.Parse(dsn)
	if err != nil {
		return ""
	}
	return u.Redacted()
}

func (s *sharedPostgres) template(name string) *template {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.templates[name]
	if t == nil {
		t = &template{}
		s.templates[name] = t
	}
	return t
}

func (s *sharedPostgres) keep(database string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept = append(s.kept, database)
}

// databaseName is unique on a server that other test binaries use too.
func databaseName(name string) string {
	clean := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToLower(name))
	return "usher_" + clean[:min(len(clean), 24)] + "_" + strings.ToLower(rand.Text()[:12])
}

func (p *Postgres) makeTemplate(ctx context.Context, name string, migrate func(context.Context, string) error) (string, error) {
	database := databaseName("template_" + name)
	if err := p.exec(ctx, "CREATE DATABASE "+quote(database)); err != nil {
		return "", err
	}
	if migrate == nil {
		return database, nil
	}
	if err := migrate(ctx, p.DSN(database)); err != nil {
		return "", errors.Join(fmt.Errorf("migrate: %w", err), p.drop(ctx, database))
	}
	return database, nil
}

func (p *Postgres) cloneDatabase(ctx context.Context, database, template string) error {
	shared.clone.Lock()
	defer shared.clone.Unlock()
	return p.exec(ctx, "CREATE DATABASE "+quote(database)+" TEMPLATE "+quote(template))
}

func (p *Postgres) drop(ctx context.Context, database string) error {
	return p.exec(ctx, "DROP DATABASE IF EXISTS "+quote(database)+" WITH (FORCE)")
}

func quote(name string) string { return pgx.Identifier{name}.Sanitize() }

// sqliteTemplates are the migrated SQLite files of this test binary, by the names of their templates.
var sqliteTemplates struct {
	mu     sync.Mutex
	byName map[string]*sqliteTemplate
}

type sqliteTemplate struct {
	once sync.Once
	raw  []byte
	err  error
}

// SQLite returns the path of a new SQLite file in a temporary directory of the test, a copy of the template called name. The
// first call for a name in a test binary makes the template by calling migrate, which must close the file before it returns.
func SQLite(tb TB, name string, migrate func(ctx context.Context, path string) error) (path string) {
	tb.Helper()
	sqliteTemplates.mu.Lock()
	t := sqliteTemplates.byName[name]
	if t == nil {
		t = &sqliteTemplate{}
		if sqliteTemplates.byName == nil {
			sqliteTemplates.byName = map[string]*sqliteTemplate{}
		}
		sqliteTemplates.byName[name] = t
	}
	sqliteTemplates.mu.Unlock()
	t.once.Do(func() {
		file := filepath.Join(tb.TempDir(), "template.db")
		if t.err = migrate(context.WithoutCancel(tb.Context()), file); t.err != nil {
			return
		}
		// What is only in the write-ahead log would be missing from the copies.
		if wal, err := os.Stat(file + "-wal"); err == nil && wal.Size() > 0 {
			t.err = errors.New("migrate left the file open")
			return
		}
		t.raw, t.err = os.ReadFile(file)
	})
	if t.err != nil {
		tb.Fatalf("devstack: SQLite template %s: %v", name, t.err)
	}
	path = filepath.Join(tb.TempDir(), "usher.db")
	if err := os.WriteFile(path, t.raw, 0o600); err != nil {
		tb.Fatalf("devstack: %v", err)
	}
	return path
}
