package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
)

// Commit implements eventstore.Store. It decides as append_events does in Postgres, see schema/postgres: under BEGIN
// IMMEDIATE the process is the only writer of the file, so positions are given in commit order, without gaps.
// Cancelling ctx ends the wait for other writers of this process; what was begun is finished, so its outcome is known.
func (s *Store) Commit(ctx context.Context, batch []*eventstore.Prepared) ([]eventstore.Outcome, error) {
	begun := context.WithoutCancel(ctx)
	tx, end, err := s.begin(ctx, begun)
	if err != nil {
		return nil, fmt.Errorf("begin: %w", err)
	}
	defer end()
	ctx = begun
	w, err := s.newWriting(ctx, tx)
	if err != nil {
		return nil, s.mapped(err)
	}
	before := w.head
	outcomes := make([]eventstore.Outcome, len(batch))
	for i, p := range batch {
		outcomes[i], err = w.append(ctx, p)
		if err != nil {
			return nil, fmt.Errorf("write to %s: %w", p.Stream, s.mapped(err))
		}
	}
	if w.head == before {
		return outcomes, nil
	}
	if err := s.commit(tx); err != nil {
		return nil, err
	}
	return outcomes, nil
}

// writing is one transaction that appends.
type writing struct {
	store  *Store
	tx     *sql.Tx
	head   int64
	moment time.Time // when its events were recorded, the same for all
}

func (s *Store) newWriting(ctx context.Context, tx *sql.Tx) (*writing, error) {
	w := &writing{store: s, tx: tx}
	var last time.Time
	err := w.row(ctx, s.stmt.last).Scan(&w.head, &last)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("read the head: %w", err)
	}
	if w.moment = time.Now(); w.moment.Before(last) {
		w.moment = last
	}
	return w, nil
}

func (w *writing) exec(ctx context.Context, stmt *sql.Stmt, args ...any) error {
	_, err := w.tx.StmtContext(ctx, stmt).ExecContext(ctx, args...)
	return err
}

func (w *writing) row(ctx context.Context, stmt *sql.Stmt, args ...any) *sql.Row {
	return w.tx.StmtContext(ctx, stmt).QueryRowContext(ctx, args...)
}

// append decides on one append and writes it. An error fails the whole transaction.
func (w *writing) append(ctx context.Context, p *eventstore.Prepared) (eventstore.Outcome, error) {
	stmt := &w.store.stmt
	// A repeated command answers as the first time, whatever else it asks for.
	if p.CommandID != uuid.Nil {
		first := eventstore.Result{Repeated: true}
		switch err := w.row(ctx, stmt.command, p.CommandID).Scan(&first.Position, &first.Version); {
		case err == nil:
			return eventstore.Outcome{Result: first}, nil
		case !errors.Is(err, sql.ErrNoRows):
			return eventstore.Outcome{}, fmt.Errorf("look for the command: %w", err)
		}
	}
	version, state := 0, "open"
	if err := w.row(ctx, stmt.stream, p.Stream.ID).Scan(&version, &state); err != nil && !errors.Is(err, sql.ErrNoRows) {
		return eventstore.Outcome{}, fmt.Errorf("read the version: %w", err)
	}
	subject := "open"
	if p.Stream.Subject != p.Stream.ID && p.Stream.Subject != uuid.Nil {
		if err := w.row(ctx, stmt.stream, p.Stream.Subject).Scan(new(int), &subject); err != nil && !errors.Is(err, sql.ErrNoRows) {
			return eventstore.Outcome{}, fmt.Errorf("read the subject's state: %w", err)
		}
	}
	stale, err := w.stale(ctx, p.Given)
	switch {
	case err != nil:
		return eventstore.Outcome{}, err
	case state != "open" || subject == "erased":
		return eventstore.Outcome{Err: eventstore.ErrStreamClosed}, nil
	case p.Expected != eventstore.AnyVersion && int(p.Expected) != version:
		return eventstore.Outcome{Err: &eventstore.VersionError{Stream: p.Stream, Expected: p.Expected, Actual: version}}, nil
	case stale != nil:
		return eventstore.Outcome{Err: stale}, nil
	}
	for i, r := range p.Reserve {
		var holder uuid.UUID
		err := w.row(ctx, stmt.holder, r.Scope, p.ReserveKeys[i]).Scan(&holder)
		switch {
		case err == nil && holder != p.Stream.ID:
			return eventstore.Outcome{Err: &eventstore.ReservationError{Scope: r.Scope}}, nil
		case err != nil && !errors.Is(err, sql.ErrNoRows):
			return eventstore.Outcome{}, fmt.Errorf("look for the reservation: %w", err)
		}
	}
	return w.write(ctx, p, version)
}

