package identity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

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
