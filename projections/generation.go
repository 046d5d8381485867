package projections

import (
	"context"
	"errors"
	"fmt"
	"time"

	"usher.example/eventstore"
)

// role is what a generation that is not the live one is there for. There is at most one of each.
type role string

const (
	roleNext    role = "next"    // is to become the live one: a rebuild fills it
	roleStandby role = "standby" // was the live one before, and is kept current as the way back
)

// beside is the row of a generation that is not the live one.
type beside struct {
	role     role
	number   int
	code     int // version of the code that fills it
	position int64
	state    RebuildState
	failure  string
	actor    string
	since    time.Time
}

// readBeside fails with eventstore.ErrNoRows where there is no generation of the role.
func (m model) readBeside(ctx context.Context, db eventstore.DB, r role) (b beside, err error) {
	b.role = r
	var state string
	err = db.QueryRow(ctx, `SELECT generation, code_version, position, state, error, actor, since
		FROM projection_generations WHERE projection = $1 AND role = $2`, m.name(), string(r)).
		Scan(&b.number, &b.code, &b.position, &state, &b.failure, &b.actor, &b.since)
	if err != nil && !errors.Is(err, eventstore.ErrNoRows) {
		return b, fmt.Errorf("read the %s generation of %s: %w", r, m.name(), err)
	}
	b.state = RebuildState(state)
	return b, err
}

func (m model) insertBeside(ctx context.Context, tx eventstore.DB, b beside) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO projection_generations (projection, role, generation, code_version, position, state, actor, since, updated_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)`,
		m.name(), string(b.role), b.number, b.code, b.position, string(b.state), b.actor, time.Now().UTC())
	if err != nil {
		return fmt.Errorf("store the %s generation of %s: %w", b.role, m.name(), err)
	}
	return nil
}

// drop drops the generation that has a role, if there is one and the condition holds, and says whether it did.
func (m model) drop(ctx context.Context, r role, is func(beside) bool) (dropped bool, err error) {
	if dropped, err = m.discard(ctx, r, is); err == nil && dropped {
		err = m.dropDiscarded(ctx)
	}
	return dropped, err
}

func whichever(beside) bool { return true }

// remove drops the tables of the generation that has a role, if there is one, and forgets it.
func (m model) remove(ctx context.Context, tx eventstore.DB, r role) (removed bool, err error) {
	number, err := m.detach(ctx, tx, r)
	if errors.Is(err, eventstore.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, m.dropTables(ctx, tx, number)
}

// detach takes its role from a generation. It fails with eventstore.ErrNoRows where none has it.
func (m model) detach(ctx context.Context, tx eventstore.DB, r role) (number int, err error) {
	err = tx.QueryRow(ctx, "DELETE FROM projection_generations WHERE projection = $1 AND role = $2 RETURNING generation",
		m.name(), string(r)).Scan(&number)
	if err != nil && !errors.Is(err, eventstore.ErrNoRows) {
		err = fmt.Errorf("remove the %s generation of %s: %w", r, m.name(), err)
	}
	return number, err
}

// numbered is a generation that nothing loads.
func (m model) numbered(number int) Generation {
	return Generation{Dialect: m.db.Dialect(), Number: number}
}

// dropTables drops the tables of a generation, and with them what is known of what it lacks.
func (m model) dropTables(ctx context.Context, tx eventstore.DB, number int) error {
	if err := m.numbered(number).Drop(ctx, tx, m.projection); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, "DELETE FROM skipped_events WHERE projection = $1 AND generation = $2", m.name(), number); err != nil {
		return fmt.Errorf("forget what generation %d of %s lacks: %w", number, m.name(), err)
	}
	return nil
}
