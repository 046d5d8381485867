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
//   - Queries go through views of the live generation of the tables, so that exchanging a generation is one transaction.
//
// It does not decide anything: a command never reads a read model, and losing every read model loses nothing.
package projections

import (
	"context"
	"errors"
	"fmt"

	"usher/eventstore"
)

var (
	// ErrFenced: another process runs the projection now, under a later lease. What this one was about to write was
	// rolled back.
	ErrFenced = errors.New("another process runs the projection")
	// ErrRebuildNeeded: the tables were filled by another version of the projection's code. They can be queried, and
	// are not kept up to date until they are rebuilt.
	ErrRebuildNeeded = errors.New("the read model was filled by another version of the code and has to be rebuilt")
	// ErrBehind: a read model did not reach a position in time. Try again later.
	ErrBehind = errors.New("the read model is behind")
	// ErrUnknownProjection: no projection of that name was ever run on this database.
	ErrUnknownProjection = errors.New("unknown projection")
	// ErrNotFound: the read model has no such row.
	ErrNotFound = errors.New("not found")
	// ErrBadCursor: a cursor is not one that this deployment gave out for the same query.
	ErrBadCursor = errors.New("the cursor is not one of this list")
	// ErrBadFilter: a filter asks for something that does not exist.
	ErrBadFilter = errors.New("bad filter")
)

// Projection is how events become a read model.
type Projection interface {
	// Name is the read model's name, for example "users".
	Name() string
	// CodeVersion counts the versions of the tables and of Apply. Tables filled by another one have to be rebuilt.
	CodeVersion() int
	// Tables says what tables a generation of the read model has.
	Tables(d eventstore.Dialect, generation int) []Table
	// Apply changes the tables of a generation by events, which are in the order of their positions. It is called once
	// for every event, in a transaction that is rolled back if Apply fails, and has no effects beside tx. An event
	// whose personal fields are forgotten is no error.
	Apply(ctx context.Context, tx eventstore.DB, g Generation, events []eventstore.Event) error
}

// Generation is one set of the tables of a read model.
type Generation struct {
	Number int
	// Loading says that the tables are filled from the first event on, each event once, and that nothing else reads or
	// writes them: what an event begins is not there yet. They have no indexes but those that Create makes.
	Loading bool
}

// Table is a table of one generation of a read model.
type Table struct {
	Name    string   // without the generation, for example "users"
	Create  string   // the statement that makes it, under TableName
	Indexes []string // the statements, with IF NOT EXISTS, that make its indexes once it is filled
}

// TableName is the name of a table of one generation.
func TableName(name string, generation int) string { return fmt.Sprintf("%s_%d", name, generation) }

// ViewName is the name of the view of a table's live generation, which queries read.
func ViewName(name string) string { return name + "_live" }

// State is what a projection is doing.
type State string

// The states of a projection.
const (
	StateCatchingUp State = "catching-up" // reads the log, because it is far behind
	StateRunning    State = "running"     // follows the stream
	StatePaused     State = "paused"      // was paused by an operator
	StateFailing    State = "failing"     // can't go on, and tries again: see the error
	StateStopped    State = "stopped"     // no process runs it
)

// create makes the tables of a generation and its views, which become the live ones.
func create(ctx context.Context, tx eventstore.DB, p Projection, generation int) error {
	for _, t := range p.Tables(tx.Dialect(), generation) {
		view := ViewName(t.Name)
		for _, statement := range []string{
			t.Create,
			"DROP VIEW IF EXISTS " + view,
			"CREATE VIEW " + view + " AS SELECT * FROM " + TableName(t.Name, generation),
		} {
			if _, err := tx.Exec(ctx, statement); err != nil {
				return fmt.Errorf("create %s: %w", TableName(t.Name, generation), err)
			}
		}
	}
	return nil
}

// createIndexes makes the indexes that the tables of a generation lack. They come after the load, which they would
// slow down by half.
func createIndexes(ctx context.Context, db eventstore.DB, p Projection, generation int) error {
	return db.Transact(ctx, func(tx eventstore.DB) error {
		for _, t := range p.Tables(tx.Dialect(), generation) {
			for _, statement := range t.Indexes {
				if _, err := tx.Exec(ctx, statement); err != nil {
					return fmt.Errorf("create the indexes of %s: %w", TableName(t.Name, generation), err)
				}
			}
		}
		return nil
	})
}
