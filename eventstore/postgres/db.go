package postgres

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"usher.example/eventstore"
)

// querier is what a pool and a transaction have in common.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Begin(ctx context.Context) (pgx.Tx, error)
	CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, rows pgx.CopyFromSource) (int64, error)
}

// db implements eventstore.DB on a pool or on a transaction, where Transact makes a savepoint.
type db struct{ on querier }

func (d db) Dialect() eventstore.Dialect { return eventstore.Postgres }

func (d db) Query(ctx context.Context, sql string, args ...any) (eventstore.Rows, error) {
	r, err := d.on.Query(ctx, sql, args...)
	if err != nil {
		return nil, classify(err)
	}
	return rows{r}, nil
}

func (d db) QueryRow(ctx context.Context, sql string, args ...any) eventstore.Row {
	return row{d.on.QueryRow(ctx, sql, args...)}
}

func (d db) Exec(ctx context.Context, sql string, args ...any) (int64, error) {
	tag, err := d.on.Exec(ctx, sql, args...)
	return tag.RowsAffected(), classify(err)
}

// CopyFrom adds rows to a table, which may be named with its schema, by COPY, which fails as a whole where it fails. The columns' values are those of
// placeholders; row may use the same slice again each time.
func (d db) CopyFrom(ctx context.Context, table string, columns []string, rows int, row func(i int) []any) error {
	next := pgx.CopyFromSlice(rows, func(i int) ([]any, error) { return row(i), nil })
	_, err := d.on.CopyFrom(ctx, pgx.Identifier(strings.Split(table, ".")), columns, next)
	return classify(err)
}

// Transact answers with do's own error where do failed. A commit whose answer was lost is ErrUnavailable too: whoever
// must know has a guard in the transaction, as a checkpoint is.
func (d db) Transact(ctx context.Context, do func(tx eventstore.DB) error) error {
	tx, err := d.on.Begin(ctx)
	if err != nil {
		return classify(err)
	}
	if err := do(db{tx}); err != nil {
		// The connection is closed if it can't be rolled back, which undoes the transaction all the same.
		_ = tx.Rollback(context.WithoutCancel(ctx))
		return err
	}
	return classify(tx.Commit(ctx))
}

type rows struct{ pgx.Rows }

func (r rows) Scan(dest ...any) error { return classify(r.Rows.Scan(dest...)) }
func (r rows) Err() error             { return classify(r.Rows.Err()) }

type row struct{ pgx.Row }

func (r row) Scan(dest ...any) error { return classify(r.Row.Scan(dest...)) }
