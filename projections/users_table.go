package projections

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity"
)

// UserProjection fills the read model "users": a row for every user who is not erased.
type UserProjection struct{}

// UsersName is the name of the projection of users.
const UsersName = "users"

// Name implements Projection.
func (UserProjection) Name() string { return UsersName }

// CodeVersion implements Projection.
func (UserProjection) CodeVersion() int { return 4 }

// Wants implements Projection.
func (UserProjection) Wants() eventstore.Selection {
	return eventstore.Selection{Kinds: []eventstore.Kind{eventstore.KindUser}}
}

// Tables implements Projection. The keys are compared byte by byte.
//
// Lists are in the order of created_at and id, which one index has; whom a filter lets through another one has, of the
// terms. How the two are used stands in users_search.go.
func (UserProjection) Tables(d eventstore.Dialect, generation int) []Table {
	name := TableName(d, UsersName, generation)
	users := Table{
		Name: UsersName, Key: []string{"id"}, User: "id", Fill: 90,
		Columns: tableColumns(userColumns, func(c *Column) {
			c.Bytewise = c.Name == "email_key" || c.Name == "name_key"
			c.Unsampled = c.Name == "terms"
		}),
		Indexes: []Index{{Name: "created", Columns: []string{"created_at", "id"}}},
	}
	if d == eventstore.SQLite {
		found := TableName(d, "user_terms", generation)
		users.Create = fmt.Sprintf(sqliteUsers, name, found)
		return []Table{users, {
			Name: "user_terms", Derived: true, Create: fmt.Sprintf(sqliteTerms, found), View: fmt.Sprintf(sqliteTermsView, found),
		}}
	}
	users.Indexes = append(users.Indexes, Index{Name: "terms", Columns: []string{"terms"}, Terms: true})
	return []Table{users}
}

// On SQLite the index of terms is a table of its own, which triggers keep up to date with the users. Its rows have the
// position of the user's first event as their number: it is the same in every generation.
const sqliteUsers = `CREATE TABLE %[1]s (
	first_position INTEGER   PRIMARY KEY,
	id             TEXT      NOT NULL UNIQUE,
	email          TEXT      NOT NULL,
	email_key      TEXT      NOT NULL,
	name           TEXT      NOT NULL,
	name_key       TEXT      NOT NULL,
	status         TEXT      NOT NULL,
	locked         BOOLEAN   NOT NULL,
	disabled       BOOLEAN   NOT NULL,
	email_verified BOOLEAN   NOT NULL,
	roles          TEXT      NOT NULL,
	attributes     TEXT      NOT NULL,
	totp_enabled   BOOLEAN   NOT NULL,
	created_at     TIMESTAMP NOT NULL,
	updated_at     TIMESTAMP NOT NULL,
	version        INTEGER   NOT NULL,
	position       INTEGER   NOT NULL,
	terms          TEXT      NOT NULL
);
CREATE TRIGGER %[1]s_found AFTER INSERT ON %[1]s BEGIN
	INSERT INTO %[2]s (rowid, terms) VALUES (new.first_position, new.terms);
END;
CREATE TRIGGER %[1]s_changed AFTER UPDATE OF terms ON %[1]s WHEN new.terms <> old.terms BEGIN
	INSERT OR REPLACE INTO %[2]s (rowid, terms) VALUES (new.first_position, new.terms);
END;
CREATE TRIGGER %[1]s_gone AFTER DELETE ON %[1]s BEGIN
	DELETE FROM %[2]s WHERE rowid = old.first_position;
END`

const sqliteTerms = `CREATE VIRTUAL TABLE %s USING fts5 (terms, content = '', contentless_delete = 1, detail = none, tokenize = 'ascii')`

// The column of the table's own name is what FTS5 takes a query by.
const sqliteTermsView = `SELECT rowid AS first_position, %[1]s AS query FROM %[1]s`

var userColumns = []column[userRow]{
	field("id", "uuid", func(u *userRow) uuid.UUID { return u.ID }),
	field("email", "text", func(u *userRow) string { return u.Email }),
	field("email_key", "text", func(u *userRow) string { return searchKey(u.Email) }),
	field("name", "text", func(u *userRow) string { return u.Name }),
	field("name_key", "text", func(u *userRow) string { return searchKey(u.Name) }),
	field("status", "text", func(u *userRow) string { return string(u.Status) }),
	field("locked", "boolean", func(u *userRow) bool { return u.locked }),
	field("disabled", "boolean", func(u *userRow) bool { return u.disabled }),
	field("email_verified", "boolean", func(u *userRow) bool { return u.EmailVerified }),
	field("roles", "jsonb", func(u *userRow) string { return encodeList(u.Roles) }),
	field("attributes", "json", func(u *userRow) string { return string(u.Attributes) }),
	field("totp_enabled", "boolean", func(u *userRow) bool { return u.TOTPEnabled }),
	field("created_at", "timestamptz", func(u *userRow) time.Time { return u.CreatedAt }),
	field("updated_at", "timestamptz", func(u *userRow) time.Time { return u.UpdatedAt }),
	field("version", "int", func(u *userRow) int32 { return int32(u.Version) }),
	field("position", "bigint", func(u *userRow) int64 { return u.Position }),
	field("first_position", "bigint", func(u *userRow) int64 { return u.firstPosition }),
	termColumn("terms", termsOf),
}

