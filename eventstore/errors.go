package eventstore

import (
	"errors"
	"fmt"
)

// The errors of this package. Stores map what their database says to these, and nothing outside them looks at an
// SQLSTATE.
var (
	// ErrWrongExpectedVersion: the stream is not at the version that the append expected. Read it and decide again.
	ErrWrongExpectedVersion = errors.New("wrong expected version")
	// ErrStale: a stream that the append was given has moved on. Read it and decide again.
	ErrStale = errors.New("a stream that this was decided on has moved on")
	// ErrReserved: another stream holds a value that the append wanted to reserve.
	ErrReserved = errors.New("already reserved")
	// ErrStateRefused: a rule of a state table refuses a change of its rows, for example because no row would be left, or what a
	// row belongs to is gone.
	ErrStateRefused = errors.New("a state table refuses the change")
	// ErrStreamClosed: the stream is archived, or its user is erased.
	ErrStreamClosed = errors.New("stream is closed")
	// ErrEventTooLarge: an event is larger than MaxEventBytes.
	ErrEventTooLarge = errors.New("event is too large")
	// ErrInvalid: the append itself is wrong, for example it has no events.
	ErrInvalid = errors.New("invalid append")
	// ErrOverloaded: too many appends are waiting. Nothing was written; try again later.
	ErrOverloaded = errors.New("too many appends are waiting")
	// ErrClosed: the log is shutting down. Nothing was written.
	ErrClosed = errors.New("the log is closed")
	// ErrUnavailable: the database can't be reached. Nothing was written.
	ErrUnavailable = errors.New("the database can't be reached")
	// ErrNotPermitted: the database user lacks a right, which the error behind it names.
	ErrNotPermitted = errors.New("the database user may not do that; deploy/postgres/roles.sql says which role may")
	// ErrOutcomeUnknown: the append was sent, and the caller or the connection went away before the answer came.
	// It may have been written or not; repeating it with the same command id is safe and tells.
	ErrOutcomeUnknown = errors.New("outcome unknown")
	// ErrNoRows: a query for one row found none.
	ErrNoRows = errors.New("no rows")
	// ErrWrongMasterKey: MASTER_KEY is not the one that this database is sealed under.
	ErrWrongMasterKey = errors.New("MASTER_KEY is not the key of this database")
	// ErrRotation: the master key can't be replaced by that one, or not now.
	ErrRotation = errors.New("the master key can't be rotated")
	// ErrMasterKeyRetired: what was to be written is sealed under a master key that another has taken the place of.
	ErrMasterKeyRetired = errors.New("the master key was replaced")
	// ErrNoKey: the user has no data key: it was never made, or it was destroyed with the user.
	ErrNoKey = errors.New("the user has no data key")
	// ErrGap: an event is missing where the next position or version was expected. The log halts rather than skip.
	ErrGap = errors.New("gap in the log")
	// ErrForeign: events that came from elsewhere are not the log's.
	ErrForeign = errors.New("the JetStream stream has events that the log does not have: `usher outbox status` says why")
)

// VersionError is the ErrWrongExpectedVersion of one stream.
type VersionError struct {
	Stream   Stream
	Expected Expected
	Actual   int // 0: the stream does not exist
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("%s is at version %d, expected %d", e.Stream, e.Actual, int(e.Expected))
}

// Is makes errors.Is(err, ErrWrongExpectedVersion) true.
func (e *VersionError) Is(target error) bool { return target == ErrWrongExpectedVersion }

// StaleError is the ErrStale of one of the streams that the append was given.
type StaleError struct{ Given StreamVersion }

func (e *StaleError) Error() string {
	return fmt.Sprintf("stream %s is not at version %d any more", e.Given.Stream, e.Given.Version)
}

// Is makes errors.Is(err, ErrStale) true.
func (e *StaleError) Is(target error) bool { return target == ErrStale }

// ReservationError is the ErrReserved of one value, which is not in it.
type ReservationError struct{ Scope string }

func (e *ReservationError) Error() string { return e.Scope + " is already reserved" }

// Is makes errors.Is(err, ErrReserved) true.
func (e *ReservationError) Is(target error) bool { return target == ErrReserved }
