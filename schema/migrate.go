package schema

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the driver "sqlite"
)

var (
	// ErrNewer: the database was migrated by a newer usher. Run that version, or a newer one.
	ErrNewer = errors.New("the database has a newer schema than this usher knows: run the newer version")
	// ErrPending: migrations are missing. `usher migrate up` applies them.
	ErrPending = errors.New("the database lacks migrations: run `usher migrate up`")
)

// Migrator brings one database to the schema of this binary. Close it after use.
type Migrator struct {
	db       *sql.DB
	provider *goose.Provider
	turn     func(ctx context.Context) (done func() error, err error) // waits until no other process migrates
}

// Migration is one step and when it was applied; the zero time stands for not yet.
type Migration struct {
	Version int64     `json:"version"`
	Name    string    `json:"name"`
	Applied time.Time `json:"applied_at,omitzero"`
}

// Postgres makes a migrator for a Postgres database, by a connection string in any of the forms that libpq and a pgx pool take, through
// a pooler in any mode. Processes that migrate at the same time take turns on an advisory lock.
func Postgres(dsn string) (*Migrator, error) {
	config, err := pgxpool.ParseConfig(strings.TrimSpace(dsn))
	if err != nil {
		// The parser's error shows the connection string, and maybe more of it than it should.
		return nil, errors.New("DATABASE_URL is not a connection string of Postgres; expected postgres://user:password@host:5432/database")
	}
	c := config.ConnConfig
	// Nothing may be left on a server connection that a pooler gives to others. The migrations are read as they are written.
	c.DefaultQueryExecMode, c.DescriptionCacheCapacity = pgx.QueryExecModeCacheDescribe, 64
	c.RuntimeParams["client_encoding"], c.RuntimeParams["standard_conforming_strings"] = "UTF8", "on"
	m, err := newMigrator(stdlib.OpenDB(*c, stdlib.OptionAfterConnect(intoPublic)), goose.DialectPostgres, "postgres")
	if err != nil {
		return nil, err
	}
	m.turn = m.advisoryLock
	return m, nil
}

// makePrivate makes a file of SQLite if need be, and takes every right on it from everybody but its owner. What SQLite makes
// beside it gets the rights of the file; what is there already is put right too.
func makePrivate(path string) error {
	// One that is there is not opened: closing it again would let go of the locks that this process may have on it.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		err = f.Close()
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make %s: %w", path, err)
	}
	for _, name := range []string{path, path + "-wal", path + "-shm"} {
		info, err := os.Stat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			err = os.Chmod(name, info.Mode().Perm()&^0o077)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // SQLite removes what it needs no more
			return fmt.Errorf("keep others from reading %s: %w", name, err)
		}
	}
	return nil
}

// intoPublic sees to it that tables are made in public, whatever search path a role or a database has for a default. On a connection
// that is not to the server itself, but to a pooler, nothing is set.
func intoPublic(ctx context.Context, conn *pgx.Conn) error {
	var process uint32
	var first *string // schema of the path that exists
	if err := conn.QueryRow(ctx, "SELECT pg_backend_pid(), current_schema()").Scan(&process, &first); err != nil {
		return err
	}
	if first != nil && *first == "public" {
		return nil
	}
	if process != conn.PgConn().PID() {
		return errors.New("the search_path of the user or the database does not begin with public; reset it by ALTER ROLE or ALTER DATABASE … RESET search_path, and have the pooler connect anew")
	}
	_, err := conn.Exec(ctx, "SELECT set_config('search_path', 'public', false)")
	return err
}

// SQLite makes a migrator for a SQLite file, which is created if need be, and which nobody but its owner may read from then on.
// Processes that migrate at the same time take turns on a lock file beside it.
func SQLite(path string) (*Migrator, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	if err := makePrivate(path); err != nil {
		return nil, err
	}
	name := url.URL{Scheme: "file", Path: path, RawQuery: "_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)"}
	db, err := sql.Open("sqlite", name.String()) // a path has ?, # and % escaped
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	m, err := newMigrator(db, goose.DialectSQLite3, "sqlite")
	if err != nil {
		return nil, err
	}
	m.turn = fileLock(path + ".migrate")
	return m, nil
}

func newMigrator(db *sql.DB, dialect goose.Dialect, dir string, options ...goose.ProviderOption) (*Migrator, error) {
	sub, err := fs.Sub(migrations, dir)
	if err != nil {
		return nil, err
	}
	options = append(options, goose.WithDisableGlobalRegistry(true), goose.WithTableName("migrations"))
	provider, err := goose.NewProvider(dialect, db, sub, options...)
	if err != nil {
		return nil, fmt.Errorf("read migrations: %w", errors.Join(err, db.Close()))
	}
	return &Migrator{db: db, provider: provider}, nil
}

