package sqlite

import (
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"usher.example/eventstore"
)

// table is what has to be known about a state table to write its rows.
type table struct {
	columns []column
	key     []column // the primary key
	insert  *sql.Stmt
	put     *sql.Stmt
	delete  *sql.Stmt
	erase   *sql.Stmt // deletes all rows of a user; nil for a table without a column user_id
}

type column struct{ name, kind string }

// applyState inserts, replaces or deletes one row of a state table.
func (w *writing) applyState(ctx context.Context, c eventstore.StateChange) error {
	t, known := w.store.tables[c.Table]
	if !known {
		return errors.New("not a state table")
	}
	var row map[string]json.RawMessage
	err := json.Unmarshal(c.Row, &row)
	if err != nil {
		return fmt.Errorf("decode the row: %w", err)
	}
	columns, stmt := t.columns, t.put
	switch {
	case c.Delete:
		columns, stmt = t.key, t.delete
	case c.New:
		stmt = t.insert
	}
	values := make([]any, len(columns))
	for i, column := range columns {
		if values[i], err = column.value(row[column.name]); err != nil {
			return fmt.Errorf("decode %s: %w", column.name, err)
		}
	}
	return w.exec(ctx, stmt, values...)
}

// readTables finds out about every table that has a primary key, apart from the log's own, which only appends write, and
// from those of read models, whose names end in the number of their generation.
func (s *Store) readTables(ctx context.Context) error {
	rows, err := s.readers.QueryContext(ctx, `
		SELECT t.name, c.name, c.type, c.pk > 0 FROM sqlite_schema t, pragma_table_info(t.name) c
		 WHERE t.type = 'table' AND t.name NOT IN ('events', 'streams', 'reservations', 'commands', 'migrations')
		   AND t.name NOT GLOB '*_[0-9]*'
		 ORDER BY t.name, c.cid`)
	if err != nil {
		return err
	}
	defer rows.Close()
	tables := map[string]*table{}
	for rows.Next() {
		var name string
		var c column
		var key bool
		if err := rows.Scan(&name, &c.name, &c.kind, &key); err != nil {
			return err
		}
		t := tables[name]
		if t == nil {
			t = &table{}
			tables[name] = t
		}
		t.columns = append(t.columns, c)
		if key {
			t.key = append(t.key, c)
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for name, t := range tables {
		if len(t.key) == 0 {
			continue
		}
		insert := t.insertText(name)
		if t.insert, err = s.writer.PrepareContext(ctx, insert); err != nil {
			return err
		}
		if t.put, err = s.writer.PrepareContext(ctx, insert+t.elseUpdate()); err != nil {
			return err
		}
		if t.delete, err = s.writer.PrepareContext(ctx, "DELETE FROM "+name+" WHERE "+join(t.key, " AND ", "%[1]s = $%[2]d")); err != nil {
			return err
		}
		if slices.ContainsFunc(t.columns, func(c column) bool { return c.name == "user_id" }) {
			if t.erase, err = s.writer.PrepareContext(ctx, "DELETE FROM "+name+" WHERE user_id = $1"); err != nil {
				return err
			}
		}
		s.tables[name] = t
	}
	return nil
}

func (t *table) insertText(name string) string {
	return fmt.Sprintf("INSERT INTO %s (%s) VALUES (%s)", name, join(t.columns, ", ", "%[1]s"), join(t.columns, ", ", "$%[2]d"))
}

// elseUpdate makes an insert replace the row that is there.
func (t *table) elseUpdate() string {
	return fmt.Sprintf(" ON CONFLICT (%s) DO UPDATE SET %s", join(t.key, ", ", "%[1]s"), join(t.columns, ", ", "%[1]s = excluded.%[1]s"))
}

// join writes each column's name and number in a format.
func join(columns []column, separator, format string) string {
	parts := make([]string, len(columns))
	for i, c := range columns {
		parts[i] = fmt.Sprintf(format, c.name, i+1)
	}
	return strings.Join(parts, separator)
}

// value is the JSON value of a column as it is stored. A missing one is null.
func (c column) value(raw json.RawMessage) (any, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	switch c.kind {
	case "INTEGER":
		var n int64
		err := json.Unmarshal(raw, &n)
		return n, err
	case "BOOLEAN":
		var is bool
		err := json.Unmarshal(raw, &is)
		return is, err
	case "TIMESTAMP":
		var t time.Time
		err := json.Unmarshal(raw, &t)
		return timeText(t), err
	}
	if raw[0] != '"' && c.kind == "TEXT" {
		return string(raw), nil // JSON in JSON
	}
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		return nil, err
	}
	if c.kind != "BLOB" {
		return text, nil
	}
	digits, ok := strings.CutPrefix(text, `\x`)
	if !ok {
		return nil, fmt.Errorf(`bytes without \x before them`)
	}
	return hex.DecodeString(digits)
}
