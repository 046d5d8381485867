package projections

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity"
)

// Difference is how a table of a generation that is about to become the live one differs from that of the live one, at
// the same checkpoint.
type Difference struct {
	Table    string   `json:"table"`
	LiveRows int64    `json:"live_rows"`
	Rows     int64    `json:"rows"`
	Missing  int64    `json:"missing"`  // rows that the live one lacks
	Extra    int64    `json:"extra"`    // rows that only the live one has
	Changed  int64    `json:"changed"`  // rows that both have, with other content
	Examples []string `json:"examples"` // keys of some of them
}

func (d Difference) String() string {
	return fmt.Sprintf("%s: rows in the live table: %d, in the new one: %d; missing: %d, too many: %d, different: %d; for example %s",
		d.Table, d.LiveRows, d.Rows, d.Missing, d.Extra, d.Changed, strings.Join(d.Examples, ", "))
}

const (
	compareTries = 20
	examples     = 5
)

// compare compares the generation with the live one, table by table, in the columns that both have. Nobody waits for it:
// a table is read by one statement, which sees one state of everything, and counts if both checkpoints are the same in
// that state. Only where the live generation moves too fast for that is it held up.
//
// Users who were erased since the checkpoint are left out: the live generation still has what the log forgot with them.
func (f *filling) compare(ctx context.Context) ([]Difference, error) {
	var found []Difference
	gone := erasures{upTo: -1}
	for _, t := range f.projection.Tables(f.db.Dialect(), f.generation.Number) {
		if !t.given() || t.Derived {
			continue
		}
		d, err := f.compareTable(ctx, t, &gone)
		if err != nil {
			return nil, fmt.Errorf("compare %s: %w", t.Name, err)
		}
		if d != nil {
			found = append(found, *d)
		}
	}
	return found, nil
}

func (f *filling) compareTable(ctx context.Context, t Table, gone *erasures) (d *Difference, err error) {
	for try := range compareTries {
		done := false
		compare := func(ctx context.Context, db eventstore.DB, l live) (err error) {
			if err := f.readErasures(ctx, gone, l.checkpoint); err != nil {
				return err
			}
			d, done, err = f.difference(ctx, db, t, l, gone.users)
			return err
		}
		held := func(context.Context, eventstore.DB, live) error { return nil }
		if try == compareTries-1 {
			held = compare
		}
		if err := f.level(ctx, held); err != nil || done {
			return d, err
		}
		err = f.persist(ctx, "compare generations", func(ctx context.Context) error {
			l, err := f.readLive(ctx, f.db)
			if err != nil {
				return err
			}
			return compare(ctx, f.db, l)
		})
		if err != nil || done {
			return d, err
		}
	}
	return d, nil
}

// erasures are the users who were erased after a position, as far as the log was read.
type erasures struct {
	users []uuid.UUID
	upTo  int64 // -1 before the first
}

// readErasures reads the log from a position, or from where it was read to, up to its head.
func (f *filling) readErasures(ctx context.Context, gone *erasures, from int64) error {
	if gone.upTo < 0 {
		gone.upTo = from
	}
	head, err := f.log.Head(ctx)
	if err != nil {
		return err
	}
	wanted := eventstore.Selection{Kinds: []eventstore.Kind{eventstore.KindUser}, Sealed: true}
	return f.readRange(ctx, gone.upTo, head, wanted, func(_ context.Context, b batch) error {
		for _, e := range b.events {
			if e.Type == identity.TypeUserErased {
				gone.users = append(gone.users, e.Stream.ID)
			}
		}
		gone.upTo = b.to
		return nil
	})
}