// stale is the error of the first of some streams that is not at its version any more, nil where they all are.
func (w *writing) stale(ctx context.Context, given []eventstore.StreamVersion) (refusal, err error) {
	for _, g := range given {
		version := 0
		if err := w.row(ctx, w.store.stmt.stream, g.Stream).Scan(&version, new(string)); err != nil && !errors.Is(err, sql.ErrNoRows) {
			return nil, fmt.Errorf("read the version of a given stream: %w", err)
		}
		if version != g.Version {
			return &eventstore.StaleError{Given: g}, nil
		}
	}
	return nil, nil
}

// write writes an append that was decided on, to a stream at the given version.
func (w *writing) write(ctx context.Context, p *eventstore.Prepared, version int) (eventstore.Outcome, error) {
	stmt := &w.store.stmt
	r := eventstore.Result{Position: w.head + int64(len(p.Events)), Version: version + len(p.Events)}
	if err := w.exec(ctx, stmt.putStream, p.Stream.ID, p.Stream.Kind, r.Version); err != nil {
		return eventstore.Outcome{}, fmt.Errorf("write the version: %w", err)
	}
	recorded := timeText(w.moment)
	subject := uuid.NullUUID{UUID: p.Stream.Subject, Valid: p.Stream.Subject != uuid.Nil}
	for i, e := range p.Events {
		if err := w.exec(ctx, stmt.putEvent, w.head+int64(i)+1, p.Stream.ID, p.Stream.Kind, subject, version+i+1, e.ID, e.Type,
			e.SchemaVersion, string(e.Data), p.Sealed[i], string(p.Meta), recorded); err != nil {
			return eventstore.Outcome{}, fmt.Errorf("write %s: %w", e.Type, err)
		}
	}
	for i, l := range p.Release {
		if err := w.exec(ctx, stmt.deleteReservation, l.Scope, p.ReleaseKeys[i], p.Stream.ID); err != nil {
			return eventstore.Outcome{}, fmt.Errorf("release: %w", err)
		}
	}
	if p.Erase {
		if err := w.exec(ctx, stmt.deleteReservations, p.Stream.ID); err != nil {
			return eventstore.Outcome{}, fmt.Errorf("release: %w", err)
		}
	}
	for i, h := range p.Reserve {
		if err := w.exec(ctx, stmt.putReservation, h.Scope, p.ReserveKeys[i], p.Stream.ID); err != nil {
			return eventstore.Outcome{}, fmt.Errorf("reserve: %w", err)
		}
	}
	if p.Key != nil {
		if err := w.exec(ctx, stmt.putKey, p.Stream.Subject, p.Key); err != nil {
			return eventstore.Outcome{}, fmt.Errorf("write the data key: %w", err)
		}
	}
	for _, c := range p.State {
		if err := w.applyState(ctx, c); err != nil {
			return eventstore.Outcome{}, fmt.Errorf("change %s: %w", c.Table, err)
		}
	}
	if p.Erase {
		if err := w.erase(ctx, p.Stream.ID); err != nil {
			return eventstore.Outcome{}, fmt.Errorf("erase: %w", err)
		}
	}
	if p.CommandID != uuid.Nil {
		if err := w.exec(ctx, stmt.remember, p.CommandID, r.Position, r.Version, recorded); err != nil {
			return eventstore.Outcome{}, fmt.Errorf("remember the command: %w", err)
		}
	}
	w.head = r.Position
	return eventstore.Outcome{Result: r}, nil
}

// erase closes a user's stream for good and deletes the rows that state tables have of the user.
func (w *writing) erase(ctx context.Context, user uuid.UUID) error {
	if err := w.exec(ctx, w.store.stmt.closeErased, user); err != nil {
		return fmt.Errorf("close the stream: %w", err)
	}
	for name, t := range w.store.tables {
		if t.erase == nil {
			continue
		}
		if err := w.exec(ctx, t.erase, user); err != nil {
			return fmt.Errorf("delete from %s: %w", name, err)
		}
	}
	return nil
}
