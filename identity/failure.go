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

// failure is a failed attempt on somebody's account, of which something follows once it has been answered: it becomes a
// user.login_failed, or has the user mailed.
type failure struct {
	user     uuid.UUID
	reason   string
	email    Email // that was registered, for reasonTaken
	metadata eventstore.Metadata
}

// The reasons of failures that become no user.login_failed, beside the methods of those that do.
const (
	reasonUnverified = "email_not_verified" // the password was right: the code is mailed again
	reasonTaken      = "email_taken"        // by a registration: who has the address is told
)

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
	s.handOver(ctx, failure{user: user, reason: reason, metadata: m})
	return refusal
}

// handOver has a failure dealt with once it has been answered.
func (s *Service) handOver(ctx context.Context, f failure) {
	select {
	case s.failures <- f:
	default:
		s.logger.WarnContext(ctx, "a failed login is not recorded: too many are waiting", slog.String("user", f.user.String()))
	}
}

// RecordFailures appends what follows the failed attempts on this process's users, until ctx ends; then it appends what
// is waiting, and returns ctx's cause. One that can't be appended is logged.
func (s *Service) RecordFailures(ctx context.Context) error {
	var g errgroup.Group // they share commits
	g.SetLimit(maxRecorded)
	record := func(f failure) {
		if f.user == uuid.Nil && f.reason != reasonTaken {
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
		waited := eventstore.Pause(ctx, recordAfter)
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
	var err error
	switch f.reason {
	case reasonUnverified:
		_, err = s.askFor(ctx, f.user, uuid.Nil, f.metadata, requestVerification)
	case reasonTaken:
		if f.user, err = s.reservedBy(ctx, reserveEmail(f.email)); err == nil && f.user != uuid.Nil {
			_, err = s.askFor(ctx, f.user, uuid.Nil, f.metadata, registerAgain)
		}
	default:
		err = s.appendFailure(ctx, f)
	}
	var refusal *Error // there was a mail a short while ago, or the user is not to be mailed
	if err != nil && !erased(err) && !errors.As(err, &refusal) {
		s.logger.WarnContext(ctx, "a failed login is not recorded", slog.String("user", f.user.String()), slog.Any("error", err))
	}
}

func (s *Service) appendFailure(ctx context.Context, f failure) error {
	stream, err := uuid.NewV7()
	if err != nil {
		return err
	}
	_, err = s.log.Append(ctx, eventstore.Append{
		Stream:   eventstore.SessionStream(stream, f.user),
		Expected: eventstore.NoStream,
		Events:   newEvents([]Payload{LoginFailed{Reason: f.reason}}),
		Metadata: f.metadata,
	})
	return err
}
