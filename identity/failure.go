package identity

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"usher.example/eventstore"
)

// failure is a failed attempt on a user's account that is to become a user.login_failed.
type failure struct {
	user     uuid.UUID
	reason   string
	metadata eventstore.Metadata
}

const (
	maxFailures = 1024 // that wait to be appended
	maxRecorded = 16   // that are appended at once
	// recordAfter is how long a failure waits before it is appended, with those that came meanwhile.
	recordAfter = 500 * time.Millisecond
	// recordTimeout bounds the append of one, also while the service stops.
	recordTimeout = 10 * time.Second
)

// failed counts a failure and answers with refusal, or with what kept it from being counted.
//
// The first few that the throttle lets through are recorded: no more than those, however long somebody tries, and none for
// an address that nobody has. They are handed over alike, and recorded a while after the answer was written, so that the time of
// the answer can't tell whether anybody has the address.
func (s *Service) failed(ctx context.Context, a *attempt, user uuid.UUID, reason string, m eventstore.Metadata, refusal error) error {
	count, err := a.failed(ctx, user)
	if err != nil {
		return err
	}
	if count > accountFree {
		return refusal
	}
	select {
	case s.failures <- failure{user, reason, m}:
	default:
		s.logger.WarnContext(ctx, "a failed login is not recorded: too many are waiting", slog.String("user", user.String()))
	}
	return refusal
}

// RecordFailures appends the failed attempts of this process's users to log in, until ctx ends; then it appends those that
// are waiting, and returns ctx's cause. One that can't be appended is logged.
func (s *Service) RecordFailures(ctx context.Context) error {
	var g errgroup.Group // they share commits
	g.SetLimit(maxRecorded)
	record := func(f failure) {
		if f.user == uuid.Nil {
			return
		}
		g.Go(func() error {
			s.recordFailure(context.WithoutCancel(ctx), f)
			return nil
		})
	}
	for ctx.Err() == nil {
		var first failure
		select {
		case first = <-s.failures:
		case <-ctx.Done():
			continue
		}
		waited := pause(ctx, recordAfter)
		record(first)
		for n := len(s.failures); n > 0 && waited == nil; n-- {
			record(<-s.failures)
		}
	}
	for {
		select {
		case f := <-s.failures:
			record(f)
		default:
			return errors.Join(g.Wait(), context.Cause(ctx))
		}
	}
}

func (s *Service) recordFailure(ctx context.Context, f failure) {
	ctx, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	stream, err := uuid.NewV7()
	if err == nil {
		_, err = s.log.Append(ctx, eventstore.Append{
			Stream:   eventstore.SessionStream(stream, f.user),
			Expected: eventstore.NoStream,
			Events:   newEvents([]Payload{LoginFailed{Reason: f.reason}}),
			Metadata: f.metadata,
		})
	}
	if err != nil && !erased(err) {
		s.logger.WarnContext(ctx, "a failed login is not recorded", slog.String("user", f.user.String()), slog.Any("error", err))
	}
}
