package mail

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"usher.example/eventstore"
	"usher.example/subscription"
)

const (
	// poll is how often the log's head is looked at, in case the stream says nothing of it.
	poll = time.Second
	// readBatch is how many events are read from the log at once.
	readBatch = 1000
)

// follow writes down which mails the events call for: from the stream, or from the log where the stream does not bring what
// the log has, or brings something else.
func (m *Mailer) follow(ctx context.Context) error {
	if err := m.keepWithin(ctx); err != nil {
		return err
	}
	for wait := time.Duration(0); ; {
		err := m.subscribe(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, eventstore.ErrForeign):
			m.logger.ErrorContext(ctx, "what calls for mails is read from the log", slog.Any("error", err))
			wait = min(max(2*wait, firstWait), lastWait)
		case errors.Is(err, subscription.ErrBehind):
			wait = 0
		default:
			return err
		}
		until := time.Now().Add(wait)
		for first := true; first || time.Now().Before(until); first = false {
			if err := m.catchUp(ctx); err != nil {
				return err
			}
			if err := eventstore.Pause(ctx, min(wait, poll)); err != nil {
				return err
			}
		}
	}
}

// keepWithin brings a checkpoint that is beyond the end of the log back to it: the log was restored from a backup, and the
// checkpoint was not.
func (m *Mailer) keepWithin(ctx context.Context) error {
	moved, err := m.DB.Exec(ctx, `UPDATE subscriptions SET checkpoint = (SELECT coalesce(max(position), 0) FROM events), updated_at = $2
		WHERE name = $1 AND checkpoint > (SELECT coalesce(max(position), 0) FROM events)`, name, m.now())
	if err != nil {
		return fmt.Errorf("look at the checkpoint: %w", err)
	}
	if moved > 0 {
		m.logger.WarnContext(ctx, "the checkpoint of mail was beyond the end of the log, as after a restore; it goes on from there")
	}
	return nil
}

// subscribe follows the stream. It fails with subscription.ErrBehind, or with eventstore.ErrForeign.
func (m *Mailer) subscribe(ctx context.Context) error {
	s := subscription.Subscription{
		JetStream:  m.JetStream,
		Name:       name,
		Checkpoint: m.checkpoint,
		Handle: func(ctx context.Context, events []eventstore.Event) error {
			err := m.handle(ctx, events)
			if errors.Is(err, eventstore.ErrForeign) {
				err = subscription.Final(err)
			}
			return err
		},
		BesideLog: true,
		Source:    m.Log,
		Personal:  true,
		Logger:    m.logger,
	}
	return s.RunBesideLog(ctx, m.Log.Head, poll, nil)
}

// catchUp handles what the log has after the checkpoint.
func (m *Mailer) catchUp(ctx context.Context) error {
	at, err := m.checkpoint(ctx)
	if err != nil {
		return fmt.Errorf("read the checkpoint: %w", err)
	}
	for {
		events, err := m.Log.ReadAll(ctx, at, readBatch)
		if err != nil || len(events) == 0 {
			return err
		}
		if err := m.handle(ctx, events); err != nil {
			return err
		}
		at = events[len(events)-1].Position
	}
}
