package eventstore

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
)

// SealedColumn is a column of a table whose values, or some of them, are sealed under the master key.
type SealedColumn struct {
	Table, Column string
	Key           []string // of the table, in the order of its primary key
	Beside        []string // more columns that Place needs
	// Scan makes what a row's key and the columns beside it are read into; Place says from these where the value is kept, as
	// SealState was told.
	Scan  func() []any
	Place func(row []any) string

	use masterUse
	// bind is what a value is bound to, where that is not the text of its place.
	bind func(row []any) []byte
}

// dataKeys are the wrapped data keys of users.
var dataKeys = SealedColumn{
	Table: "user_keys", Column: "wrapped", Key: []string{"user_id"}, use: forDataKeys,
	Scan:  func() []any { return []any{new(uuid.UUID)} },
	Place: func(row []any) string { return "user_keys/" + row[0].(*uuid.UUID).String() },
	bind:  func(row []any) []byte { return row[0].(*uuid.UUID)[:] },
}

// MasterKeyState says what a master key is to a database: current (the one to seal with), accepted (what it sealed can still be
// opened, and is being sealed anew) or retired.
type MasterKeyState struct {
	ID    string
	State string
	Since time.Time // when it was first used
}

// MasterKeyStates lists the master keys that a database has ever used, the newest first.
func MasterKeyStates(ctx context.Context, db DB) ([]MasterKeyState, error) {
	rows, err := db.Query(ctx, `SELECT id, state, created_at FROM master_keys ORDER BY created_at DESC`)
	if err != nil {
		return nil, fmt.Errorf("read the master keys: %w", err)
	}
	defer rows.Close()
	var states []MasterKeyState
	for rows.Next() {
		var s MasterKeyState
		var id []byte
		if err := rows.Scan(&id, &s.State, &s.Since); err != nil {
			return nil, fmt.Errorf("read the master keys: %w", err)
		}
		s.ID = hex.EncodeToString(id)
		states = append(states, s)
	}
	return states, rows.Err()
}

// RetiredKeyGuard is how the rules begin by which a database refuses what is sealed under a master key that was retired.
const RetiredKeyGuard = "retired_master_key_"

// Rotation has one master key take the place of another, while everything runs. It can be cut short anywhere, by a kill or
// by the caller, and is gone on with by another; two at the same time do each other no harm.
type Rotation struct {
	DB       DB // whose user owns the tables: it adds rules to them
	From, To MasterKey
	Columns  []SealedColumn // all but the users' data keys, which always are
	// Settle is how long the new key has to have been the one to seal with before the old one is refused, so that every
	// process has noticed by then: twice as long as one goes on without a look when 0.
	Settle time.Duration
	// Progress is told after each batch how many values were sealed anew since the beginning.
	Progress func(sealed int)
}

const sealBatch = 500

// Run rotates. A value that can't be opened keeps no other from being sealed anew, and the rotation from its end: Run fails with
// the first of them then, and what was sealed under the old key can be opened as before. It fails with ErrWrongMasterKey where From is not a key of the database, with ErrRotation where To can't be the next, and answers with false where there
// is nothing to do: To is the only key in use.
func (r *Rotation) Run(ctx context.Context) (bool, error) {
	if r.From.id() == r.To.id() {
		return false, fmt.Errorf("%w: the new key is the one before it", ErrRotation)
	}
	begun, err := r.begin(ctx)
	if err != nil || begun.IsZero() {
		return false, err
	}
	sealed, ring := 0, newMasterRing(r.To, r.From)
	columns := append([]SealedColumn{dataKeys}, r.Columns...)
	if err := r.reseal(ctx, ring, columns, &sealed); err != nil {
		return false, err
	}
	settle := r.Settle
	if settle == 0 {
		settle = 2 * ringFor
	}
	if err := Pause(ctx, time.Until(begun.Add(settle))); err != nil {
		return false, err
	}
	for _, c := range columns {
		if err := r.guard(ctx, c); err != nil {
			return false, fmt.Errorf("guard %s: %w", c.Table, err)
		}
	}
	// From here on nothing more comes that is sealed under the old key; what came in the meantime is sealed anew.
	if err := r.reseal(ctx, ring, columns, &sealed); err != nil {
		return false, err
	}
	for _, c := range columns {
		if err := r.prove(ctx, c); err != nil {
			return false, fmt.Errorf("look for what is left in %s: %w", c.Table, err)
		}
	}
	old := r.From.id()
	if _, err := r.DB.Exec(ctx, `UPDATE master_keys SET state = 'retired', root = NULL WHERE id = $1 AND state = 'accepted'`, old[:]); err != nil {
		return false, fmt.Errorf("retire the key: %w", err)
	}
	return true, nil
}

