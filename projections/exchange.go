package projections

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity"
)

// exchangeWait bounds how long the live generation's worker and the readers behind it wait because a long query still
// reads a view that is to be replaced. The exchange is tried again later.
const exchangeWait = "2s"

// exchange makes the generation the live one, in one transaction: checkpoint, views, and what is to be recorded. The
// worker that runs notices by the generation's number and goes on with the new one; a batch of its that was under way
// was either in before, or is done again on the new tables.
//
// The former live generation becomes the standby, in the place of an earlier one, unless events are parked in it: what it
// lacks would be missing in it for ever.
func (f *filling) exchange(ctx context.Context, actor string, record func(l live) identity.Payload) (identity.Payload, error) {
	var done identity.Payload
	err := f.level(ctx, func(ctx context.Context, tx eventstore.DB, l live) error {
		done = record(l)
		return f.swap(ctx, tx, l, actor, done)
	})
	if errors.Is(err, ErrCancelled) { // or it is done, and the answer to the commit was lost
		if l, read := f.readLive(ctx, f.db); read == nil && l.generation == f.generation.Number {
			return done, nil
		}
	}
	return done, err
}

func (f *filling) swap(ctx context.Context, tx eventstore.DB, l live, actor string, record identity.Payload) error {
	if tx.Dialect() == eventstore.Postgres {
		if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '"+exchangeWait+"'"); err != nil {
			return err
		}
	}
	if _, err := f.detach(ctx, tx, f.role); err != nil {
		return err
	}
	if _, err := f.remove(ctx, tx, roleStandby); err != nil {
		return err
	}
	if err := f.generation.Show(ctx, tx, f.projection); err != nil {
		return err
	}
	unrecorded, err := encodeRecord(actor, record)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `
		UPDATE projections SET generation = $2, code_version = $3, error = '', unrecorded = $4,
		       state = CASE state WHEN 'outdated' THEN 'catching-up' ELSE state END
		 WHERE name = $1`, f.name(), f.generation.Number, f.projection.CodeVersion(), unrecorded); err != nil {
		return fmt.Errorf("exchange the generation of %s: %w", f.name(), err)
	}
	parked, err := tx.Exec(ctx, "DELETE FROM parked_events WHERE projection = $1", f.name())
	if err != nil {
		return fmt.Errorf("exchange the generation of %s: %w", f.name(), err)
	}
	if parked > 0 {
		return f.dropTables(ctx, tx, l.generation)
	}
	return f.insertBeside(ctx, tx, beside{
		role: roleStandby, number: l.generation, code: l.code, position: l.checkpoint, state: stateStandby, actor: actor,
	})
}

// The states of a standby: it is kept current, or is to be the live generation again.
const (
	stateStandby  RebuildState = "standby"
	stateRollback RebuildState = "rollback"
)

// unrecorded is an event that tells of an exchange and is not in the log yet. Its id makes it the same command each time
// that it is appended.
type unrecorded struct {
	ID    uuid.UUID       `json:"id"`
	Actor string          `json:"actor"`
	Type  string          `json:"type"`
	Data  json.RawMessage `json:"data"`
}

func encodeRecord(actor string, p identity.Payload) (string, error) {
	data, _ := identity.Encode(p)
	id, err := uuid.NewV7()
	if err != nil {
		return "", err
	}
	raw, err := json.Marshal(unrecorded{ID: id, Actor: actor, Type: p.EventType(), Data: data})
	return string(raw), err
}

// record appends the event of the last exchange, unless it is in the log already: the process that did the exchange may
// have died before it could.
func (m model) record(ctx context.Context) error {
	var text *string
	err := m.db.QueryRow(ctx, "SELECT CAST(unrecorded AS text) FROM projections WHERE name = $1", m.name()).Scan(&text)
	switch {
	case errors.Is(err, eventstore.ErrNoRows) || err == nil && text == nil:
		return nil
	case err != nil:
		return fmt.Errorf("read what is to be recorded of %s: %w", m.name(), err)
	}
	var u unrecorded
	if err := json.Unmarshal([]byte(*text), &u); err != nil {
		return fmt.Errorf("read what is to be recorded of %s: %w", m.name(), err)
	}
	e := eventstore.NewEvent{Type: u.Type, Data: u.Data}
	if _, err := m.log.Append(ctx, m.append(u.ID, eventstore.Metadata{Correlation: u.ID, Actor: u.Actor}, e)); err != nil {
		return err
	}
	_, err = m.db.Exec(ctx, "UPDATE projections SET unrecorded = NULL WHERE name = $1 AND CAST(unrecorded AS text) = $2", m.name(), *text)
	if err != nil {
		return fmt.Errorf("note that %s is recorded: %w", m.name(), err)
	}
	return nil
}

// append is the append of an event to the stream of what was done to the projection.
func (m model) append(command uuid.UUID, meta eventstore.Metadata, e eventstore.NewEvent) eventstore.Append {
	meta.Address, meta.UserAgent = "", "" // no key seals them: the stream is about no user
	return eventstore.Append{
		Stream: eventstore.SystemStream("projection/" + m.name()), Expected: eventstore.AnyVersion,
		Events: []eventstore.NewEvent{e}, CommandID: command, Metadata: meta,
	}
}
