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

// sweepInterval is how often what is past its time is looked for. Nothing depends on it: what has expired is refused
// from that moment on, and this only makes it known.
const sweepInterval = 10 * time.Minute

// Sweep ends what is past its time, once in an interval however many processes run it, until ctx ends; then it returns
// its cause. holder names this process among them. What fails is logged and tried again at the next turn.
func (s *Service) Sweep(ctx context.Context, holder string) error {
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		if err := s.sweepInTurn(ctx, holder); err != nil && ctx.Err() == nil {
			s.logger.WarnContext(ctx, "what is past its time was not all ended; trying again", slog.Any("error", err))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// sweepInTurn sweeps if it is this process's turn. The lease is not renewed: it lasts for the interval, and so whoever gets it is
// the one for this turn. It is another one each time, since nothing goes on from one turn to the next, whatever became of the
// database.
func (s *Service) sweepInTurn(ctx context.Context, holder string) error {
	turn := &eventstore.Lease{DB: s.db, Name: "sweep", Holder: holder, TTL: sweepInterval - time.Second}
	if mine, err := turn.Acquire(ctx); err != nil || !mine {
		return err
	}
	ended, expired := s.ExpireSessions(ctx)
	if ended > 0 {
		s.logger.InfoContext(ctx, "ended sessions that are over", slog.Int("sessions", ended))
	}
	_, unfinished := s.FinishErasures(ctx)
	return errors.Join(expired, unfinished, s.dropExpiredCodes(ctx), s.dropSpentKeys(ctx), s.throttle.dropForgotten(ctx),
		s.dropUnconfirmed(ctx), s.dropUnusedDevices(ctx), s.dropDeviceRequests(ctx), s.forgetCommands(ctx))
}

// commandsKept is for how long a command id is answered as the first time.
const commandsKept = 7 * 24 * time.Hour

// forgetBatch bounds the commands that one statement removes: an append that waits for it does not wait long.
const forgetBatch = 1000

// forgetSome finds what it removes by commands_recorded, an index that is there for it.
const forgetSome = `DELETE FROM commands WHERE command_id IN (
	SELECT command_id FROM commands WHERE recorded_at < $1 ORDER BY recorded_at LIMIT $2)`

// forgetCommands removes what commands of long ago were answered with.
func (s *Service) forgetCommands(ctx context.Context) error {
	for removed := int64(forgetBatch); removed == forgetBatch; {
		var err error
		if removed, err = s.db.Exec(ctx, forgetSome, s.now().UTC().Add(-commandsKept), forgetBatch); err != nil {
			return fmt.Errorf("forget old commands: %w", err)
		}
	}
	return nil
}

// ExpireSessions ends the sessions that are past their limits, and those that the user's own stream has ended, and
// answers with how many. It reads every session's row, a page at a time. One that can't be ended, or whose user can't be read,
// keeps none of the others: see [eventstore.Failures].
func (s *Service) ExpireSessions(ctx context.Context) (ended int, err error) {
	var after uuid.UUID
	var failed eventstore.Failures
	for {
		page, err := s.sessionPage(ctx, after)
		if err != nil {
			failed.Add(ctx, err)
			return ended, failed.Err()
		}
		for _, row := range page {
			after = row.id
			over, err := s.expire(ctx, row)
			if !failed.Add(ctx, err) {
				return ended, failed.Err()
			}
			if over {
				ended++
			}
		}
		if len(page) < expiryPage {
			return ended, failed.Err()
		}
	}
}

// expire ends a session if it is over, and says whether it did.
func (s *Service) expire(ctx context.Context, row sessionRow) (ended bool, err error) {
	over, err := s.sessionOver(ctx, row)
	if err != nil {
		return false, fmt.Errorf("look whether session %s is over: %w", row.id, err)
	}
	if over == "" {
		return false, nil
	}
	m := eventstore.Metadata{Correlation: row.id, Actor: ActorSystem}
	_, err = s.endWithGrants(ctx, row, m, nil, SessionEnded{Reason: over})
	return err == nil, err
}

const expiryPage = 1000

func (s *Service) sessionPage(ctx context.Context, after uuid.UUID) ([]sessionRow, error) {
	return s.sessionUses(ctx, `WHERE session_id > $1 ORDER BY session_id LIMIT $2`, after, expiryPage)
}

// sessionUses are the rows of some sessions, with no more than what tells whether each is over: see sessionColumns.
func (s *Service) sessionUses(ctx context.Context, which string, args ...any) (list []sessionRow, err error) {
	rows, err := s.db.Query(ctx, sessionColumns+which, args...)
	if err != nil {
		return nil, fmt.Errorf("read sessions: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var r sessionRow
		var client *string
		if err := rows.Scan(&r.id, &r.user, &r.counter, &r.started, &r.expiresAt, &r.rotated, &r.orphaned, &client); err != nil {
			return nil, fmt.Errorf("read sessions: %w", err)
		}
		if client != nil {
			r.grant = &Grant{Client: *client}
		}
		list = append(list, r)
	}
	return list, rows.Err()
}

// sessionOver says why a session is over, "" where it goes on. One that was idle for too long when its row was read may have been
// refreshed since, or a grant under it; once it is when the row is read, no refresh of it succeeds any more.
func (s *Service) sessionOver(ctx context.Context, row sessionRow) (reason string, err error) {
	if !s.goesOn(row) {
		now, err := s.sessionUses(ctx, `WHERE session_id = $1`, row.id)
		if err != nil || len(now) == 0 {
			return "", err
		}
		if row = now[0]; !s.goesOn(row) {
			return EndedExpired, nil
		}
	}
	if row.orphaned {
		return EndedRevoked, nil
	}
	u, err := s.User(ctx, row.user)
	switch {
	case errors.Is(err, ErrNotFound):
		return EndedErased, nil
	case err != nil:
		return "", err
	case u.hasRow(row):
		return "", nil
	case u.Status == StatusLocked:
		return EndedLocked, nil
	case u.Status == StatusDisabled:
		return EndedDisabled, nil
	}
	return EndedRevoked, nil
}
