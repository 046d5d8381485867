package schema

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/gofrs/flock"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
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
	file     *flock.Flock // for SQLite: one process migrates at a time
}

// Migration is one step and when it was applied; the zero time stands for not yet.
type Migration struct {
	Version int64     `json:"version"`
	Name    string    `json:"name"`
	Applied time.Time `json:"applied_at,omitzero"`
}

// Postgres makes a migrator for a Postgres database. Processes that migrate at the same time take turns on an
// advisory lock.
func Postgres(dsn string) (*Migrator, error) {
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	return newMigrator(db, goose.DialectPostgres, "postgres", goose.WithSessionLocker(advisoryLock{}))
}

// SQLite makes a migrator for a SQLite file, which is created if need be. Processes that migrate at the same time take
// turns on a lock file beside it.
func SQLite(path string) (*Migrator, error) {
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	m, err := newMigrator(db, goose.DialectSQLite3, "sqlite")
	if err != nil {
		return nil, err
	}
	m.file = flock.New(path + ".migrate")
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
	if m.file != nil {
		if _, err := m.file.TryLockContext(ctx, 10*time.Millisecond); err != nil {
			return nil, fmt.Errorf("wait for another process that migrates: %w", err)
		}
		defer func() { err = errors.Join(err, m.file.Unlock()) }()
	}
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

// Zero undoes every migration, and with them destroys all data.
func (m *Migrator) Zero(ctx context.Context) error {
	if _, err := m.provider.DownTo(ctx, 0); err != nil {
		return fmt.Errorf("undo migrations: %w", err)
	}
	return nil
}

// Close closes the database.
func (m *Migrator) Close() error { return m.db.Close() }

// advisoryLock makes processes that migrate the same Postgres database take turns. It waits in the server, so that
// the second goes on as soon as the first is done.
type advisoryLock struct{}

const migrationLock = 7236000

func (advisoryLock) SessionLock(ctx context.Context, conn *sql.Conn) error {
	_, err := conn.ExecContext(ctx, "SELECT pg_advisory_lock($1)", migrationLock)
	return err
}

func (advisoryLock) SessionUnlock(ctx context.Context, conn *sql.Conn) error {
	_, err := conn.ExecContext(ctx, "SELECT pg_advisory_unlock($1)", migrationLock)
	return err
}