// difference compares a table, if the two generations are level, and says whether they were. It answers with nil where
// the tables are the same.
func (f *filling) difference(ctx context.Context, db eventstore.DB, t Table, l live, gone []uuid.UUID) (d *Difference, isLevel bool, err error) {
	c := comparison{filling: f, db: db, table: t, live: f.numbered(l.generation).Table(t.Name), next: f.generation.Table(t.Name)}
	if err := c.findColumns(ctx); err != nil {
		return nil, false, err
	}
	if len(c.columns) == 0 {
		return c.onlyNew(ctx)
	}
	c.leaveOut(gone)
	d = &Difference{Table: t.Name}
	same, isLevel, err := c.sums(ctx, d)
	if err != nil || !isLevel || same {
		return nil, isLevel, err
	}
	if !c.keyed {
		d.Missing, d.Extra = d.Rows, d.LiveRows
		return d, true, nil
	}
	if isLevel, err = c.count(ctx, d); err != nil || !isLevel {
		return nil, isLevel, err
	}
	isLevel, err = c.examples(ctx, d)
	return d, isLevel, err
}

// comparison is of one table.
type comparison struct {
	*filling
	db         eventstore.DB
	table      Table
	live, next string
	columns    []string // that both have
	opaque     []string // those of them that Postgres can't hash but as texts
	keyed      bool     // the key's are among them
	where      string   // leaves out who was erased since
	args       []any
}

func (c *comparison) leaveOut(gone []uuid.UUID) {
	c.args = []any{c.name(), string(c.role)}
	if len(gone) > 0 && slices.Contains(c.columns, c.table.User) {
		c.where = " WHERE NOT " + c.table.User + " " + anyOf(c.db.Dialect(), 3)
		c.args = append(c.args, list(c.db.Dialect(), gone))
	}
}

func (c *comparison) rows(table string) string { return "(SELECT * FROM " + table + c.where + ")" }

func (c *comparison) findColumns(ctx context.Context) error {
	before, err := columnsOf(ctx, c.db, c.live)
	if err != nil {
		return err
	}
	after, err := columnsOf(ctx, c.db, c.next)
	if err != nil {
		return err
	}
	for _, name := range after {
		if slices.Contains(before, name) {
			c.columns = append(c.columns, name)
		}
	}
	if c.db.Dialect() == eventstore.Postgres {
		c.opaque, err = readNames(ctx, c.db, "SELECT attname::text FROM pg_attribute WHERE attrelid = to_regclass($1) AND atttypid = 'json'::regtype", c.next)
	}
	c.keyed = !slices.ContainsFunc(c.table.Key, func(k string) bool { return !slices.Contains(c.columns, k) })
	return err
}

// columnsOf are the columns of a table, none for one that does not exist.
func columnsOf(ctx context.Context, db eventstore.DB, table string) ([]string, error) {
	query := "SELECT name FROM pragma_table_info($1) ORDER BY cid"
	if db.Dialect() == eventstore.Postgres {
		query = `SELECT attname::text FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped ORDER BY attnum`
	}
	return readNames(ctx, db, query, table)
}

func readNames(ctx context.Context, db eventstore.DB, query string, args ...any) (names []string, err error) {
	rows, err := db.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, rows.Err()
}

// levelNow is the condition that both checkpoints are the same, for the placeholders $1 and $2.
const levelNow = `(SELECT p.checkpoint = g.position FROM projections p JOIN projection_generations g ON g.projection = p.name
	WHERE p.name = $1 AND g.role = $2)`

func (c *comparison) scan(ctx context.Context, query string, dest ...any) (isLevel bool, err error) {
	err = c.db.QueryRow(ctx, query, c.args...).Scan(append([]any{&isLevel}, dest...)...)
	return isLevel, err
}

// onlyNew is a table that the live generation does not have.
func (c *comparison) onlyNew(ctx context.Context) (*Difference, bool, error) {
	c.leaveOut(nil)
	d := &Difference{Table: c.table.Name}
	isLevel, err := c.scan(ctx, "SELECT "+levelNow+", (SELECT count(*) FROM "+c.next+")", &d.Rows)
	d.Missing = d.Rows
	if d.Rows == 0 {
		return nil, isLevel, err
	}
	return d, isLevel, err
}

