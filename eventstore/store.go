package eventstore

import (
	"context"

	"github.com/google/uuid"
)

// Store is what a database does for the log. eventstore/postgres and eventstore/sqlite implement it; a [Log] is its
// only caller. Events go in and come out sealed.
type Store interface {
	// Commit decides on the appends of a batch, in their order, and writes those that may be written in one
	// transaction, in one round trip. A batch has at most one append to a stream, one for a reservation and one for
	// a command id. There is one outcome for each append, in the same order. An append about a user whose stream is
	// erased is refused, whatever stream it is to.
	//
	// Cancelling ctx gives up waiting: nothing was written if the batch was not sent yet, and the outcome is unknown if
	// it was. An error means that nothing was written, except one that wraps ErrOutcomeUnknown. It wraps ErrUnavailable where
	// the database could not be reached; any other blames an append of the batch, and a batch of one names it.
	Commit(ctx context.Context, batch []*Prepared) ([]Outcome, error)
	// ReadAll reads at most limit events after a position, in the order of their positions.
	ReadAll(ctx context.Context, after int64, limit int) ([]Event, error)
	// ReadRange reads the events after one position and up to another, in the order of their positions: those of streams of
	// some kinds, each TypeErased and the last one, or all where no kind is named. It stops early where they come to more than about so many
	// bytes, after one at least, and answers with the position that it has read through, and with how many events of any
	// kind there are up to it.
	ReadRange(ctx context.Context, after, to int64, kinds []Kind, bytes int) (events []Event, through, n int64, err error)
	// ReadStream reads at most limit events of a stream after a version, in the order of their versions.
	ReadStream(ctx context.Context, stream uuid.UUID, after, limit int) ([]Event, error)
	// ReadSubject reads at most limit events about a user after a position, from all their streams.
	ReadSubject(ctx context.Context, user uuid.UUID, after int64, limit int) ([]Event, error)
	// ReadAt reads the events at some positions, in the order of positions. One that is not there is missing from the answer.
	ReadAt(ctx context.Context, positions []int64) ([]Event, error)
	// StreamVersion is the version of a stream's newest event, 0 for a stream without events.
	StreamVersion(ctx context.Context, stream uuid.UUID) (int, error)
	// Head is the position of the newest event, 0 for an empty log.
	Head(ctx context.Context) (int64, error)
	// DataKeys reads the wrapped data keys of users. A user without one is missing from the answer.
	DataKeys(ctx context.Context, users []uuid.UUID) (map[uuid.UUID][]byte, error)
	// OnConnect has a function called after each connection to the database that is made from then on. It must be quick. A
	// store that is a file calls none.
	OnConnect(made func())
}

// DB gives access to the tables beside the log: state tables, read models, leases. Both stores implement it.
// Placeholders are $1, $2, … in both dialects. UUIDs, times (UTC), byte slices and JSON (as text) go in and come out
// the same way. Every error of a database that can't be reached wraps ErrUnavailable; QueryRow's Scan answers
// ErrNoRows where there is no row.
type DB interface {
	Query(ctx context.Context, sql string, args ...any) (Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) Row
	// Exec runs a statement and answers with the number of rows it touched.
	Exec(ctx context.Context, sql string, args ...any) (int64, error)
	// Transact runs do in a transaction, which is committed if do returns nil and rolled back otherwise.
	Transact(ctx context.Context, do func(tx DB) error) error
	Dialect() Dialect
}

// Rows is the answer to a query, to be read as that of database/sql is.
type Rows interface {
	Next() bool
	Scan(dest ...any) error
	Err() error
	Close()
}

// Row is an answer of at most one row.
type Row interface {
	Scan(dest ...any) error
}

// Dialect is the kind of SQL that a DB speaks, for the statements that can't be shared.
type Dialect string

// The dialects.
const (
	Postgres Dialect = "postgres"
	SQLite   Dialect = "sqlite"
)

// Relaxed is an expression, a text, that lets the commit of the transaction that evaluates it be answered before it is on
// the disk. That is for what can be done again from the log: a crash may take the last of it, together with the checkpoint
// that goes with it.
func Relaxed(d Dialect) string {
	if d == Postgres {
		return "set_config('synchronous_commit', 'off', true)"
	}
	return "''"
}

// Append is a wish to write events to one stream, with everything that has to happen in the same transaction.
type Append struct {
	Stream   Stream
	Expected Expected
	Events   []NewEvent
	Metadata Metadata // of all the events
	// Given names other streams that this append was decided on, and the versions that they had: it is refused, with
	// ErrStale, once one of them has moved on. So a decision on one stream can rest on what another says.
	Given []StreamVersion
	// CommandID makes the append idempotent: repeated with the same id it answers as the first time, whatever else it
	// asks for. The nil UUID stands for none.
	CommandID uuid.UUID
	// Reserve holds unique values for the stream; Release lets go of values that this stream holds.
	Reserve, Release []Reservation
	// State is applied to the state tables in the transaction of the events, and only if they are written.
	State []StateChange
	// CreateKey makes the data key of the stream's subject, in the same transaction: for a user's first event.
	CreateKey bool
}

// Prepared is an append made ready by the Log for a Store to write: ids given, personal fields sealed, reservations
// keyed, the subject's new data key made.
type Prepared struct {
	Append
	Meta        []byte   // Metadata without its personal fields, a JSON object
	Key         []byte   // the subject's new data key, wrapped; nil unless CreateKey asks for one
	Erase       bool     // the last event is a TypeErased: forget the subject
	Sealed      [][]byte // one for each event; nil for an event without personal fields
	ReserveKeys [][]byte // one for each of Reserve
	ReleaseKeys [][]byte // one for each of Release
}

// Expected is what the writer believes to be the last version of the stream.
type Expected int

// What may be expected, beside an exact version (a number from 1 up).
const (
	NoStream   Expected = 0  // the stream has no events yet
	AnyVersion Expected = -1 // the writer does not care
)

// StreamVersion is the version of a stream's newest event; 0 for a stream without events.
type StreamVersion struct {
	Stream  uuid.UUID
	Version int
}

// Reservation is a hold on a unique value, such as an address. The value itself is not stored: its HMAC is, so that the
// table gives no address away.
type Reservation struct {
	Scope string // for example "email"
	Value string // normalised by the caller
}

// StateChange writes or deletes one row of a state table. Tables and columns are those of schema/; a row is a JSON
// object with a value for every column.
type StateChange struct {
	Table  string
	New    bool   // the row is not there yet, which is cheaper to write; the append fails if it is
	Delete bool   // delete the row with the primary key in Row; otherwise insert it, or replace it whole
	Row    []byte // bytea columns as "\\x<hex>"
}

// size is about how many bytes an append takes.
func (p *Prepared) size() (n int) {
	for i, e := range p.Events {
		n += len(e.Data) + len(p.Sealed[i]) + len(p.Meta)
	}
	for _, change := range p.State {
		n += len(change.Row)
	}
	return n
}

// Result is the answer to an append.
type Result struct {
	Position int64 // of the last event
	Version  int   // of the last event
	Repeated bool  // the command id was known: this is what its first append wrote

	// Unchanged says that there was nothing to append: this is where the stream stands. It is never the answer of a Log, but
	// of those who decide what to append.
	Unchanged bool
}

// Outcome is what became of one append of a batch: a result, or an error that concerns that append alone:
// a *VersionError, a *StaleError, a *ReservationError or ErrStreamClosed.
type Outcome struct {
	Result
	Err error
}