// begin makes To the key to seal with, and says since when it is; the zero time where From is out of use already.
func (r *Rotation) begin(ctx context.Context) (since time.Time, err error) {
	from, to := r.From.id(), r.To.id()
	err = r.DB.Transact(ctx, func(tx DB) error {
		used, err := usedKeys(ctx, tx)
		switch {
		case err != nil:
			return err
		case len(used) == 0:
			return ErrWrongMasterKey
		case used[0].id == to && len(used) == 1:
			return nil
		case used[0].id == to && used[1].id == from:
			since = used[0].since
			return nil
		case used[0].id != from:
			return ErrWrongMasterKey
		case len(used) > 1:
			return fmt.Errorf("%w: the rotation to %s is not finished", ErrRotation, used[1].id)
		}
		var before bool
		if err := tx.QueryRow(ctx, `SELECT count(*) > 0 FROM master_keys WHERE id = $1`, to[:]).Scan(&before); err != nil {
			return err
		}
		if before {
			return fmt.Errorf("%w: the new key was in use before and is retired; make another", ErrRotation)
		}
		root, err := r.From.ring.open(forRoot, used[0].root, rootPlace)
		if err != nil {
			return fmt.Errorf("read the root: %w", err)
		}
		since = time.Now().UTC()
		if _, err := tx.Exec(ctx, `UPDATE master_keys SET state = 'accepted' WHERE id = $1 AND state = 'current'`, from[:]); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `INSERT INTO master_keys (id, root, state, created_at) VALUES ($1, $2, 'current', $3)`,
			to[:], newMasterRing(r.To).seal(forRoot, root, rootPlace), since)
		return err
	})
	if err != nil {
		return time.Time{}, fmt.Errorf("begin the rotation: %w", err)
	}
	return since, nil
}

// reseal seals everything anew that is not sealed under To, and fails where something can't be opened.
func (r *Rotation) reseal(ctx context.Context, ring *masterRing, columns []SealedColumn, sealed *int) error {
	var unreadable Failures
	for _, c := range columns {
		var after []any
		for {
			rows, err := r.page(ctx, c, after)
			if err != nil {
				return fmt.Errorf("read %s: %w", c.Table, err)
			}
			if len(rows) == 0 {
				break
			}
			n, err := r.write(ctx, ring, c, rows, &unreadable)
			if err != nil {
				return fmt.Errorf("seal %s anew: %w", c.Table, err)
			}
			*sealed += n
			after = rows[len(rows)-1].key[:len(c.Key)]
			if r.Progress != nil {
				r.Progress(*sealed)
			}
		}
	}
	return unreadable.Err()
}

type sealedRow struct {
	key   []any // and what stands beside it
	value []byte
}

