// Package sqlite keeps the log in one SQLite file, for development and small deployments. It gives the guarantees of
// package eventstore, held by the same suite that the Postgres store passes: the file is in WAL mode with synchronous
// FULL, so a commit that was answered survives a power failure.
//
// Several processes may use the file at once, such as an operator's command beside `usher dev`; they take turns to
// write. Within a process all writes take turns on one connection, and reads run beside them on others. The file has to
// be on a local disk, and no process that has it open may open it by any other means: closing a plain file descriptor
// drops the locks that the process holds on it.
//
// What is deleted or replaced is overwritten with zeros (secure_delete), so that the file forgets what an erasure deletes; the
// write-ahead log beside it does so with the next checkpoint.
//
// The schema is that of schema/sqlite. Open does not migrate.
package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/url"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"usher.example/eventstore"
)

// Store is an eventstore.Store and an eventstore.DB on one SQLite file. It is safe for concurrent use.
type Store struct {
	handle
	writer  *sql.DB // one connection: the writers of a process queue for it in order, not for the lock of the file
	readers *sql.DB // refuse to write
	closed  atomic.Bool
	tables  map[string]*table // by name; read once

	stmt struct {
		// prepared on the writer
		last, command, stream, holder                                            *sql.Stmt
		putStream, putEvent, putReservation, deleteReservation, putKey, remember *sql.Stmt
		closeErased, deleteReservations                                          *sql.Stmt
		// prepared on the readers
		readAll, readRange, countRange, readStream, readSubject, readAt, version, head, dataKeys *sql.Stmt
	}
}

var (
	_ eventstore.Store = (*Store)(nil)
	_ eventstore.DB    = (*Store)(nil)
)

const (
	// lockTimeout bounds the wait for the process's own writers, and then for those of other processes.
	lockTimeout = 10 * time.Second
	maxReaders  = 16
	idleReaders = 4
)