// Up applies the migrations that are missing and answers with them. It fails with ErrNewer where the database is ahead
// of this binary.
func (m *Migrator) Up(ctx context.Context) (applied []Migration, err error) {
	done, err := m.turn(ctx)
	if err != nil {
		return nil, fmt.Errorf("wait for another process that migrates: %w", err)
	}
	defer func() { err = errors.Join(err, done()) }()
	if err := m.Check(ctx); err == nil || !errors.Is(err, ErrPending) {
		return nil, err
	}
	results, err := m.provider.Up(ctx)
	for _, r := range results {
		applied = append(applied, Migration{r.Source.Version, r.Source.Path, time.Now().UTC()})
	}
	if err != nil {
		return applied, fmt.Errorf("migrate: %w", err)
	}
	return applied, nil
}

// Check says whether the database has the schema of this binary: nil, ErrPending or ErrNewer.
func (m *Migrator) Check(ctx context.Context) error {
	current, target, err := m.provider.GetVersions(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("read the schema's version: %w", err)
	case current > target:
		return fmt.Errorf("%w (it is at %d, this one knows %d)", ErrNewer, current, target)
	case current < target:
		return fmt.Errorf("%w (it is at %d of %d)", ErrPending, current, target)
	}
	return nil
}

// Status lists every migration that this binary knows.
func (m *Migrator) Status(ctx context.Context) ([]Migration, error) {
	status, err := m.provider.Status(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the state of migrations: %w", err)
	}
	list := make([]Migration, len(status))
	for i, s := range status {
		list[i] = Migration{s.Source.Version, s.Source.Path, s.AppliedAt.UTC()}
		if s.State == goose.StatePending {
			list[i].Applied = time.Time{}
		}
	}
	return list, nil
}

// UnadoptedRoles counts who had each role before it was one of usher's own: see the migration of that name. There is nobody where the
// database is behind it.
func (m *Migrator) UnadoptedRoles(ctx context.Context) (holders map[string]int, err error) {
	holders = map[string]int{}
	if err := m.Check(ctx); err != nil {
		return holders, nil
	}
	rows, err := m.db.QueryContext(ctx, "SELECT role, count(*) FROM unadopted_roles GROUP BY role")
	if err != nil {
		return nil, fmt.Errorf("count roles that were not adopted: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var role string
		var n int
		if err := rows.Scan(&role, &n); err != nil {
			return nil, fmt.Errorf("count roles that were not adopted: %w", err)
		}
		holders[role] = n
	}
	return holders, rows.Err()
}

// Zero undoes every migration, and with them destroys all data.
func (m *Migrator) Zero(ctx context.Context) (err error) {
	done, err := m.turn(ctx)
	if err != nil {
		return fmt.Errorf("wait for another process that migrates: %w", err)
	}
	defer func() { err = errors.Join(err, done()) }()
	if _, err := m.provider.DownTo(ctx, 0); err != nil {
		return fmt.Errorf("undo migrations: %w", err)
	}
	return nil
}

// Close closes the database.
func (m *Migrator) Close() error { return m.db.Close() }

// migrationLock is the key of the advisory lock.
const migrationLock = 7236000

// advisoryLock waits in the server, so that the second of two processes goes on as soon as the first is done. A transaction of its own
// holds the lock: one that belonged to a session would stay behind on a pooler's server connection.
func (m *Migrator) advisoryLock(ctx context.Context) (done func() error, err error) {
	tx, err := m.db.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	// It is idle while the migrations run, for however long.
	_, err = tx.ExecContext(ctx, "SET LOCAL idle_in_transaction_session_timeout = 0")
	if err == nil {
		_, err = tx.ExecContext(ctx, "SET LOCAL lock_timeout = 0")
	}
	if err == nil {
		_, err = tx.ExecContext(ctx, "SELECT pg_advisory_xact_lock($1)", migrationLock)
	}
	if err != nil {
		return nil, errors.Join(err, tx.Rollback())
	}
	return tx.Commit, nil
}

func fileLock(path string) func(ctx context.Context) (done func() error, err error) {
	return func(ctx context.Context) (func() error, error) {
		file := flock.New(path)
		_, err := file.TryLockContext(ctx, 10*time.Millisecond)
		return file.Unlock, err
	}
}