// sums compares the numbers of rows and the sums of the rows' hashes, which don't depend on their order.
func (c *comparison) sums(ctx context.Context, d *Difference) (same, isLevel bool, err error) {
	columns := strings.Join(c.columns, ", ")
	sum := "coalesce(sum(hash_record_extended(ROW(" + c.hashable() + "), 0)), 0)"
	hashed := c.rows
	if c.db.Dialect() == eventstore.SQLite { // whose sum of integers does not go beyond 64 bits
		sum = "coalesce(sum(h >> 32), 0) || '/' || coalesce(sum(h & 4294967295), 0)"
		hashed = func(table string) string {
			return "(SELECT row_hash(" + columns + ") AS h FROM " + table + c.where + ")"
		}
	}
	query := "SELECT " + levelNow + ", a.n, CAST(a.s AS text), b.n, CAST(b.s AS text) FROM (SELECT count(*) AS n, " + sum + " AS s FROM " +
		hashed(c.live) + " r) a, (SELECT count(*) AS n, " + sum + " AS s FROM " + hashed(c.next) + " r) b"
	var live, next string
	isLevel, err = c.scan(ctx, query, &d.LiveRows, &live, &d.Rows, &next)
	return d.LiveRows == d.Rows && live == next, isLevel, err
}

// hashable is the list of the columns as Postgres can hash them. Making a text of the whole row would take three times as
// long.
func (c *comparison) hashable() string {
	list := slices.Clone(c.columns)
	for i, name := range list {
		if slices.Contains(c.opaque, name) {
			list[i] = "CAST(" + name + " AS text)"
		}
	}
	return strings.Join(list, ", ")
}

// joined is both tables beside each other: a of the live generation, b of the next one.
func (c *comparison) joined() (from, missing, extra, changed string) {
	on, differ := make([]string, len(c.table.Key)), make([]string, len(c.columns))
	for i, k := range c.table.Key {
		on[i] = "a." + k + " = b." + k
	}
	for i, name := range c.columns {
		differ[i] = "CAST(a." + name + " AS text) IS DISTINCT FROM CAST(b." + name + " AS text)" // json can't be compared
	}
	key := c.table.Key[0]
	missing, extra = "a."+key+" IS NULL", "b."+key+" IS NULL"
	changed = "a." + key + " IS NOT NULL AND b." + key + " IS NOT NULL AND (" + strings.Join(differ, " OR ") + ")"
	return c.rows(c.live) + " a FULL JOIN " + c.rows(c.next) + " b ON " + strings.Join(on, " AND "), missing, extra, changed
}

func (c *comparison) count(ctx context.Context, d *Difference) (bool, error) {
	from, missing, extra, changed := c.joined()
	return c.scan(ctx, "SELECT "+levelNow+", count(*) FILTER (WHERE "+missing+"), count(*) FILTER (WHERE "+extra+"), count(*) FILTER (WHERE "+
		changed+") FROM "+from, &d.Missing, &d.Extra, &d.Changed)
}

func (c *comparison) examples(ctx context.Context, d *Difference) (isLevel bool, err error) {
	from, missing, extra, changed := c.joined()
	parts := make([]string, len(c.table.Key))
	for i, k := range c.table.Key {
		parts[i] = "CAST(coalesce(a." + k + ", b." + k + ") AS text)"
	}
	rows, err := c.db.Query(ctx, fmt.Sprintf(`SELECT `+levelNow+`, CASE WHEN %[2]s THEN 'missing ' WHEN %[3]s THEN 'too many ' ELSE 'different ' END || %[5]s
		FROM %[1]s WHERE %[2]s OR %[3]s OR %[4]s LIMIT %[6]d`,
		from, missing, extra, changed, strings.Join(parts, " || '/' || "), examples), c.args...)
	if err != nil {
		return false, err
	}
	defer rows.Close()
	isLevel, d.Examples = true, nil
	for rows.Next() {
		var here bool
		var example string
		if err := rows.Scan(&here, &example); err != nil {
			return false, err
		}
		isLevel = isLevel && here
		d.Examples = append(d.Examples, example)
	}
	return isLevel, rows.Err()
}