// page reads the next values of a column that are sealed under From, in the order of the table's key.
func (r *Rotation) page(ctx context.Context, c SealedColumn, after []any) ([]sealedRow, error) {
	args := []any{r.From.ring.keys[r.From.id()].prefix()}
	where := fmt.Sprintf("substr(%s, 1, %d) = $1", c.Column, masterPrefix)
	if after != nil {
		marks := make([]string, len(after))
		for i := range after {
			marks[i] = fmt.Sprintf("$%d", i+2)
		}
		where += fmt.Sprintf(" AND (%s) > (%s)", strings.Join(c.Key, ", "), strings.Join(marks, ", "))
		args = append(args, after...)
	}
	columns := append(append([]string{}, c.Key...), c.Beside...)
	rows, err := r.DB.Query(ctx, fmt.Sprintf("SELECT %s, %s FROM %s WHERE %s ORDER BY %s LIMIT %d", strings.Join(columns, ", "), c.Column,
		c.Table, where, strings.Join(c.Key, ", "), sealBatch), args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var page []sealedRow
	for rows.Next() {
		row := sealedRow{key: c.Scan()}
		if err := rows.Scan(append(append([]any{}, row.key...), &row.value)...); err != nil {
			return nil, err
		}
		page = append(page, row)
	}
	return page, rows.Err()
}

// write writes the values of some rows sealed under To, where they are still what was read: a user may be erased meanwhile. Those
// that can't be opened it leaves.
func (r *Rotation) write(ctx context.Context, ring *masterRing, c SealedColumn, rows []sealedRow, unreadable *Failures) (n int, err error) {
	where := make([]string, len(c.Key))
	for i, k := range c.Key {
		where[i] = fmt.Sprintf("%s = $%d", k, i+3)
	}
	update := fmt.Sprintf("UPDATE %[1]s SET %[2]s = $1 WHERE %[2]s = $2 AND %[3]s", c.Table, c.Column, strings.Join(where, " AND "))
	err = r.DB.Transact(ctx, func(tx DB) error {
		n = 0
		for _, row := range rows {
			bind := c.bind
			if bind == nil {
				bind = func(row []any) []byte { return []byte(c.Place(row)) }
			}
			plain, err := ring.open(c.use, row.value, bind(row.key))
			if err != nil {
				unreadable.Add(ctx, fmt.Errorf("open %s: %w", c.Place(row.key), err))
				continue
			}
			touched, err := tx.Exec(ctx, update, append([]any{ring.seal(c.use, plain, bind(row.key)), row.value}, row.key[:len(c.Key)]...)...)
			if err != nil {
				return err
			}
			n += int(touched)
		}
		return nil
	})
	return n, err
}

// guard has the database refuse what is sealed under From. It takes the table for a moment, and lets others go first where
// it would have to wait for it.
func (r *Rotation) guard(ctx context.Context, c SealedColumn) error {
	name, is := RetiredKeyGuard+r.From.ID(), hex.EncodeToString(r.From.ring.keys[r.From.id()].prefix())
	if r.DB.Dialect() == SQLite {
		for _, when := range []string{"INSERT", "UPDATE"} {
			if _, err := r.DB.Exec(ctx, fmt.Sprintf(`CREATE TRIGGER IF NOT EXISTS %[1]s_%[2]s_%[3]s BEFORE %[3]s ON %[2]s
				WHEN substr(NEW.%[4]s, 1, %[5]d) = x'%[6]s' BEGIN SELECT RAISE(ABORT, '%[1]s'); END`,
				name, c.Table, when, c.Column, masterPrefix, is)); err != nil {
				return err
			}
		}
		return nil
	}
	for {
		err := r.DB.Transact(ctx, func(tx DB) error {
			if _, err := tx.Exec(ctx, `SET LOCAL lock_timeout = '100ms'`); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, `LOCK TABLE `+c.Table+` IN ACCESS EXCLUSIVE MODE`); err != nil {
				return err
			}
			var there bool
			if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_constraint WHERE conname = $1 AND conrelid = to_regclass($2))`,
				name, c.Table).Scan(&there); err != nil || there {
				return err
			}
			_, err := tx.Exec(ctx, fmt.Sprintf(`ALTER TABLE %s ADD CONSTRAINT %s CHECK (substr(%s, 1, %d) <> '\x%s'::bytea) NOT VALID`,
				c.Table, name, c.Column, masterPrefix, is))
			return err
		})
		if !errors.Is(err, ErrUnavailable) {
			return err
		}
		if err := Pause(ctx, time.Second); err != nil {
			return err
		}
	}
}

// prove has the database look at every row, and fails if one is left that is sealed under From.
func (r *Rotation) prove(ctx context.Context, c SealedColumn) error {
	if r.DB.Dialect() == SQLite {
		rows, err := r.page(ctx, c, nil)
		if err == nil && len(rows) > 0 {
			err = fmt.Errorf("%w: there are some", ErrMasterKeyRetired)
		}
		return err
	}
	_, err := r.DB.Exec(ctx, fmt.Sprintf(`ALTER TABLE %s VALIDATE CONSTRAINT %s`, c.Table, RetiredKeyGuard+r.From.ID()))
	return err
}
