// Package projections keeps the read models: tables that are filled from the log, and that queries are answered from.
//
// A [Projection] says what tables a read model has and how events change them. A [Runner] applies the log to it, batch
// by batch, each in one transaction with the projection's checkpoint; [Checkpoints] tells how far the projections are
// and waits for them; [Users] queries the users.
//
// Guarantees:
//
//   - A read model is exactly what the events up to its checkpoint amount to, whatever is delivered twice, late or not
//     at all, and whichever process dies: tables and checkpoint change together, and only from the checkpoint that the
//     batch begins at and under the lease that is in force.
//   - An event that can't be applied stops nobody but its user: it is parked, later events of that user are parked
//     behind it, and all others go on. [Checkpoints.List] shows it and [Runner.Retry] mends it.
//   - Queries go through views of the live generation of the tables. A rebuild fills another generation beside it, from
//     the log alone, and exchanges the two in one transaction: reads and writes go on and stay right meanwhile.
//
// It does not decide anything: a command never reads a read model, and losing every read model loses nothing.
package projections

import (
	"context"
	"errors"
	"fmt"

	"usher.example/eventstore"
)

var (
	// ErrFenced: another process runs the projection now, under a later lease. What this one was about to write was
	// rolled back.
	ErrFenced = errors.New("another process runs the projection")
	// ErrOtherVersion: the tables were filled by another version of the projection's code than this one, which neither
	// writes to them nor, where they lack a column that it needs, reads them.
	ErrOtherVersion = errors.New("the read model was filled by another version of the code")
	// ErrBehind: a read model did not reach a position in time. Try again later.
	ErrBehind = errors.New("the read model is behind")
	// ErrUnknownProjection: no projection of that name was ever run on this database.
	ErrUnknownProjection = errors.New("unknown projection")
	// ErrNotFound: the read model has no such row.
	ErrNotFound = errors.New("not found")
	// ErrBadCursor: a cursor is not one that this deployment gave out for the same query.
	ErrBadCursor = errors.New("the cursor is not one of this list")
	// ErrBadFilter: a filter asks for something that does not exist. The error is a *FilterError.
	ErrBadFilter = errors.New("bad filter")
)

// FilterError says what a filter asks for that does not exist, in words for whoever asked. It is an ErrBadFilter.
type FilterError struct{ Detail string }

func (e *FilterError) Error() string        { return ErrBadFilter.Error() + ": " + e.Detail }
func (e *FilterError) Is(target error) bool { return target == ErrBadFilter }

func badFilter(format string, args ...any) error {
	return &FilterError{fmt.Sprintf(format, args...)}
}

// Projection is how events become a read model.
type Projection interface {
	// Name is the read model's name, for example "users".
	Name() string
	// CodeVersion counts the versions of the tables and of what Changes makes of events. Raise it with either: processes of
	// the new version then ask for a rebuild when they start, and until it is done the old tables are queried, by the old
	// and the new code alike, and kept up to date by processes of the old version, if there are any. So that both can,
	//
	//   - a column keeps its type and its meaning for as long as it has its name;
	//   - a column is given up one release after the last query that names it;
	//   - queries name their columns. What fails for want of one fails with ErrOtherVersion, until the rebuild is done.
	CodeVersion() int
	// Tables says what tables a generation of the read model has.
	Tables(d eventstore.Dialect, generation int) []Table
	// Wants says which events Changes makes something of, and whether it needs their personal fields. A generation that is
	// filled from the log may be spared the others; the live one gets every event.
	Wants() eventstore.Selection
	// Changes begins changes to the tables of a generation.
	Changes(g Generation) Changes
}

// Changes are what events make of the tables of a generation, put together in memory, so that a row is written once
// however many of the events change it. Every event comes into them once, unless what it was folded into was given up.
type Changes interface {
	// Fold takes in events that follow those it has, in the order of their positions. It reads the rows that they go on
	// from and writes nothing. An event whose personal fields are forgotten is no error. Where the database can't be
	// reached, Fold may be called again with the same events; after any other error the changes are of no use.
	Fold(ctx context.Context, db eventstore.DB, events []eventstore.Event) error
	// Size is about how many bytes there are in memory.
	Size() int
	// Write writes what was folded, and has no effects beside tx. It is called again if the transaction was rolled back.
	Write(ctx context.Context, tx eventstore.DB) error
}

// Apply changes the tables of a generation by events, which are in the order of their positions, in a transaction that is
// to be rolled back if Apply fails.
func Apply(ctx context.Context, tx eventstore.DB, p Projection, g Generation, events []eventstore.Event) error {
	c := p.Changes(g)
	if err := c.Fold(ctx, tx, events); err != nil {
		return err
	}
	return c.Write(ctx, tx)
}

// State is what a projection is doing.
type State string

// The states of a projection.
const (
	StateCatchingUp State = "catching-up" // reads the log, because it is far behind
	StateRunning    State = "running"     // follows the stream
	StatePaused     State = "paused"      // was paused by an operator
	StateFailing    State = "failing"     // can't go on, and tries again: see the error
	StateStopped    State = "stopped"     // no process runs it
	StateOutdated   State = "outdated"    // no process of the version of the code that filled it runs it: it waits for a rebuild
)
