package projections

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"usher/eventstore"
	"usher/identity"
)

// UserProjection fills the read model "users": a row for every user who is not erased.
type UserProjection struct{}

// UsersName is the name of the projection of users.
const UsersName = "users"

// Name implements Projection.
func (UserProjection) Name() string { return UsersName }

// CodeVersion implements Projection.
func (UserProjection) CodeVersion() int { return 1 }

// Tables implements Projection. The keys are compared byte by byte, so that a prefix is a range of an index.
func (UserProjection) Tables(d eventstore.Dialect, generation int) []Table {
	create := map[eventstore.Dialect]string{
		eventstore.Postgres: `CREATE TABLE %s (
			id             uuid        PRIMARY KEY,
			email          text        NOT NULL, -- as it was typed
			email_key      text        NOT NULL COLLATE "C",
			name           text        NOT NULL,
			name_key       text        NOT NULL COLLATE "C",
			status         text        NOT NULL,
			locked         boolean     NOT NULL, -- a user who is both is disabled, and stays locked once enabled
			disabled       boolean     NOT NULL,
			email_verified boolean     NOT NULL,
			roles          jsonb       NOT NULL,
			attributes     json        NOT NULL, -- as it was given: nothing looks into it
			totp_enabled   boolean     NOT NULL,
			created_at     timestamptz NOT NULL,
			updated_at     timestamptz NOT NULL,
			version        int         NOT NULL, -- of the newest event of the user's stream that is in the row
			position       bigint      NOT NULL
		) WITH (fillfactor = 90)`,
		eventstore.SQLite: `CREATE TABLE %s (
			id             TEXT      PRIMARY KEY,
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
			position       INTEGER   NOT NULL
		) WITHOUT ROWID`,
	}[d]
	name := TableName("users", generation)
	return []Table{{
		Name:   "users",
		Key:    []string{"id"},
		User:   "id",
		Create: fmt.Sprintf(create, name),
		Indexes: []string{
			fmt.Sprintf("CREATE INDEX IF NOT EXISTS %[1]s_created ON %[1]s (created_at, id)", name),
			fmt.Sprintf("CREATE INDEX IF NOT EXISTS %[1]s_email ON %[1]s (email_key)", name),
			fmt.Sprintf("CREATE INDEX IF NOT EXISTS %[1]s_name ON %[1]s (name_key)", name),
			// Most users are active and have no roles, so these stay small.
			fmt.Sprintf("CREATE INDEX IF NOT EXISTS %[1]s_status ON %[1]s (status, created_at, id) WHERE status <> 'active'", name),
			fmt.Sprintf("CREATE INDEX IF NOT EXISTS %[1]s_roles ON %[1]s (created_at, id) WHERE roles <> '[]'", name),
		},
	}}
}

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
}

// Apply implements Projection: one statement reads the rows that the events go on from, one writes all that changed.
func (UserProjection) Apply(ctx context.Context, tx eventstore.DB, g Generation, events []eventstore.Event) error {
	table := TableName("users", g.Number)
	before, err := loadUsers(ctx, tx, table, events)
	if err != nil {
		return err
	}
	changed, err := foldUsers(before, events)
	if err != nil {
		return err
	}
	var begun, rows []userRow
	var erased []uuid.UUID
	for _, u := range changed {
		switch {
		case u.gone:
			erased = append(erased, u.ID)
		case g.Loading && u.begun:
			begun = append(begun, u)
		default:
			rows = append(rows, u)
		}
	}
	if err := loadRows(ctx, tx, table, userColumns, begun); err != nil {
		return err
	}
	if err := insertRows(ctx, tx, table, userColumns, rows, putUsers); err != nil {
		return err
	}
	if len(erased) > 0 {
		if _, err := tx.Exec(ctx, "DELETE FROM "+table+" WHERE id "+anyOf(tx.Dialect(), 1), list(tx.Dialect(), erased)); err != nil {
			return fmt.Errorf("delete from %s: %w", table, err)
		}
	}
	return nil
}

// loadUsers reads the rows of the users whose first event here is not the first of their stream.
func loadUsers(ctx context.Context, tx eventstore.DB, table string, events []eventstore.Event) (map[uuid.UUID]userRow, error) {
	found := make(map[uuid.UUID]userRow, len(events))
	seen := make(map[uuid.UUID]struct{}, len(events))
	var wanted []uuid.UUID
	for _, e := range events {
		if e.Stream.Kind != eventstore.KindUser {
			continue
		}
		if _, again := seen[e.Stream.ID]; again {
			continue
		}
		seen[e.Stream.ID] = struct{}{}
		if e.Version > 1 {
			wanted = append(wanted, e.Stream.ID)
		}
	}
	if len(wanted) == 0 {
		return found, nil
	}
	rows, err := tx.Query(ctx, "SELECT "+viewColumns+", locked, disabled FROM "+table+" WHERE id "+anyOf(tx.Dialect(), 1), list(tx.Dialect(), wanted))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", table, err)
	}
	defer rows.Close()
	for rows.Next() {
		var u userRow
		if err := scanUser(rows, &u.UserView, &u.locked, &u.disabled); err != nil {
			return nil, fmt.Errorf("read %s: %w", table, err)
		}
		found[u.ID] = u
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", table, err)
	}
	return found, nil
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
	updated_at = excluded.updated_at, version = excluded.version, position = excluded.position
	WHERE t.version < excluded.version`