// userChanges are changes to the users.
type userChanges struct {
	table   string
	loading bool
	rows    map[uuid.UUID]*userRow
	size    int
}

// Changes implements Projection: one statement reads the rows that events go on from, one writes all that changed.
func (UserProjection) Changes(g Generation) Changes {
	return &userChanges{table: g.Table(UsersName), loading: g.Loading, rows: map[uuid.UUID]*userRow{}}
}

// Size implements Changes.
func (c *userChanges) Size() int { return c.size }

// Fold implements Changes.
func (c *userChanges) Fold(ctx context.Context, db eventstore.DB, events []eventstore.Event) error {
	if err := c.load(ctx, db, events); err != nil {
		return err
	}
	err := foldUsers(c.rows, events)
	for _, e := range events {
		if u := c.rows[e.Stream.ID]; u != nil {
			c.weigh(u)
		}
	}
	return err
}

// weigh takes into account what a row is as large as now.
func (c *userChanges) weigh(u *userRow) {
	weight := rowBytes + len(u.Email) + len(u.Name) + len(u.Attributes)
	for _, role := range u.Roles {
		weight += rowBytes/16 + len(role)
	}
	c.size += weight - u.weight
	u.weight = weight
}

// rowBytes is about what a row takes besides its texts.
const rowBytes = 512

// Write implements Changes. Rows go in the order of their ids, which is the order that every writer locks them in.
func (c *userChanges) Write(ctx context.Context, tx eventstore.DB) error {
	var begun, rows []userRow
	var erased []uuid.UUID
	for _, u := range sortedRows(c.rows, func(a, b *userRow) int { return bytes.Compare(a.ID[:], b.ID[:]) }) {
		switch {
		case !u.changed:
		case u.gone:
			erased = append(erased, u.ID)
		case c.loading && u.begun:
			begun = append(begun, *u)
		default:
			rows = append(rows, *u)
		}
	}
	if err := loadRows(ctx, tx, c.table, userColumns, begun); err != nil {
		return err
	}
	if err := insertRows(ctx, tx, c.table, userColumns, rows, putUsers); err != nil {
		return err
	}
	if len(erased) > 0 {
		if _, err := tx.Exec(ctx, "DELETE FROM "+c.table+" WHERE id "+anyOf(tx.Dialect(), 1), list(tx.Dialect(), erased)); err != nil {
			return fmt.Errorf("delete from %s: %w", c.table, err)
		}
	}
	return nil
}

// load reads the rows of the users who are not in memory and whose first event here is not the first of their stream.
func (c *userChanges) load(ctx context.Context, db eventstore.DB, events []eventstore.Event) error {
	wanted := unknown(c.rows, eventstore.KindUser, events)
	if len(wanted) == 0 {
		return nil
	}
	ids := make([]uuid.UUID, len(wanted))
	for i, s := range wanted {
		ids[i] = s.ID
	}
	rows, err := db.Query(ctx, "SELECT "+viewColumns+", locked, disabled, first_position FROM "+c.table+" WHERE id "+anyOf(db.Dialect(), 1), list(db.Dialect(), ids))
	if err != nil {
		return fmt.Errorf("read %s: %w", c.table, err)
	}
	defer rows.Close()
	for rows.Next() {
		u := new(userRow)
		if err := scanUser(rows, &u.UserView, &u.locked, &u.disabled, &u.firstPosition); err != nil {
			return fmt.Errorf("read %s: %w", c.table, err)
		}
		c.rows[u.ID] = u
		c.weigh(u)
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read %s: %w", c.table, err)
	}
	return nil
}

const viewColumns = `id, email, email_verified, name, status, CAST(roles AS text), CAST(attributes AS text), totp_enabled, created_at, updated_at, version, position`

// scanUser reads a row of viewColumns and of what follows them.
func scanUser(row eventstore.Row, u *UserView, more ...any) error {
	var status, roles, attributes string
	dest := append([]any{&u.ID, &u.Email, &u.EmailVerified, &u.Name, &status, &roles, &attributes, &u.TOTPEnabled, &u.CreatedAt, &u.UpdatedAt, &u.Version, &u.Position}, more...)
	if err := row.Scan(dest...); err != nil {
		return err
	}
	u.Status, u.CreatedAt, u.UpdatedAt = identity.Status(status), u.CreatedAt.UTC(), u.UpdatedAt.UTC()
	u.Roles, u.Attributes = []string{}, json.RawMessage(attributes)
	if roles == "[]" {
		return nil
	}
	return json.Unmarshal([]byte(roles), &u.Roles)
}

// The version guards a row against events that it has: whatever may go wrong elsewhere, a row never goes back.
const putUsers = `ON CONFLICT (id) DO UPDATE SET email = excluded.email, email_key = excluded.email_key, name = excluded.name,
	name_key = excluded.name_key, status = excluded.status, locked = excluded.locked, disabled = excluded.disabled,
	email_verified = excluded.email_verified, roles = excluded.roles, attributes = excluded.attributes,
	totp_enabled = excluded.totp_enabled, created_at = excluded.created_at,
	updated_at = excluded.updated_at, version = excluded.version, position = excluded.position, terms = excluded.terms
	WHERE t.version < excluded.version`
