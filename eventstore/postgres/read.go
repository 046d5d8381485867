package postgres

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
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
//
// The server is asked for as many events as there should be in so many bytes, by the size of those that were read last: what it
// sends beyond is dropped as it comes.
func (s *Store) ReadRange(ctx context.Context, after, to int64, kinds []eventstore.Kind, bytes int) (events []eventstore.Event, through, n int64, err error) {
	limit := min(max(int64(bytes)/max(s.eventBytes.Load(), 1), fewestEvents), to-after)
	sql, args := columns+"WHERE position > $1 AND position <= $2 ORDER BY position LIMIT $3", []any{after, to, limit}
	if len(kinds) > 0 {
		sql = columns + "WHERE position > $1 AND position <= $2 AND (kind = ANY ($4) OR type = $5 OR position = $2) ORDER BY position LIMIT $3"
		args = append(args, kinds, eventstore.TypeErased)
	}
	events, enough, err := s.readMany(ctx, limit, bytes, sql, args...)
	if err != nil {
		return nil, after, 0, err
	}
	through = to
	if count := int64(len(events)); count > 0 && (enough || count == limit) {
		through = events[count-1].Position
	}
	if len(kinds) == 0 {
		return events, through, int64(len(events)), nil
	}
	err = s.pool.QueryRow(ctx, "SELECT count(*) FROM events WHERE position > $1 AND position <= $2", after, through).Scan(&n)
	return events, through, n, classify(err)
}

// fewestEvents is how many are asked for however large the last ones were.
const fewestEvents = 16

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
	events, _, err := s.readMany(ctx, 0, math.MaxInt, sql, args...) // most reads are of a few, however many they may be of
	return events, err
}

// readMany is read of about so many events. It has enough once they come to more than so many bytes.
func (s *Store) readMany(ctx context.Context, about int64, bytes int, sql string, args ...any) (events []eventstore.Event, enough bool, err error) {
	// Without the format, pgx asks for jsonb as text.
	rows, err := s.pool.Query(ctx, sql, append([]any{pgx.QueryResultFormats{pgx.BinaryFormatCode}}, args...)...)
	if err != nil {
		return nil, false, classify(err)
	}
	defer rows.Close()
	events = make([]eventstore.Event, 0, min(about, firstEvents))
	names := map[string]string{} // a few event types and kinds for many events
	size := 0
	for size < bytes && rows.Next() {
		e, err := decodeEvent(rows, names)
		if err != nil {
			return nil, false, err
		}
		size += len(e.Data) + len(e.Sealed) + besidesData
		events = append(events, e)
	}
	rows.Close()
	if err := rows.Err(); err != nil {
		return nil, false, classify(err)
	}
	if len(events) > 0 {
		s.eventBytes.Store(int64(size / len(events)))
	}
	return events, size >= bytes, nil
}

// firstEvents is what there is room for before any event has come: who follows the log mostly gets one.
const firstEvents = 32

// besidesData is about what an event takes besides its data and personal fields.
const besidesData = 256

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
