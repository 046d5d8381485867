package projections

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/uuid"

	"usher.example/eventstore"
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

// tableColumns are the columns as a table on Postgres is made of them. mark says of each what else there is to say.
func tableColumns[R any](columns []column[R], mark ...func(*Column)) []Column {
	out := make([]Column, len(columns))
	for i, c := range columns {
		out[i] = Column{Name: c.name, Type: c.kind}
		for _, m := range mark {
			m(&out[i])
		}
	}
	return out
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

// The bounds of a statement on Postgres, where each column goes as an array. What it takes is in memory several times over: pgx
// encodes it, and the connection sends it.
const (
	rowsAnArray     = 2000
	bytesAStatement = 2 << 20
)

// insertRows inserts rows into a table, which the conflict clause calls t: on Postgres by as few statements as there may be, and on
// SQLite by one for every rowsAStatement rows.
func insertRows[R any](ctx context.Context, tx eventstore.DB, table string, columns []column[R], rows []R, conflict string) error {
	return eachInsert(tx, table, columns, rows, conflict, func(sql string, args []any) error {
		_, err := tx.Exec(ctx, sql, args...)
		return err
	})
}

// insertReturning is insertRows with a conflict clause that ends in RETURNING: it hands over the rows of the answer.
func insertReturning[R any](ctx context.Context, tx eventstore.DB, table string, columns []column[R], rows []R, conflict string,
	handle func(eventstore.Row) error,
) error {
	return eachInsert(tx, table, columns, rows, conflict, func(sql string, args []any) error {
		answer, err := tx.Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		defer answer.Close()
		for answer.Next() {
			if err := handle(answer); err != nil {
				return err
			}
		}
		return answer.Err()
	})
}

// eachInsert runs the statements that insert rows.
func eachInsert[R any](tx eventstore.DB, table string, columns []column[R], rows []R, conflict string, run func(sql string, args []any) error) error {
	into := "INSERT INTO " + table + " AS t (" + strings.Join(columnNames(columns), ", ") + ") "
	for len(rows) > 0 {
		var sql string
		var args []any
		chunk := rows
		if tx.Dialect() == eventstore.SQLite {
			chunk = rows[:min(len(rows), rowsAStatement)]
			sql, args = valuesOf(columns, chunk)
		} else {
			chunk = rows[:min(len(rows), rowsAnArray)]
			sql, args = arraysOf(columns, chunk)
			for size := bytesOf(args); size > bytesAStatement && len(chunk) > 1; size = bytesOf(args) {
				chunk = chunk[:max(1, min(len(chunk)/2, len(chunk)*bytesAStatement/size))]
				sql, args = arraysOf(columns, chunk)
			}
		}
		rows = rows[len(chunk):]
		if err := run(into+sql+" "+conflict, args); err != nil {
			return fmt.Errorf("write %s: %w", table, err)
		}
	}
	return nil
}

// arraysOf are rows as one array a column.
func arraysOf[R any](columns []column[R], rows []R) (sql string, args []any) {
	arrays, values := make([]string, len(columns)), make([]string, len(columns))
	args = make([]any, len(columns), len(columns)+1)
	for i, c := range columns {
		kind := c.kind
		values[i] = "u." + c.name
		args[i] = c.list(rows)
		switch l, ok := args[i].(termLists); {
		case ok:
			args[i] = l.parts
			args = append(args, l.all)
			kind = "bigint"
			values[i] = fmt.Sprintf("($%d::int[])[(u.%[2]s >> 32)::int + 1 : (u.%[2]s & 4294967295)::int]", len(args), c.name)
		case kind == "jsonb": // goes as text
			values[i] += "::jsonb"
			kind = "text"
		}
		arrays[i] = fmt.Sprintf("$%d::%s[]", i+1, kind)
	}
	return "SELECT " + strings.Join(values, ", ") + " FROM unnest(" + strings.Join(arrays, ", ") + ") AS u (" +
		strings.Join(columnNames(columns), ", ") + ")", args
}

// bytesOf is about how large the arguments are whose size is not that of their type.
func bytesOf(args []any) (size int) {
	for _, arg := range args {
		switch list := arg.(type) {
		case []string:
			for _, text := range list {
				size += len(text)
			}
		case []int32:
			size += 4 * len(list)
		}
	}
	return size
}

// valuesOf are rows as a list of values.
func valuesOf[R any](columns []column[R], rows []R) (sql string, args []any) {
	row := ", (" + strings.Repeat(", ?", len(columns))[2:] + ")"
	args = make([]any, 0, len(rows)*len(columns))
	for i := range rows {
		for _, c := range columns {
			args = append(args, c.value(&rows[i]))
		}
	}
	return "VALUES " + strings.Repeat(row, len(rows))[2:], args
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
			switch v := values[k].(type) { // pgx takes the plain forms
			case uuid.UUID:
				values[k] = [16]byte(v)
			case terms:
				values[k] = []int32(v)
			}
		}
		return values
	})
	if err != nil {
		return fmt.Errorf("load %s: %w", table, err)
	}
	return nil
}

// unknown are the streams of a kind whose rows have to be read before events are folded: those that are not among the rows
// in memory, and whose first event here is not the first of the stream.
func unknown[R any](rows map[uuid.UUID]*R, k eventstore.Kind, events []eventstore.Event) []eventstore.Stream {
	var streams []eventstore.Stream
	seen := map[uuid.UUID]struct{}{}
	for _, e := range events {
		if e.Stream.Kind != k || rows[e.Stream.ID] != nil {
			continue
		}
		if _, again := seen[e.Stream.ID]; again {
			continue
		}
		seen[e.Stream.ID] = struct{}{}
		if e.Version > 1 {
			streams = append(streams, e.Stream)
		}
	}
	return streams
}

// sortedRows are rows in an order.
func sortedRows[R any](rows map[uuid.UUID]*R, order func(a, b *R) int) []*R {
	return slices.SortedFunc(maps.Values(rows), order)
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
