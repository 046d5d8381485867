package identity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
)

// Erase forgets a user, for good, and answers with where user.erased is. Asked for again it answers the same.
//
// The sessions are ended first, each with its event. Then one append carries user.erased and takes all that is kept of the
// user: see eventstore.TypeErased. Nothing can be appended about the user after it, so whatever runs at the same time
// finds no user, or was before it. What follows is done by those who come to the event: caches drop the user, read models
// delete their rows, the relay purges the user's messages before it publishes the event.
//
// Before anything is done the erasure is written down in the database, and from there on it is carried through: if this
// process does not come to it, by the next one to start, or by Sweep. Cancelling ctx does not stop it. It is in the
// ledger, if there is one, before Erase answers.
//
// It fails with ErrNotFound where there never was such a user, with ErrLastAdmin for the last administrator, or with
// CodeUnavailable where the ledger can't be written, and then nothing is done; or as eventstore.Log.Append does.
func (s *Service) Erase(ctx context.Context, id uuid.UUID, m eventstore.Metadata) (eventstore.Result, error) {
	return s.erase(ctx, erasureWish{user: id, metadata: m})
}

// EraseOwn is Erase for the user who asks for it, and who shows to be that user. It fails as prove does as well.
func (s *Service) EraseOwn(ctx context.Context, id uuid.UUID, p Proof, m eventstore.Metadata) (eventstore.Result, error) {
	shown, err := s.prove(ctx, id, p, m)
	if err != nil {
		return eventstore.Result{}, err
	}
	return s.erase(ctx, erasureWish{user: id, metadata: m, proof: &shown})
}

// erasureWish is the wish that a user be erased.
type erasureWish struct {
	user     uuid.UUID
	metadata eventstore.Metadata
	proof    *proven // that it follows; nil where nothing had to be proven
}

func (s *Service) erase(ctx context.Context, w erasureWish) (eventstore.Result, error) {
	id := w.user
	last, erased, err := s.erasedAt(ctx, id)
	if err != nil {
		return eventstore.Result{}, err
	}
	if erased {
		return last, s.recordErasure(ctx, id)
	}
	if err := s.spareLastAdmin(ctx, id); err != nil {
		return eventstore.Result{}, err
	}
	if s.ledger != nil {
		if err := s.ledger.Check(); err != nil {
			return eventstore.Result{}, notRecorded(err)
		}
	}
	if err := s.noteErasure(ctx, w, s.now()); err != nil {
		return eventstore.Result{}, err
	}
	return s.carryThrough(context.WithoutCancel(ctx), w)
}

func notRecorded(err error) error {
	return &Error{Code: CodeUnavailable, Detail: "the erasure can't be recorded at the moment", Err: err}
}

// erasedAt answers with where a user's last event is, if that has erased the user. It fails with ErrNotFound where there
// never was such a user.
func (s *Service) erasedAt(ctx context.Context, id uuid.UUID) (last eventstore.Result, erased bool, err error) {
	var state string
	err = s.db.QueryRow(ctx, `
		SELECT s.state, e.position, e.version
		  FROM streams s JOIN events e ON e.stream = s.stream AND e.version = s.version
		 WHERE s.stream = $1 AND s.kind = 'user'`, id).Scan(&state, &last.Position, &last.Version)
	if errors.Is(err, eventstore.ErrNoRows) {
		return last, false, noSuchUser()
	}
	if err != nil {
		return last, false, fmt.Errorf("look for the erasure of %s: %w", id, err)
	}
	return last, state == "erased", nil
}

// spareLastAdmin fails with ErrLastAdmin for the last who can act as an administrator, before anything is done. The append
// refuses it as well: that counts where two erase each other at the same time.
func (s *Service) spareLastAdmin(ctx context.Context, id uuid.UUID) error {
	var others int
	err := s.db.QueryRow(ctx, `
		SELECT (SELECT count(*) FROM admins o WHERE o.user_id <> a.user_id) FROM admins a WHERE a.user_id = $1`, id).Scan(&others)
	switch {
	case errors.Is(err, eventstore.ErrNoRows):
		return nil
	case err != nil:
		return fmt.Errorf("count the administrators: %w", err)
	case others == 0:
		return lastAdmin()
	}
	return nil
}

// noteErasure writes down that an erasure was asked for. A wish takes the place of one before it that was proven: that may
// not hold any more.
func (s *Service) noteErasure(ctx context.Context, w erasureWish, at time.Time) error {
	_, err := s.db.Exec(ctx, `
		INSERT INTO erasures (subject, actor, proven, requested_at) VALUES ($1, $2, $3, $4)
		ON CONFLICT (subject) DO UPDATE SET actor = excluded.actor, proven = excluded.proven
		 WHERE erasures.done_at IS NULL AND erasures.proven IS NOT NULL`,
		w.user, w.metadata.Actor, w.provenAt(), at.UTC())
	if err != nil {
		return fmt.Errorf("note the erasure of %s: %w", w.user, err)
	}
	return nil
}