// Open opens a database that has been migrated, and finds out which state tables it has. It fails with ErrUnavailable where
// there is no file.
func Open(ctx context.Context, path string) (*Store, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	s := &Store{tables: map[string]*table{}}
	s.handle = handle{store: s}
	if s.writer, err = sql.Open("sqlite", dsn(path, "_synchronous=FULL&_journal_mode=WAL&_txlock=immediate&_pragma=cache_size(-16384)&_pragma=secure_delete(1)&_pragma=foreign_keys(1)")); err == nil {
		s.readers, err = sql.Open("sqlite", dsn(path, "_query_only=1"))
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	s.writer.SetMaxOpenConns(1)
	s.readers.SetMaxOpenConns(maxReaders)
	s.readers.SetMaxIdleConns(idleReaders)
	if err = s.prepare(ctx); err == nil {
		err = s.readTables(ctx)
	}
	if err != nil {
		err = s.mapped(err)
		s.Close()
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return s, nil
}

func dsn(path, more string) string {
	u := url.URL{Scheme: "file", Path: path, RawQuery: fmt.Sprintf("mode=rw&_busy_timeout=%d&_dqs=0&_error_rc=1&%s", lockTimeout.Milliseconds(), more)}
	return u.String()
}

const eventColumns = "SELECT position, stream, kind, subject, version, event_id, type, schema_version, data, personal, metadata, recorded_at FROM events "

func (s *Store) prepare(ctx context.Context) (err error) {
	for _, p := range []struct {
		on   *sql.DB
		to   **sql.Stmt
		text string
	}{
		{s.writer, &s.stmt.last, "SELECT position, recorded_at FROM events ORDER BY position DESC LIMIT 1"},
		{s.writer, &s.stmt.command, "SELECT position, version FROM commands WHERE command_id = $1"},
		{s.writer, &s.stmt.stream, "SELECT version, state FROM streams WHERE stream = $1"},
		{s.writer, &s.stmt.holder, "SELECT stream FROM reservations WHERE scope = $1 AND key = $2"},
		{s.writer, &s.stmt.putStream, `INSERT INTO streams (stream, kind, version) VALUES ($1, $2, $3)
			ON CONFLICT (stream) DO UPDATE SET version = excluded.version`},
		{s.writer, &s.stmt.putEvent, `INSERT INTO events (position, stream, kind, subject, version, event_id, type, schema_version,
			data, personal, metadata, recorded_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`},
		{s.writer, &s.stmt.putReservation, "INSERT INTO reservations (scope, key, stream) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"},
		{s.writer, &s.stmt.deleteReservation, "DELETE FROM reservations WHERE scope = $1 AND key = $2 AND stream = $3"},
		{s.writer, &s.stmt.putKey, "INSERT INTO user_keys (user_id, wrapped) VALUES ($1, $2)"},
		{s.writer, &s.stmt.closeErased, "UPDATE streams SET state = 'erased' WHERE stream = $1"},
		{s.writer, &s.stmt.deleteReservations, "DELETE FROM reservations WHERE stream = $1"},
		{s.writer, &s.stmt.remember, "INSERT INTO commands (command_id, position, version, recorded_at) VALUES ($1, $2, $3, $4)"},

		{s.readers, &s.stmt.readAll, eventColumns + "WHERE position > $1 ORDER BY position LIMIT $2"},
		{s.readers, &s.stmt.readRange, eventColumns + `WHERE position > $1 AND position <= $2
			AND ($3 = '[]' OR kind IN (SELECT value FROM json_each($3)) OR type = '` + eventstore.TypeErased + `' OR position = $2) ORDER BY position`},
		{s.readers, &s.stmt.countRange, "SELECT count(*) FROM events WHERE position > $1 AND position <= $2"},
		{s.readers, &s.stmt.readStream, eventColumns + "WHERE stream = $1 AND version > $2 ORDER BY version LIMIT $3"},
		{s.readers, &s.stmt.readSubject, eventColumns + "WHERE subject = $1 AND position > $2 ORDER BY position LIMIT $3"},
		{s.readers, &s.stmt.readAt, eventColumns + "WHERE position IN (SELECT value FROM json_each($1)) ORDER BY position"},
		{s.readers, &s.stmt.version, "SELECT version FROM streams WHERE stream = $1"},
		{s.readers, &s.stmt.head, "SELECT coalesce(max(position), 0) FROM events"},
		{s.readers, &s.stmt.dataKeys, "SELECT user_id, wrapped FROM user_keys WHERE user_id IN (SELECT value FROM json_each($1))"},
	} {
		if *p.to, err = p.on.PrepareContext(ctx, p.text); err != nil {
			return err
		}
	}
	return nil
}

// Close waits for what is under way and closes the file. Everything that comes later fails with ErrUnavailable. What was
// answered is durable already, so nothing can be lost here.
func (s *Store) Close() {
	s.closed.Store(true)
	s.readers.Close()
	s.writer.Close()
}

// ReadAll implements eventstore.Store.
func (s *Store) ReadAll(ctx context.Context, after int64, limit int) ([]eventstore.Event, error) {
	return s.readEvents(ctx, s.stmt.readAll, after, limit)
}

// ReadRange implements eventstore.Store.
func (s *Store) ReadRange(ctx context.Context, after, to int64, kinds []eventstore.Kind, bytes int) (events []eventstore.Event, through, n int64, err error) {
	list, err := json.Marshal(append([]eventstore.Kind{}, kinds...))
	if err != nil {
		return nil, after, 0, err
	}
	events, enough, err := s.readUpTo(ctx, bytes, s.stmt.readRange, after, to, string(list))
	if err != nil {
		return nil, after, 0, err
	}
	through = to
	if enough {
		through = events[len(events)-1].Position
	}
	return events, through, n, s.mapped(s.stmt.countRange.QueryRowContext(ctx, after, through).Scan(&n))
}

// OnConnect implements eventstore.Store.
func (s *Store) OnConnect(func()) {}

// ReadStream implements eventstore.Store.
func (s *Store) ReadStream(ctx context.Context, stream uuid.UUID, after, limit int) ([]eventstore.Event, error) {
	return s.readEvents(ctx, s.stmt.readStream, stream, after, limit)
}

// ReadSubject implements eventstore.Store.
func (s *Store) ReadSubject(ctx context.Context, user uuid.UUID, after int64, limit int) ([]eventstore.Event, error) {
	return s.readEvents(ctx, s.stmt.readSubject, user, after, limit)
}

// ReadAt implements eventstore.Store.
func (s *Store) ReadAt(ctx context.Context, positions []int64) ([]eventstore.Event, error) {
	list, err := json.Marshal(positions)
	if err != nil {
		return nil, err
	}
	return s.readEvents(ctx, s.stmt.readAt, string(list))
}

func (s *Store) readEvents(ctx context.Context, stmt *sql.Stmt, args ...any) ([]eventstore.Event, error) {
	events, _, err := s.readUpTo(ctx, math.MaxInt, stmt, args...)
	return events, err
}

// besidesData is about what an event takes besides its data and personal fields.
const besidesData = 256

// readUpTo is readEvents that has enough once the events come to more than so many bytes.
func (s *Store) readUpTo(ctx context.Context, bytes int, stmt *sql.Stmt, args ...any) (events []eventstore.Event, enough bool, err error) {
	rows, err := stmt.QueryContext(ctx, args...)
	if err != nil {
		return nil, false, s.mapped(err)
	}
	defer rows.Close()
	var (
		size    int
		subject uuid.NullUUID
		meta    sql.RawBytes
	)
	for size < bytes && rows.Next() {
		var e eventstore.Event
		if err := rows.Scan(&e.Position, &e.Stream.ID, &e.Stream.Kind, &subject, &e.Version, &e.ID, &e.Type, &e.SchemaVersion,
			(*[]byte)(&e.Data), &e.Sealed, &meta, &e.RecordedAt); err != nil {
			return nil, false, s.mapped(err)
		}
		if e.Metadata, err = eventstore.ParseMetadata(meta); err != nil {
			return nil, false, fmt.Errorf("event at %d: %w", e.Position, err)
		}
		e.Stream.Subject = subject.UUID
		size += len(e.Data) + len(e.Sealed) + besidesData
		events = append(events, e)
	}
	return events, size >= bytes, s.mapped(rows.Err())
}

// StreamVersion implements eventstore.Store.
func (s *Store) StreamVersion(ctx context.Context, stream uuid.UUID) (version int, err error) {
	err = s.stmt.version.QueryRowContext(ctx, stream).Scan(&version)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return version, s.mapped(err)
}

// Head implements eventstore.Store.
func (s *Store) Head(ctx context.Context) (head int64, err error) {
	err = s.stmt.head.QueryRowContext(ctx).Scan(&head)
	return head, s.mapped(err)
}

// DataKeys implements eventstore.Store.
func (s *Store) DataKeys(ctx context.Context, users []uuid.UUID) (map[uuid.UUID][]byte, error) {
	list, err := json.Marshal(users)
	if err != nil {
		return nil, err
	}
	rows, err := s.stmt.dataKeys.QueryContext(ctx, string(list))
	if err != nil {
		return nil, s.mapped(err)
	}
	defer rows.Close()
	keys := make(map[uuid.UUID][]byte, len(users))
	for rows.Next() {
		var user uuid.UUID
		var wrapped []byte
		if err := rows.Scan(&user, &wrapped); err != nil {
			return nil, s.mapped(err)
		}
		keys[user] = wrapped
	}
	return keys, s.mapped(rows.Err())
}
