package postgres

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"usher.example/eventstore"
)

const columns = `SELECT position, stream, kind, subject, version, event_id, type, schema_version, data, personal,
	metadata, recorded_at FROM events `

// ReadAll reads the log in the order of positions.
func (s *Store) ReadAll(ctx context.Context, after int64, limit int) ([]eventstore.Event, error) {
	return s.read(ctx, columns+"WHERE position > $1 ORDER BY position LIMIT $2", after, limit)
}

// ReadRange reads a part of the log. The log only grows, so that it does not matter that the events are counted later.
func (s *Store) ReadRange(ctx context.Context, after, to int64, kinds []eventstore.Kind) (events []eventstore.Event, n int64, err error) {
	if len(kinds) == 0 {
		events, err = s.readMany(ctx, to-after, columns+"WHERE position > $1 AND position <= $2 ORDER BY position", after, to)
		return events, int64(len(events)), err
	}
	events, err = s.readMany(ctx, (to-after)/2, columns+"WHERE position > $1 AND position <= $2 AND (kind = ANY ($3) OR type = $4 OR position = $2) ORDER BY position",
		after, to, kinds, eventstore.TypeErased)
	if err != nil {
		return nil, 0, err
	}
	err = s.pool.QueryRow(ctx, "SELECT count(*) FROM events WHERE position > $1 AND position <= $2", after, to).Scan(&n)
	return events, n, classify(err)
}

// ReadStream reads a stream in the order of versions.
func (s *Store) ReadStream(ctx context.Context, stream uuid.UUID, after, limit int) ([]eventstore.Event, error) {
	return s.read(ctx, columns+"WHERE stream = $1 AND version > $2 ORDER BY version LIMIT $3", stream, after, limit)
}

// ReadSubject reads what concerns a user in the order of positions.
func (s *Store) ReadSubject(ctx context.Context, user uuid.UUID, after int64, limit int) ([]eventstore.Event, error) {
	return s.read(ctx, columns+"WHERE subject = $1 AND position > $2 ORDER BY position LIMIT $3", user, after, limit)
}

// ReadAt reads what is at some positions. Each is looked up by itself, whatever the planner makes of the list.
func (s *Store) ReadAt(ctx context.Context, positions []int64) ([]eventstore.Event, error) {
	return s.read(ctx, `SELECT e.* FROM unnest($1::bigint[]) AS wanted (at)
		CROSS JOIN LATERAL (`+columns+`WHERE position = wanted.at LIMIT 1) AS e ORDER BY e.position`, positions)
}

func (s *Store) read(ctx context.Context, sql string, args ...any) ([]eventstore.Event, error) {
	return s.readMany(ctx, 0, sql, args...) // most reads are of a few, however many they may be of
}

// readMany is read of about so many events.
func (s *Store) readMany(ctx context.Context, about int64, sql string, args ...any) ([]eventstore.Event, error) {
	// Without the format, pgx asks for jsonb as text.
	rows, err := s.pool.Query(ctx, sql, append([]any{pgx.QueryResultFormats{pgx.BinaryFormatCode}}, args...)...)
	if err != nil {
		return nil, classify(err)
	}
	defer rows.Close()
	events := slices.Grow([]eventstore.Event(nil), int(about))
	names := map[string]string{} // a few event types and kinds for many events
	for rows.Next() {
		e, err := decodeEvent(rows, names)
		if err != nil {
			return nil, err
		}
		events = append(events, e)
	}
	if err := rows.Err(); err != nil {
		return nil, classify(err)
	}
	return events, nil
}

// decodeEvent reads the binary form of a row of columns. Reading the log is the hot path of the relay and of every
// projection; scanning through reflection would cost as much as all the rest of it.
func decodeEvent(rows pgx.Rows, names map[string]string) (e eventstore.Event, err error) {
	raw := rows.RawValues()
	e.Position = int64(binary.BigEndian.Uint64(raw[0]))
	copy(e.Stream.ID[:], raw[1])
	e.Stream.Kind = eventstore.Kind(intern(names, raw[2]))
	copy(e.Stream.Subject[:], raw[3]) // nothing for null
	e.Version = int(binary.BigEndian.Uint32(raw[4]))
	copy(e.ID[:], raw[5])
	e.Type = intern(names, raw[6])
	e.SchemaVersion = int(binary.BigEndian.Uint16(raw[7]))
	// The row's bytes belong to the connection: one copy holds both.
	data, personal := raw[8][1:], raw[9] // jsonb begins with its format's number, 1
	both := append(append(make([]byte, 0, len(data)+len(personal)), data...), personal...)
	e.Data = both[:len(data):len(data)]
	if personal != nil {
		e.Sealed = both[len(data):]
	}
	if e.Metadata, err = eventstore.ParseMetadata(raw[10][1:]); err != nil {
		return e, fmt.Errorf("event at %d: %w", e.Position, err)
	}
	e.RecordedAt = postgresEpoch.Add(time.Duration(int64(binary.BigEndian.Uint64(raw[11]))) * time.Microsecond)
	return e, nil
}

// postgresEpoch is what the binary form of a timestamptz counts microseconds from. A time.Duration from there reaches
// to the year 2292.
var postgresEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func intern(names map[string]string, raw []byte) string {
	name, ok := names[string(raw)]
	if !ok {
		name = string(raw)
		names[name] = name
	}
	return name
}
