package webhook

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"usher/eventstore"
	"usher/eventstore/cloudevent"
	"usher/identity"
)

const (
	// parallel is how many requests are made to one endpoint at once, of as many users.
	parallel = 8
	// maxAhead bounds the deliveries of an endpoint that are on their way, or ready to be, or taken and not yet written
	// down. Each is at most as large as an event.
	maxAhead = 16 * parallel
	// lookahead is how many deliveries that are due are read at once.
	lookahead = 1000
	// freshFor is how old may be what was read of an event when it is sent: the user may have been erased since.
	freshFor = 500 * time.Millisecond
	// grace is how long requests that are on their way are waited for at the end.
	grace = 5 * time.Second
	// idle is how long the sender sleeps while nothing is due and nothing wakes it.
	idle = time.Minute
)

// ready is a delivery that is made ready to be sent.
type ready struct {
	due
	event eventstore.Event
	message
	err  error // it can't be, which is what comes of it
	read time.Time
}

// result is what came of one delivery.
type result struct {
	due
	answer
	at  time.Time
	err error // nothing came of it: the event could not be read, or it was read too long ago
}

// errStale: what was read of an event is too old to be sent.
var errStale = errors.New("read too long ago")

// sender sends the deliveries of an endpoint that are due. Only one of a user is on its way at a time, because only one has
// a time.
//
// While a batch of results is written down and the next deliveries are read, requests go on with those that are ready. An
// endpoint that is quick is kept busy with larger batches, which cost less each; one that is slow has no more read for it
// than is sent at once.
type sender struct {
	*endpoint
	due       []due          // that are not on their way yet, as they were when they were read
	onWay     map[int64]bool // positions, from when the event is read until what came of the delivery is known
	ahead     int            // how many may be
	queue     chan ready     // has room for all that are on their way
	results   chan result    // too
	unwritten []result       // what came of deliveries and is not written down yet
}

// send sends what is due until ctx ends; then it waits a moment for what is on its way. It fails with errInactive after it
// has disabled the webhook, with errFenced, or with ctx's cause.
func (e *endpoint) send(ctx context.Context) (err error) {
	s := sender{
		endpoint: e, onWay: map[int64]bool{}, ahead: parallel, queue: make(chan ready, maxAhead), results: make(chan result, maxAhead),
	}
	requests, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	var workers sync.WaitGroup
	for range parallel {
		workers.Go(func() {
			for r := range s.queue {
				s.results <- s.deliver(requests, r)
			}
		})
	}
	for {
		err = s.round(ctx)
		if err != nil {
			break
		}
	}
	if errors.Is(err, errFenced) || errors.Is(context.Cause(ctx), errFenced) {
		cancel(errFenced)
	}
	err = errors.Join(err, s.finish(context.WithoutCancel(ctx), cancel))
	workers.Wait()
	return err
}

// round makes ready what is due and there is room for, and waits for something to happen.
func (s *sender) round(ctx context.Context) error {
	next, err := s.fill(ctx)
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
		list := s.gather(r)
		// What was taken since the last time may be taken again, and more.
		s.ahead = min(max(2*len(list), s.ahead/2, parallel), maxAhead)
		return s.settle(ctx, list)
	case <-s.wake:
	case <-timer.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// width is how many deliveries may be on their way: one while the endpoint does nothing but fail.
func (s *sender) width() int {
	if s.deadInARow.Load() >= int64(s.Service.FailuresInARow) {
		return 1
	}
	return s.ahead
}

// fill makes ready what is due, up to the width, and answers with how long it is until more may be.
func (s *sender) fill(ctx context.Context) (next time.Duration, err error) {
	free := s.width() - len(s.onWay)
	if free <= 0 {
		return idle, nil
	}
	start, next, err := s.take(ctx, free)
	if err != nil || len(start) == 0 {
		return next, err
	}
	made, err := s.compose(ctx, start)
	if err != nil {
		return 0, err
	}
	for _, r := range made {
		s.onWay[r.position] = true
		s.queue <- r
	}
	return next, nil
}

// take takes at most n deliveries that are due, and answers with how long it is until there are more than there were.
func (s *sender) take(ctx context.Context, n int) (start []due, next time.Duration, err error) {
	next = idle
	if len(s.due) < n {
		list, err := s.Service.readDue(ctx, s.id, len(s.onWay)+lookahead)
		if err != nil {
			return nil, 0, err
		}
		s.due = nil
		now := s.Service.now()
		for _, d := range list {
			if s.onWay[d.position] {
				continue
			}
			if d.at.After(now) {
				next = min(d.at.Sub(now), idle)
				break
			}
			s.due = append(s.due, d)
		}
	}
	n = min(n, len(s.due))
	start, s.due = s.due[:n], s.due[n:]
	return start, next, nil
}

// compose reads the events of deliveries and makes the messages. A user who was erased by now has no key any more, whatever
// key is still in memory: so it is looked up each time. It fails where nothing can be read now; an event that can't be read
// at all fails alone.
func (s *sender) compose(ctx context.Context, list []due) ([]ready, error) {
	slices.SortFunc(list, func(a, b due) int { return cmp.Compare(a.position, b.position) })
	log, read := s.Service.Log, time.Now()
	positions := make([]int64, len(list))
	for i, d := range list {
		positions[i] = d.position
		if d.isUser {
			log.Sealer().Forget(d.subject)
		}
	}
	events, err := log.ReadAt(ctx, positions)
	switch {
	case err == nil:
	case ctx.Err() != nil || errors.Is(err, eventstore.ErrUnavailable):
		return nil, err
	case len(list) == 1:
		return []ready{{due: list[0], err: err}}, nil
	default:
		var made []ready
		for _, d := range list {
			one, err := s.compose(ctx, []due{d})
			if err != nil {
				return nil, err
			}
			made = append(made, one...)
		}
		return made, nil
	}
	t, encoding := s.target.Load(), s.Service.encoding()
	made := make([]ready, len(list))
	for i, d := range list {
		made[i] = ready{due: d, event: events[i], read: read}
		made[i].message, made[i].err = newMessage(t.url, t.keys, cloudevent.Structured(events[i], encoding))
	}
	return made, nil
}

// deliver makes one attempt.
func (s *sender) deliver(ctx context.Context, m ready) result {
	r := result{due: m.due, at: s.Service.now()}
	switch {
	case m.err != nil: // trying again for ever would hold the user's later events back for ever
		s.logger().ErrorContext(ctx, "event can't be sent", slog.Int64("position", m.position), slog.Any("error", m.err))
		r.reason = "the event can't be read from the log"
	case time.Since(m.read) > freshFor:
		r.err = errStale
	default:
		parent, end := m.event.StartSpan(s.Tracer, "deliver "+m.event.Type)
		m.message.traceParent = parent
		r.answer = s.Service.client.send(ctx, m.message)
		end(r.failure())
	}
	return r
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
		case r.err != nil: // it is read again
			s.ahead = parallel
		case !r.cut:
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

// finish waits for the requests that are on their way, and writes down what came of them. What is cut off, or was only made
// ready, is sent by whoever works on the webhook next.
func (s *sender) finish(ctx context.Context, cancel context.CancelCauseFunc) error {
	for range len(s.queue) {
		select {
		case r := <-s.queue:
			delete(s.onWay, r.position)
		default: // a request was begun with it meanwhile
		}
	}
	close(s.queue)
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