// provenAt is the version as of which the wish was proven to be the user's; nil where nothing had to be proven.
func (w erasureWish) provenAt() *int {
	if w.proof == nil {
		return nil
	}
	return &w.proof.version
}

// carryThrough does what is left to do of an erasure that was written down. One that is refused is struck out.
func (s *Service) carryThrough(ctx context.Context, w erasureWish) (eventstore.Result, error) {
	id := w.user
	last, err := s.forget(ctx, w)
	var refusal *Error
	if errors.As(err, &refusal) {
		// Another wish may have taken the place of this one.
		if _, struck := s.db.Exec(ctx, `DELETE FROM erasures WHERE subject = $1 AND done_at IS NULL AND proven IS NOT DISTINCT FROM $2`,
			id, w.provenAt()); struck != nil {
			return last, errors.Join(err, struck)
		}
	}
	if err != nil {
		return eventstore.Result{}, fmt.Errorf("erase %s: %w", id, err)
	}
	return last, s.recordErasure(ctx, id)
}

// forget ends a user's sessions and appends user.erased, and answers with where that is, whoever appended it.
func (s *Service) forget(ctx context.Context, w erasureWish) (eventstore.Result, error) {
	id, m := w.user, w.metadata
	m.Address, m.UserAgent = "", "" // they would be sealed with the key that is destroyed
	kept, err := s.outlasting(ctx, id)
	if err != nil {
		return eventstore.Result{}, err
	}
	if _, err := s.endSessions(ctx, id, uuid.Nil, EndedErased, m, w.proof); err != nil {
		return eventstore.Result{}, err
	}
	last, err := s.change(ctx, id, m, func(u User) (change, error) {
		if w.proof != nil {
			if err := w.proof.holds(u); err != nil {
				return change{}, err
			}
		}
		email, err := ParseEmail(u.Email)
		if err != nil {
			return change{}, err
		}
		// Whoever has the address next begins afresh.
		return change{events: []Payload{Erased{}}, reserve: kept, state: []eventstore.StateChange{s.throttle.pardon(email)}}, nil
	})
	s.cache.forget(id)
	if errors.Is(err, ErrNotFound) {
		last, _, err = s.erasedAt(ctx, id)
	}
	return last, err
}

// outlasting is what a user's stream holds after the user: that there was a first administrator, so that none is made
// again.
func (s *Service) outlasting(ctx context.Context, id uuid.UUID) ([]eventstore.Reservation, error) {
	holder, err := s.reservedBy(ctx, onlyFirstAdmin)
	if err != nil || holder != id {
		return nil, err
	}
	return []eventstore.Reservation{onlyFirstAdmin}, nil
}

// recordErasure writes an erasure into the ledger, unless it is done.
func (s *Service) recordErasure(ctx context.Context, id uuid.UUID) error {
	err := s.db.QueryRow(ctx, `SELECT 1 FROM erasures WHERE subject = $1 AND done_at IS NULL`, id).Scan(new(int))
	if errors.Is(err, eventstore.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for the erasure of %s: %w", id, err)
	}
	if s.ledger != nil {
		if err := s.ledger.Record(ctx, Erasure{id, s.now()}); err != nil {
			return notRecorded(err)
		}
	}
	return s.erasureDone(ctx, id)
}

func (s *Service) erasureDone(ctx context.Context, id uuid.UUID) error {
	if _, err := s.db.Exec(ctx, `UPDATE erasures SET done_at = $2 WHERE subject = $1 AND done_at IS NULL`, id, s.now().UTC()); err != nil {
		return fmt.Errorf("note that %s is erased: %w", id, err)
	}
	return nil
}

// FinishErasures carries through the erasures that were cut short, in the order in which they were asked for, and answers
// with how many. It does as many as it can: one that fails keeps none of the others.
func (s *Service) FinishErasures(ctx context.Context) (finished int, err error) {
	rows, err := s.db.Query(ctx, `SELECT subject, actor, proven FROM erasures WHERE done_at IS NULL ORDER BY requested_at`)
	if err != nil {
		return 0, fmt.Errorf("look for erasures: %w", err)
	}
	var pending []erasureWish
	for rows.Next() {
		var w erasureWish
		var version *int
		if err := rows.Scan(&w.user, &w.metadata.Actor, &version); err != nil {
			rows.Close()
			return 0, fmt.Errorf("look for erasures: %w", err)
		}
		w.metadata.Correlation = w.user
		if version != nil {
			w.proof = &proven{user: w.user, version: *version}
		}
		pending = append(pending, w)
	}
	rows.Close()
	if err := rows.Err(); err != nil {
		return 0, fmt.Errorf("look for erasures: %w", err)
	}
	var failed eventstore.Failures
	for _, w := range pending {
		_, err := s.carryThrough(ctx, w)
		if w.proof != nil && (errors.Is(err, ErrInvalidCredentials) || errors.Is(err, ErrUserLocked) || errors.Is(err, ErrUserDisabled)) {
			s.logger.WarnContext(ctx, "an erasure that was cut short is struck out: its user has to prove anew who asks for it",
				slog.String("user", w.user.String()), slog.Any("error", err))
			continue
		}
		if err == nil {
			finished++
		}
		if !failed.Add(ctx, err) {
			break
		}
	}
	if finished > 0 {
		s.logger.InfoContext(ctx, "carried erasures through that were cut short", slog.Int("erasures", finished))
	}
	return finished, failed.Err()
}

