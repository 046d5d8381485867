package webhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"usher/eventstore"
	"usher/eventstore/cloudevent"
	"usher/identity"
)

const (
	// parallel is how many requests are made to one endpoint at once, of as many users.
	parallel = 8
	// grace is how long requests that are on their way are waited for at the end.
	grace = 5 * time.Second
	// idle is how long the sender sleeps while nothing is due and nothing wakes it.
	idle = time.Minute
)

// result is what came of one delivery.
type result struct {
	due
	answer
	at  time.Time
	err error // nothing came of it: the event could not be read
}

// sender sends the deliveries of an endpoint that are due. Only one of a user is on its way at a time, because only one has
// a time.
type sender struct {
	*endpoint
	onWay     map[int64]bool // positions
	results   chan result    // has room for all that are on their way
	unwritten []result       // what came of deliveries and is not written down yet
}

// send sends what is due until ctx ends; then it waits a moment for what is on its way. It fails with errInactive after it
// has disabled the webhook, with errFenced, or with ctx's cause.
func (e *endpoint) send(ctx context.Context) (err error) {
	s := sender{endpoint: e, onWay: map[int64]bool{}, results: make(chan result, parallel)}
	requests, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	for {
		err = s.round(ctx, requests)
		if err != nil {
			break
		}
	}
	if errors.Is(err, errFenced) || errors.Is(context.Cause(ctx), errFenced) {
		cancel(errFenced)
	}
	return errors.Join(err, s.finish(context.WithoutCancel(ctx), cancel))
}

// round starts what is due and there is room for, and waits for something to happen.
func (s *sender) round(ctx, requests context.Context) error {
	next, err := s.fill(ctx, requests)
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		s.logger().WarnContext(ctx, "deliveries wait", slog.Any("error", err))
		next = time.Second
	}
	timer := time.NewTimer(next)
	defer timer.Stop()
	select {
	case r := <-s.results:
		return s.settle(ctx, s.gather(r))
	case <-s.wake:
	case <-timer.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// width is how many requests may be on their way: one while the endpoint does nothing but fail.
func (s *sender) width() int {
	if s.deadInARow.Load() >= int64(s.Service.FailuresInARow) {
		return 1
	}
	return parallel
}

// fill starts what is due, up to the width, and answers with how long it is until more may be.
func (s *sender) fill(ctx, requests context.Context) (next time.Duration, err error) {
	free := s.width() - len(s.onWay)
	if free <= 0 {
		return idle, nil
	}
	list, err := s.Service.readDue(ctx, s.id, len(s.onWay)+free+1)
	if err != nil {
		return 0, err
	}
	now := s.Service.now()
	for _, d := range list {
		switch {
		case s.onWay[d.position]:
		case d.at.After(now):
			return min(d.at.Sub(now), idle), nil
		case free == 0:
			return idle, nil
		default:
			free--
			s.onWay[d.position] = true
			go func() { s.results <- s.deliver(requests, d) }()
		}
	}
	return idle, nil
}

// deliver makes one attempt.
func (s *sender) deliver(ctx context.Context, d due) result {
	r := result{due: d, at: s.Service.now()}
	event, m, err := s.compose(ctx, d)
	switch {
	case err == nil:
		parent, end := event.StartSpan(s.Tracer, "deliver "+event.Type)
		m.traceParent = parent
		r.answer = s.Service.client.send(ctx, m)
		end(r.failure())
	case ctx.Err() != nil || errors.Is(err, eventstore.ErrUnavailable):
		r.err = err
	default: // trying again for ever would hold the user's later events back for ever
		s.logger().ErrorContext(ctx, "event can't be sent", slog.Int64("position", d.position), slog.Any("error", err))
		r.reason = "the event can't be read from the log"
	}
	return r
}

// compose reads the event and makes the message. A user who was erased by now has no key any more, whatever key is still in
// memory: so it is looked up each time.
func (s *sender) compose(ctx context.Context, d due) (eventstore.Event, message, error) {
	log := s.Service.Log
	if d.isUser {
		log.Sealer().Forget(d.subject)
	}
	events, err := log.ReadAll(ctx, d.position-1, 1)
	if err == nil && len(events) == 0 {
		err = eventstore.ErrGap
	}
	if err != nil {
		return eventstore.Event{}, message{}, fmt.Errorf("read the event at %d: %w", d.position, err)
	}
	t := s.target.Load()
	m, err := newMessage(t.url, t.keys, cloudevent.Structured(events[0], s.Service.encoding()))
	return events[0], m, err
}

// gather adds the results that are there to a first one.
func (s *sender) gather(first result) []result {
	list := []result{first}
	for {
		select {
		case r := <-s.results:
			list = append(list, r)
		default:
			return list
		}
	}
}

// settle writes down what came of deliveries, and tries that until it succeeds, ctx ends or the webhook is passed on. What
// could not be written is kept for finish.
func (s *sender) settle(ctx context.Context, list []result) error {
	for _, r := range list {
		delete(s.onWay, r.position)
		switch {
		case r.err != nil && ctx.Err() == nil:
			s.logger().WarnContext(ctx, "delivery waits", slog.Int64("position", r.position), slog.Any("error", r.err))
			if err := pause(ctx, firstWait); err != nil {
				return err
			}
		case r.err == nil && !r.cut:
			s.unwritten = append(s.unwritten, r)
		}
	}
	for wait := firstWait; len(s.unwritten) > 0; wait = min(2*wait, lastWait) {
		v, err := s.record(ctx, s.unwritten)
		switch {
		case err == nil:
			known := s.unwritten
			s.unwritten = nil
			return s.judge(ctx, known, v)
		case errors.Is(err, errFenced):
			return err
		}
		s.logger().WarnContext(ctx, "what came of deliveries is not written; trying again", slog.Any("error", err))
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
	return nil
}

// judge disables the webhook where that is what the endpoint wants, or deserves.
func (s *sender) judge(ctx context.Context, list []result, v verdict) error {
	for _, r := range list {
		if r.gone() {
			return s.disable(ctx, identity.WebhookGone)
		}
	}
	if v.hopeless {
		return s.disable(ctx, identity.WebhookFailing)
	}
	return nil
}

// finish waits for what is on its way, and writes down what came of it. What is cut off is sent again, by whoever works on
// the webhook next.
func (s *sender) finish(ctx context.Context, cancel context.CancelCauseFunc) error {
	timer := time.AfterFunc(grace, func() { cancel(errors.New("shutting down")) })
	defer timer.Stop()
	var last []result
	for range len(s.onWay) {
		last = append(last, <-s.results)
	}
	ctx, stop := context.WithTimeout(ctx, grace)
	defer stop()
	err := s.settle(ctx, last)
	if errors.Is(err, errInactive) {
		err = nil
	}
	return err
}
