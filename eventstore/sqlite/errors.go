package sqlite

import (
	"database/sql"
	"errors"
	"fmt"
	"strings"

	modernc "modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"usher.example/eventstore"
)

var errBusy = fmt.Errorf("%w: other writers hold it", eventstore.ErrUnavailable)

// mapped translates an error to those of eventstore. What the statement or its values brought about stays as it is;
// every other error of the database (busy, disk full, input and output, damage) wraps ErrUnavailable.
func (s *Store) mapped(err error) error {
	var e *modernc.Error
	switch {
	case err == nil || errors.Is(err, eventstore.ErrUnavailable):
		return err
	case errors.Is(err, sql.ErrNoRows):
		return eventstore.ErrNoRows
	case errors.As(err, &e) && e.Code() == sqlite3.SQLITE_CONSTRAINT_TRIGGER && strings.Contains(e.Error(), eventstore.RetiredKeyGuard):
		return fmt.Errorf("%w: %w", eventstore.ErrMasterKeyRetired, err)
	case errors.As(err, &e) && (e.Code() == sqlite3.SQLITE_CONSTRAINT_TRIGGER || e.Code() == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY):
		return fmt.Errorf("%w: %w", eventstore.ErrStateRefused, err)
	case s.closed.Load() || errors.As(err, &e) && !blames(e):
		return fmt.Errorf("%w: %w", eventstore.ErrUnavailable, err)
	}
	return err
}

// blames says whether an error is the fault of a statement or of its values.
func blames(e *modernc.Error) bool {
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_RANGE,
		sqlite3.SQLITE_MISUSE, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_INTERRUPT:
		return true
	}
	return false
}

// commit commits, and says truthfully when it can't be known whether it did: a COMMIT that found no lock has not begun,
// but one whose write or sync failed may be found complete after a restart.
func (s *Store) commit(tx *sql.Tx) error {
	err := tx.Commit()
	var e *modernc.Error
	if errors.As(err, &e) && e.Code()&0xff != sqlite3.SQLITE_BUSY && !blames(e) {
		return fmt.Errorf("commit: %w: %w", eventstore.ErrOutcomeUnknown, err)
	}
	if err != nil {
		return fmt.Errorf("commit: %w", s.mapped(err))
	}
	return nil
}