// ApplyLedger erases those who are erased according to the ledger and are not in this database, as after it was restored
// from a backup, and answers with them and with the position of the last. It is to be called before anything is answered
// or published, which must wait while it fails. It does as many as it can then: one that fails keeps none of the others.
func (s *Service) ApplyLedger(ctx context.Context) (again []uuid.UUID, last int64, err error) {
	if s.ledger == nil {
		return nil, 0, nil
	}
	list, err := s.ledger.Read()
	if err != nil {
		return nil, 0, err
	}
	var failed eventstore.Failures
	for len(list) > 0 {
		page := list[:min(len(list), ledgerPage)]
		list = list[len(page):]
		back, err := s.notErased(ctx, page)
		if err != nil {
			failed.Add(ctx, err)
			return again, last, failed.Err()
		}
		for _, e := range back {
			result, err := s.eraseAgain(ctx, e)
			if result.Position > 0 {
				again, last = append(again, e.User), max(last, result.Position)
			}
			if !failed.Add(ctx, err) {
				return again, last, failed.Err()
			}
		}
	}
	return again, last, failed.Err()
}

// eraseAgain erases who is in the ledger, and answers with where that is in the log, also where only what is noted of it failed.
func (s *Service) eraseAgain(ctx context.Context, e Erasure) (eventstore.Result, error) {
	w := erasureWish{user: e.User, metadata: eventstore.Metadata{Correlation: e.User, Actor: ActorSystem}}
	if err := s.noteErasure(ctx, w, e.At); err != nil {
		return eventstore.Result{}, err
	}
	result, err := s.forget(ctx, w)
	if err != nil {
		return eventstore.Result{}, fmt.Errorf("erase %s again, who is in the erasure ledger: %w", e.User, err)
	}
	return result, s.erasureDone(ctx, e.User)
}

const ledgerPage = 500

// notErased are those of some erasures whose users are in this database all the same.
func (s *Service) notErased(ctx context.Context, some []Erasure) (back []Erasure, err error) {
	ids := make([]uuid.UUID, len(some))
	of := make(map[uuid.UUID]Erasure, len(some))
	for i, e := range some {
		ids[i], of[e.User] = e.User, e
	}
	in, args := inList(ids)
	rows, err := s.db.Query(ctx, "SELECT stream FROM streams WHERE state <> 'erased' AND stream IN "+in, args...)
	if err != nil {
		return nil, fmt.Errorf("look for erased users: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var id uuid.UUID
		if err := rows.Scan(&id); err != nil {
			return nil, fmt.Errorf("look for erased users: %w", err)
		}
		back = append(back, of[id])
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("look for erased users: %w", err)
	}
	return back, nil
}

// CompleteLedger adds to the ledger whoever was erased without it: before there was one, or while another file was it.
func (s *Service) CompleteLedger(ctx context.Context) error {
	if s.ledger == nil {
		return nil
	}
	list, err := s.ledger.Read()
	if err != nil {
		return err
	}
	known := make(map[uuid.UUID]struct{}, len(list))
	for _, e := range list {
		known[e.User] = struct{}{}
	}
	rows, err := s.db.Query(ctx, `SELECT subject, done_at FROM erasures WHERE done_at IS NOT NULL ORDER BY done_at`)
	if err != nil {
		return fmt.Errorf("look for erasures: %w", err)
	}
	defer rows.Close()
	var missing []Erasure
	for rows.Next() {
		var e Erasure
		if err := rows.Scan(&e.User, &e.At); err != nil {
			return fmt.Errorf("look for erasures: %w", err)
		}
		if _, there := known[e.User]; !there {
			missing = append(missing, e)
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("look for erasures: %w", err)
	}
	if len(missing) == 0 {
		return nil
	}
	s.logger.InfoContext(ctx, "the erasure ledger lacked erasures, which are added", slog.Int("erasures", len(missing)))
	return s.ledger.Record(ctx, missing...)
}
