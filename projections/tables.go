package projections

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"usher.example/eventstore"
)

// Table is a table of one generation of a read model. One that a version of the code gives up stays in the list with
// nothing but its name, so that it is dropped with the generations that have it.
//
// On Postgres it is told by its columns and not by a statement, because whoever runs projections may make no table there:
// a function of the schema makes it, see schema/postgres. So nothing of theirs can be in what others query.
type Table struct {
	Name    string   // without the generation, for example "users"
	Key     []string // the columns of the primary key
	User    string   // the column of the user whom a row is about, "" for a table whose rows are about none
	Columns []Column // on Postgres
	Fill    int      // how full its pages are made on Postgres, in percent; 100 when 0
	Create  string   // the statement that makes it on SQLite, under the generation's name
	View    string   // what its view selects on SQLite; all that it has when ""
	Derived bool     // triggers of another table fill it, so it is not compared when generations are
	Indexes []Index
}

// Column is a column of a table on Postgres.
type Column struct {
	Name      string `json:"name"`
	Type      string `json:"type"` // one of Postgres itself
	Null      bool   `json:"null,omitempty"`
	Bytewise  bool   `json:"bytewise,omitempty"`  // texts are compared byte by byte
	Unsampled bool   `json:"unsampled,omitempty"` // Postgres keeps no statistics of it, because no plan depends on them
}

// Index is an index that is made once the table is filled, or with the table.
type Index struct {
	Name      string   `json:"name"` // what follows the table's
	Columns   []string `json:"columns"`
	Terms     bool     `json:"terms,omitempty"` // of what is in the lists that the column has; on Postgres
	WithTable bool     `json:"-"`               // is needed while the table is filled
}

// create is the statement that makes the index on SQLite.
func (i Index) create(table string) string {
	return fmt.Sprintf("CREATE INDEX IF NOT EXISTS %[1]s_%[2]s ON %[1]s (%[3]s)", table, i.Name, strings.Join(i.Columns, ", "))
}

// given says whether this version of the code has the table.
func (t Table) given() bool { return len(t.Columns) > 0 || t.Create != "" }

// readModels is the schema of the tables and views on Postgres. It is in nobody's search path, so every statement names it.
var readModels = map[eventstore.Dialect]string{eventstore.Postgres: "readmodels.", eventstore.SQLite: ""}

// TableName is the name of a table of one generation.
func TableName(d eventstore.Dialect, name string, generation int) string {
	return fmt.Sprintf("%s%s_%d", readModels[d], name, generation)
}

// ViewName is the name of the view of a table's live generation, which queries read.
func ViewName(d eventstore.Dialect, name string) string { return readModels[d] + name + "_live" }

// Generation is one set of the tables of a read model.
type Generation struct {
	Dialect eventstore.Dialect
	Number  int
	// Loading says that the tables are filled from the first event on, each event once, and that nothing else reads or
	// writes them: what an event begins is not there yet. They have no indexes but those that are made with the tables.
	Loading bool
}

// Table is the name of a table of the generation.
func (g Generation) Table(name string) string { return TableName(g.Dialect, name, g.Number) }

// Create makes the tables of a generation, empty.
func (g Generation) Create(ctx context.Context, tx eventstore.DB, p Projection) error {
	return g.each(p, Table.given, "create", func(t Table) error {
		if g.Dialect == eventstore.SQLite {
			_, err := tx.Exec(ctx, t.Create)
			return err
		}
		definition, err := json.Marshal(struct {
			Columns []Column `json:"columns"`
			Key     []string `json:"key"`
			Fill    int      `json:"fill"`
		}{t.Columns, t.Key, cmp.Or(t.Fill, 100)})
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "SELECT make_read_model($1, $2, $3)", t.Name, g.Number, string(definition)); err != nil {
			return err
		}
		return g.index(ctx, tx, t, true)
	})
}

// Show makes the generation the one that queries read.
func (g Generation) Show(ctx context.Context, tx eventstore.DB, p Projection) error {
	return g.each(p, func(Table) bool { return true }, "show", func(t Table) error {
		if g.Dialect == eventstore.Postgres {
			_, err := tx.Exec(ctx, "SELECT show_read_model($1, $2, $3)", t.Name, g.Number, t.given())
			return err
		}
		view := ViewName(g.Dialect, t.Name)
		if _, err := tx.Exec(ctx, "DROP VIEW IF EXISTS "+view); err != nil || !t.given() {
			return err
		}
		_, err := tx.Exec(ctx, "CREATE VIEW "+view+" AS "+cmp.Or(t.View, "SELECT * FROM "+g.Table(t.Name)))
		return err
	})
}

// Index makes the indexes that the tables lack. They come after the load, which they would slow down by half. On SQLite
// every other writer waits for a transaction, so each index has one of its own.
func (g Generation) Index(ctx context.Context, db eventstore.DB, p Projection) error {
	return g.each(p, Table.given, "index", func(t Table) error { return g.index(ctx, db, t, false) })
}

func (g Generation) index(ctx context.Context, db eventstore.DB, t Table, withTable bool) error {
	for _, i := range t.Indexes {
		if i.WithTable != withTable {
			continue
		}
		if g.Dialect == eventstore.SQLite {
			_, err := db.Exec(ctx, i.create(g.Table(t.Name)))
			if err != nil {
				return err
			}
			continue
		}
		definition, err := json.Marshal(i)
		if err != nil {
			return err
		}
		if _, err := db.Exec(ctx, "SELECT index_read_model($1, $2, $3)", t.Name, g.Number, string(definition)); err != nil {
			return err
		}
	}
	return nil
}

// Analyze lets Postgres know what is in the tables before anything is planned on them.
func (g Generation) Analyze(ctx context.Context, db eventstore.DB, p Projection) error {
	if g.Dialect != eventstore.Postgres {
		return nil
	}
	return g.each(p, Table.given, "analyze", func(t Table) error {
		_, err := db.Exec(ctx, "SELECT analyze_read_model($1, $2)", t.Name, g.Number)
		return err
	})
}

// Drop drops the tables, whichever version of the code made them.
func (g Generation) Drop(ctx context.Context, tx eventstore.DB, p Projection) error {
	return g.each(p, func(Table) bool { return true }, "drop", func(t Table) (err error) {
		if g.Dialect == eventstore.Postgres {
			_, err = tx.Exec(ctx, "SELECT drop_read_model($1, $2)", t.Name, g.Number)
		} else {
			_, err = tx.Exec(ctx, "DROP TABLE IF EXISTS "+g.Table(t.Name))
		}
		return err
	})
}

func (g Generation) each(p Projection, which func(Table) bool, what string, do func(Table) error) error {
	for _, t := range p.Tables(g.Dialect, g.Number) {
		if !which(t) {
			continue
		}
		if err := do(t); err != nil {
			return fmt.Errorf("%s %s: %w", what, g.Table(t.Name), err)
		}
	}
	return nil
}
