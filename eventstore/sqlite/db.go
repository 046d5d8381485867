package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"time"

	"usher.example/eventstore"
)

// handle is the eventstore.DB of a store, or of one of its transactions.
type handle struct {
	store *Store
	tx    *sql.Tx // nil outside a transaction
}

// Dialect implements eventstore.DB.
func (handle) Dialect() eventstore.Dialect { return eventstore.SQLite }

// writes recognises the statements that write and answer with rows.
var writes = regexp.MustCompile(`(?i)\bRETURNING\b`)

// Query implements eventstore.DB. A statement with RETURNING holds the writer's connection until its rows are closed,
// and is committed once they have been read to the end.
func (h handle) Query(ctx context.Context, text string, args ...any) (eventstore.Rows, error) {
	return h.query(ctx, text, args)
}

func (h handle) query(ctx context.Context, text string, args []any) (rows, error) {
	var from interface {
		QueryContext(context.Context, string, ...any) (*sql.Rows, error)
	} = h.store.readers
	switch {
	case h.tx != nil:
		from = h.tx
	case writes.MatchString(text):
		from = h.store.writer
	}
	r, err := from.QueryContext(ctx, text, stored(args)...)
	if err != nil {
		return rows{}, h.store.mapped(err)
	}
	return rows{r, h.store}, nil
}

// QueryRow implements eventstore.DB.
func (h handle) QueryRow(ctx context.Context, text string, args ...any) eventstore.Row {
	r, err := h.query(ctx, text, args)
	return row{r, err}
}

// Exec implements eventstore.DB.
func (h handle) Exec(ctx context.Context, text string, args ...any) (int64, error) {
	var on interface {
		ExecContext(context.Context, string, ...any) (sql.Result, error)
	} = h.store.writer
	if h.tx != nil {
		on = h.tx
	}
	r, err := on.ExecContext(ctx, text, stored(args)...)
	if err != nil {
		return 0, h.store.mapped(err)
	}
	return r.RowsAffected()
}

// Transact implements eventstore.DB. All other writers wait until it is done, so do must use tx alone: writing through
// the store or the log inside it would wait for itself. A transaction within a transaction is a savepoint of it.
func (h handle) Transact(ctx context.Context, do func(eventstore.DB) error) error {
	if h.tx != nil {
		return h.nest(ctx, do)
	}
	tx, end, err := h.store.begin(ctx, ctx)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer end()
	if err := do(handle{h.store, tx}); err != nil {
		return err
	}
	return h.store.commit(tx)
}

func (h handle) nest(ctx context.Context, do func(eventstore.DB) error) error {
	if _, err := h.Exec(ctx, "SAVEPOINT nested"); err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	done := false
	defer func() {
		if !done { // the transaction itself is rolled back where this fails
			h.tx.ExecContext(context.WithoutCancel(ctx), "ROLLBACK TO nested; RELEASE nested")
		}
	}()
	if err := do(h); err != nil {
		return err
	}
	if _, err := h.Exec(ctx, "RELEASE nested"); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	done = true
	return nil
}

// begin waits for the writer's connection while waiting lasts, and then for the file's lock. The transaction is rolled
// back when ctx ends; end gives everything back, and rolls back what was not committed by then.
func (s *Store) begin(waiting, ctx context.Context) (tx *sql.Tx, end func(), err error) {
	waiting, cancel := context.WithTimeoutCause(waiting, lockTimeout, errBusy)
	defer cancel()
	conn, err := s.writer.Conn(waiting)
	if err != nil {
		if context.Cause(waiting) == errBusy {
			err = errBusy
		}
		return nil, nil, s.mapped(err)
	}
	tx, err = conn.BeginTx(ctx, nil)
	if err != nil {
		return nil, nil, errors.Join(s.mapped(err), conn.Close())
	}
	return tx, func() {
		tx.Rollback() // sql.ErrTxDone after a commit
		conn.Close()
	}, nil
}

// rows reads an answer, and what was stored in the form of stored.
type rows struct {
	*sql.Rows
	store *Store
}

// Close implements eventstore.Rows.
func (r rows) Close() { r.Rows.Close() } // its errors are those of Err

// Err implements eventstore.Rows.
func (r rows) Err() error { return r.store.mapped(r.Rows.Err()) }

// Scan implements eventstore.Rows.
func (r rows) Scan(dest ...any) error {
	adapted := make([]any, len(dest))
	for i, d := range dest {
		switch d := d.(type) {
		case *time.Time:
			adapted[i] = timeTo{d}
		case **time.Time:
			adapted[i] = nullTimeTo{d}
		case *json.RawMessage:
			adapted[i] = (*[]byte)(d)
		default:
			adapted[i] = d
		}
	}
	return r.store.mapped(r.Rows.Scan(adapted...))
}

type row struct {
	rows rows
	err  error
}

// Scan implements eventstore.Row. It reads to the end, so that a statement that writes is committed and its failure
// known.
func (r row) Scan(dest ...any) error {
	if r.err != nil {
		return r.err
	}
	defer r.rows.Close()
	if !r.rows.Next() {
		if err := r.rows.Err(); err != nil {
			return err
		}
		return eventstore.ErrNoRows
	}
	if err := r.rows.Scan(dest...); err != nil {
		return err
	}
	for r.rows.Next() {
	}
	return r.rows.Err()
}

// timeLayout has a fixed width, so that the order of the texts is the order of the times. SQLite's own functions read it.
const timeLayout = "2006-01-02 15:04:05.000000"

func timeText(t time.Time) string { return t.UTC().Format(timeLayout) }

// stored gives arguments the form in which they are stored: times as text in UTC, JSON as text.
func stored(args []any) []any {
	out := make([]any, len(args))
	for i, a := range args {
		switch a := a.(type) {
		case time.Time:
			out[i] = timeText(a)
		case *time.Time:
			if a != nil {
				out[i] = timeText(*a)
			}
		case json.RawMessage:
			if a != nil {
				out[i] = string(a)
			}
		default:
			out[i] = a
		}
	}
	return out
}

// timeTo reads a time from a column of times, or from the text that an expression makes of one.
type timeTo struct{ to *time.Time }

func (t timeTo) Scan(value any) (err error) {
	switch v := value.(type) {
	case time.Time:
		*t.to = v.UTC()
	case string:
		*t.to, err = time.Parse("2006-01-02 15:04:05.999999999", v)
	default:
		err = fmt.Errorf("%T is not a time", value)
	}
	return err
}

type nullTimeTo struct{ to **time.Time }

func (t nullTimeTo) Scan(value any) error {
	if value == nil {
		*t.to = nil
		return nil
	}
	*t.to = new(time.Time)
	return timeTo{*t.to}.Scan(value)
}
