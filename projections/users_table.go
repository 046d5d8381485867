package projections

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
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
			created_at     TIMESTAMP NOT NULL,
			updated_at     TIMESTAMP NOT NULL,
			version        INTEGER   NOT NULL,
			position       INTEGER   NOT NULL
		) WITHOUT ROWID`,
	}[d]
	name := TableName("users", generation)
	return []Table{{
		Name:   "users",
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

const userColumns = `id, email, email_key, name, name_key, status, locked, disabled, email_verified, roles, created_at, updated_at, version, position`

// Apply implements Projection: one statement reads the rows that the events go on from, one writes all that changed.
func (UserProjection) Apply(ctx context.Context, tx eventstore.DB, generation int, events []eventstore.Event) error {
	table := TableName("users", generation)
	before, err := loadUsers(ctx, tx, table, events)
	if err != nil {
		return err
	}
	changed, err := foldUsers(before, events)
	if err != nil {
		return err
	}
	rows, erased := changed[:0], []uuid.UUID(nil)
	for _, u := range changed {
		if u.gone {
			erased = append(erased, u.ID)
		} else {
			rows = append(rows, u)
		}
	}
	if len(rows) > 0 {
		put := putUsersPostgres
		if tx.Dialect() == eventstore.SQLite {
			put = putUsersSQLite
		}
		if err := put(ctx, tx, table, rows); err != nil {
			return fmt.Errorf("write %s: %w", table, err)
		}
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

const viewColumns = `id, email, email_verified, name, status, CAST(roles AS text), created_at, updated_at, version, position`

// scanUser reads a row of viewColumns and of what follows them.
func scanUser(row eventstore.Row, u *UserView, more ...any) error {
	var status, roles string
	dest := append([]any{&u.ID, &u.Email, &u.EmailVerified, &u.Name, &status, &roles, &u.CreatedAt, &u.UpdatedAt, &u.Version, &u.Position}, more...)
	if err := row.Scan(dest...); err != nil {
		return err
	}
	u.Status, u.CreatedAt, u.UpdatedAt = identity.Status(status), u.CreatedAt.UTC(), u.UpdatedAt.UTC()
	u.Roles = []string{}
	if roles == "[]" {
		return nil
	}
	return json.Unmarshal([]byte(roles), &u.Roles)
}

func encodeRoles(roles []string) string {
	if len(roles) == 0 {
		return "[]"
	}
	raw, err := json.Marshal(roles)
	if err != nil { // strings can be expressed in JSON
		panic(err)
	}
	return string(raw)
}

// The version guards a row against events that it has: whatever may go wrong elsewhere, a row never goes back.
const putUsers = ` ON CONFLICT (id) DO UPDATE SET email = excluded.email, email_key = excluded.email_key, name = excluded.name,
	name_key = excluded.name_key, status = excluded.status, locked = excluded.locked, disabled = excluded.disabled,
	email_verified = excluded.email_verified, roles = excluded.roles, created_at = excluded.created_at,
	updated_at = excluded.updated_at, version = excluded.version, position = excluded.position
	WHERE t.version < excluded.version`

func putUsersPostgres(ctx context.Context, tx eventstore.DB, table string, rows []userRow) error {
	n := len(rows)
	var (
		ids                                          = make([][16]byte, n) // pgx encodes each uuid.UUID by way of a text and an error
		emails, emailKeys, names, nameKeys, statuses = make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n)
		locked, disabled, verified                   = make([]bool, n), make([]bool, n), make([]bool, n)
		roles                                        = make([]string, n)
		created, updated                             = make([]time.Time, n), make([]time.Time, n)
		versions                                     = make([]int32, n)
		positions                                    = make([]int64, n)
	)
	for i, u := range rows {
		ids[i], emails[i], emailKeys[i], names[i], nameKeys[i] = u.ID, u.Email, searchKey(u.Email), u.Name, searchKey(u.Name)
		statuses[i], locked[i], disabled[i], verified[i] = string(u.Status), u.locked, u.disabled, u.EmailVerified
		roles[i], created[i], updated[i] = encodeRoles(u.Roles), u.CreatedAt, u.UpdatedAt
		versions[i], positions[i] = int32(u.Version), u.Position
	}
	_, err := tx.Exec(ctx, "INSERT INTO "+table+" AS t ("+userColumns+`)
		SELECT a, b, c, d, e, f, g, h, i, j::jsonb, k, l, m, n
		  FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::boolean[], $8::boolean[],
		              $9::boolean[], $10::text[], $11::timestamptz[], $12::timestamptz[], $13::int[], $14::bigint[])
		       AS u (a, b, c, d, e, f, g, h, i, j, k, l, m, n)`+putUsers,
		ids, emails, emailKeys, names, nameKeys, statuses, locked, disabled, verified, roles, created, updated, versions, positions)
	return err
}

// rowsAStatement bounds the placeholders of a statement, of which SQLite takes 32,766, and keeps its texts few.
const rowsAStatement = 256

func putUsersSQLite(ctx context.Context, tx eventstore.DB, table string, rows []userRow) error {
	const columns = 14
	for len(rows) > 0 {
		chunk := rows[:min(len(rows), rowsAStatement)]
		rows = rows[len(chunk):]
		values := strings.Repeat(", ("+strings.Repeat(", ?", columns)[2:]+")", len(chunk))[2:]
		args := make([]any, 0, len(chunk)*columns)
		for _, u := range chunk {
			args = append(args, u.ID, u.Email, searchKey(u.Email), u.Name, searchKey(u.Name), string(u.Status), u.locked, u.disabled,
				u.EmailVerified, encodeRoles(u.Roles), u.CreatedAt, u.UpdatedAt, u.Version, u.Position)
		}
		if _, err := tx.Exec(ctx, "INSERT INTO "+table+" AS t ("+userColumns+") VALUES "+values+putUsers, args...); err != nil {
			return err
		}
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
		arrays := make([][16]byte, len(ids))
		for i, id := range ids {
			arrays[i] = id
		}
		return arrays
	}
	raw, err := json.Marshal(ids)
	if err != nil { // UUIDs can be expressed in JSON
		panic(err)
	}
	return string(raw)
}
