package projections

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"usher/eventstore"
)

// column is a column of a table whose rows are made of an R. The columns of a table say once what every way of writing
// rows needs.
type column[R any] struct {
	name  string
	kind  string             // its type on Postgres
	value func(row *R) any   // what it has in a row
	list  func(rows []R) any // what it has in all of them, as a slice
}

// field makes a column.
func field[R, V any](name, kind string, value func(row *R) V) column[R] {
	return column[R]{
		name: name, kind: kind,
		value: func(row *R) any { return value(row) },
		list: func(rows []R) any {
			values := make([]V, len(rows))
			for i := range rows {
				values[i] = value(&rows[i])
			}
			if ids, ok := any(values).([]uuid.UUID); ok {
				return idArray(ids)
			}
			return values
		},
	}
}

func columnNames[R any](columns []column[R]) []string {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.name
	}
	return names
}

// rowsAStatement bounds the placeholders of a statement, of which SQLite takes 32,766, and keeps its texts few.
const rowsAStatement = 256

// insertRows inserts rows into a table, which the conflict clause calls t: by one statement on Postgres, where each
// column goes as one array, and on SQLite by one for every rowsAStatement rows.
func insertRows[R any](ctx context.Context, tx eventstore.DB, table string, columns []column[R], rows []R, conflict string) error {
	if len(rows) == 0 {
		return nil
	}
	write := insertArrays[R]
	if tx.Dialect() == eventstore.SQLite {
		write = insertValues[R]
	}
	into := "INSERT INTO " + table + " AS t (" + strings.Join(columnNames(columns), ", ") + ") "
	if err := write(ctx, tx, into, columns, rows, conflict); err != nil {
		return fmt.Errorf("write %s: %w", table, err)
	}
	return nil
}

func insertArrays[R any](ctx context.Context, tx eventstore.DB, into string, columns []column[R], rows []R, conflict string) error {
	arrays, values := make([]string, len(columns)), make([]string, len(columns))
	args := make([]any, len(columns))
	for i, c := range columns {
		kind := c.kind
		values[i] = "u." + c.name
		if kind == "jsonb" { // goes as text
			kind = "text"
			values[i] += "::jsonb"
		}
		arrays[i] = fmt.Sprintf("$%d::%s[]", i+1, kind)
		args[i] = c.list(rows)
	}
	_, err := tx.Exec(ctx, into+"SELECT "+strings.Join(values, ", ")+" FROM unnest("+strings.Join(arrays, ", ")+
		") AS u ("+strings.Join(columnNames(columns), ", ")+") "+conflict, args...)
	return err
}

func insertValues[R any](ctx context.Context, tx eventstore.DB, into string, columns []column[R], rows []R, conflict string) error {
	row := ", (" + strings.Repeat(", ?", len(columns))[2:] + ")"
	for len(rows) > 0 {
		chunk := rows[:min(len(rows), rowsAStatement)]
		rows = rows[len(chunk):]
		args := make([]any, 0, len(chunk)*len(columns))
		for i := range chunk {
			for _, c := range columns {
				args = append(args, c.value(&chunk[i]))
			}
		}
		if _, err := tx.Exec(ctx, into+"VALUES "+strings.Repeat(row, len(chunk))[2:]+" "+conflict, args...); err != nil {
			return err
		}
	}
	return nil
}

// copier is a DB that takes many rows in one go, as that of Postgres does. It is two to three times as fast as an INSERT.
type copier interface {
	CopyFrom(ctx context.Context, table string, columns []string, rows int, row func(i int) []any) error
}

// loadRows adds rows to a table that has none of them.
func loadRows[R any](ctx context.Context, tx eventstore.DB, table string, columns []column[R], rows []R) error {
	bulk, ok := tx.(copier)
	if !ok {
		return insertRows(ctx, tx, table, columns, rows, "")
	}
	if len(rows) == 0 {
		return nil
	}
	values := make([]any, len(columns))
	err := bulk.CopyFrom(ctx, table, columnNames(columns), len(rows), func(i int) []any {
		for k, c := range columns {
			values[k] = c.value(&rows[i])
			if id, ok := values[k].(uuid.UUID); ok {
				values[k] = [16]byte(id)
			}
		}
		return values
	})
	if err != nil {
		return fmt.Errorf("load %s: %w", table, err)
	}
	return nil
}

// anyOf is the condition that a column's value is in a list, which is the placeholder n.
func anyOf(d eventstore.Dialect, n int) string {
	if d == eventstore.SQLite {
		return fmt.Sprintf("IN (SELECT value FROM json_each($%d))", n)
	}
	return fmt.Sprintf("= ANY ($%d)", n)
}

// list is the argument for anyOf.
func list(d eventstore.Dialect, ids []uuid.UUID) any {
	if d != eventstore.SQLite {
		return idArray(ids)
	}
	raw, err := json.Marshal(ids)
	if err != nil { // UUIDs can be expressed in JSON
		panic(err)
	}
	return string(raw)
}

// idArray is a list of ids as pgx encodes it best: each uuid.UUID would go by way of a text and an error.
func idArray(ids []uuid.UUID) [][16]byte {
	arrays := make([][16]byte, len(ids))
	for i, id := range ids {
		arrays[i] = id
	}
	return arrays
}
