package webhook

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity"
)

const (
	// parallel is how many requests are made to one endpoint at once, of as many users.
	parallel = 8
	// maxAhead bounds the deliveries of an endpoint that are on their way, or ready to be. Each is at most as large as an event.
	maxAhead = 32 * parallel
	// maxWindow bounds what was taken from the stream and not yet written down, most of which is settled.
	maxWindow = 16 * maxAhead
	// patience is how long a delivery holds up the checkpoint until it is stored as pending.
	patience = 250 * time.Millisecond
	// recordBatch and linger are how many outcomes are written down together, and how long the first of them waits for others
	// while requests are on their way.
	recordBatch = maxAhead
	linger      = 20 * time.Millisecond
	// saveEvery is how often the checkpoint is stored while no event comes that the webhook wants. What is looked at again
	// after a crash is passed over again.
	saveEvery = time.Second
	// lookahead is how many deliveries that are due are read at once.
	lookahead = 1000
	// freshFor is how old may be what is known of an event when it is sent: the user may have been erased since.
	freshFor = 500 * time.Millisecond
	// grace is how long requests that are on their way are waited for at the end.
	grace = 5 * time.Second
	// idle is how long the sender sleeps while nothing is due and nothing wakes it.
	idle = time.Minute
)

// sender sends the deliveries of an endpoint: those of its window, straight from the stream, and those that are stored and
// due. Only one of a user is on its way at a time.
//
// It makes decisions alone, in one goroutine, while workers make the requests. Those go on with what is queued while outcomes
// are written down and the next deliveries are made ready. An endpoint that is quick is kept busy with larger batches, which
// cost less each; one that is slow has no more made ready for it than is sent at once, and what the stream brings beyond that
// is stored as pending.
type sender struct {
	*endpoint
	queue    chan *parcel // has room for all that are on their way
	results  chan *parcel // too
	requests int          // that are queued or being made
	// onWay is the position of the delivery of each user that is on its way: from when it is queued until what came of it is
	// known or, where it has a row, written there.
	onWay map[uuid.UUID]int64
	ahead int // how many requests may be queued

	due    []*parcel // are stored and not on their way yet, as they were when they were read
	dueAt  time.Time // when more may be
	window window
	offer  *offer    // of which the window has not everything yet
	roomAt time.Time // when there was room for more

	known      []*parcel // have a row, and an outcome that is not written down yet
	unwritten  *batch    // that could not be written down
	recordedAt time.Time
	answers    int       // since then
	rests      time.Time // until when nothing is read, because that failed
}

// send sends what there is until ctx ends; then it waits a moment for what is on its way. It fails with errInactive after it
// has disabled the webhook, with errFenced, errMoved, eventstore.ErrForeign, or with ctx's cause.
func (e *endpoint) send(ctx context.Context) (err error) {
	s := sender{
		endpoint: e, queue: make(chan *parcel, maxAhead), results: make(chan *parcel, maxAhead), onWay: map[uuid.UUID]int64{}, ahead: parallel,
		window: newWindow(e.saved), roomAt: time.Now(), recordedAt: time.Now(),
	}
	requests, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	var workers sync.WaitGroup
	for range parallel {
		workers.Go(func() {
			for p := range s.queue {
				s.attempt(requests, p)
				p.unload()
				s.results <- p
			}
		})
	}
	for err == nil {
		err = s.round(ctx)
	}
	if errors.Is(err, errFenced) || errors.Is(context.Cause(ctx), errFenced) {
		cancel(errFenced)
	}
	err = errors.Join(err, s.finish(context.WithoutCancel(ctx), cancel))
	workers.Wait()
	return err
}

// round sends what there is and there is room for, waits for something to happen, and writes down what came of it.
func (s *sender) round(ctx context.Context) error {
	next, err := s.fill(ctx)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, errFenced):
		return err
	default:
		s.logger().WarnContext(ctx, "deliveries wait", slog.Any("error", err))
		s.rests = time.Now().Add(time.Second)
	}
	timer := time.NewTimer(next)
	defer timer.Stop()
	offers := s.offers
	if s.offer != nil {
		offers = nil
	}
	for more := true; more; {
		more = false
		select {
		case p := <-s.results:
			s.came(p)
			s.gather()
			more = s.busy()
		case s.offer = <-offers:
		case <-s.wake:
			s.dueAt = time.Time{}
		case <-timer.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if !s.ripe() {
		return nil
	}
	s.window.spill(patience)
	return s.settle(ctx)
}

// busy says that the workers have enough to do for a while, and that there is not much to be written down yet.
func (s *sender) busy() bool {
	return 2*len(s.queue) >= s.ahead && s.window.settled+len(s.known) < recordBatch
}

// fill makes ready what there is room for, what is stored first, and answers with how long it is until there may be more to do.
func (s *sender) fill(ctx context.Context) (next time.Duration, err error) {
	if rest := time.Until(s.rests); rest > 0 {
		return min(rest, s.pace()), nil
	}
	next, err = s.resume(ctx)
	if err == nil {
		err = s.admit(ctx)
	}
	return min(next, s.pace()), err
}

// pace is how long the sender may sleep although nothing happens.
func (s *sender) pace() time.Duration {
	switch {
	case len(s.window.parcels) > 0, len(s.known) > 0, s.offer != nil && !s.full():
		return linger
	case s.window.last != s.saved:
		return max(saveEvery-time.Since(s.savedAt), linger)
	}
	return idle
}

// free is how many more deliveries may be made ready: one at a time while the endpoint does nothing but fail.
func (s *sender) free() int {
	width := s.ahead
	if s.deadInARow.Load() >= int64(s.Service.FailuresInARow) {
		width = 1
	}
	return width - s.requests - s.window.waiting
}

// resume sends deliveries that are stored and due, and answers with how long it is until there are more than there were.
func (s *sender) resume(ctx context.Context) (next time.Duration, err error) {
	free := s.free()
	if free <= 0 {
		return idle, nil
	}
	if now := s.Service.now(); len(s.due) < free && !now.Before(s.dueAt) {
		if err := s.readDue(ctx, now); err != nil {
			return idle, err
		}
	}
	n := min(free, len(s.due))
	start := s.due[:n]
	if err := s.compose(ctx, start); err != nil {
		return idle, err
	}
	s.due = s.due[n:]
	for _, p := range start {
		s.start(p)
	}
	if s.dueAt.IsZero() { // once something is written down
		return idle, nil
	}
	return min(max(s.dueAt.Sub(s.Service.now()), 0), idle), nil
}

// readDue reads what is due and whose user has nothing on its way. Where that is something from the window, the user's dead
// letters were redriven beside it: they go before what is in the window.
func (s *sender) readDue(ctx context.Context, now time.Time) error {
	limit := len(s.onWay) + lookahead
	list, err := s.Service.readDue(ctx, s.id, limit)
	if err != nil {
		return err
	}
	s.due, s.dueAt = nil, now.Add(idle)
	if len(list) == limit {
		s.dueAt = time.Time{}
	}
	for _, p := range list {
		position, busy := s.onWay[p.subject]
		switch {
		case busy && position == p.position:
		case busy:
			s.window.hold(p.subject)
			s.dueAt = time.Time{}
		case p.at.After(now):
			s.dueAt = p.at
			return nil
		default:
			s.due = append(s.due, p)
		}
	}
	return nil
}

// admit takes events of the stream into the window, as many as there is room for, and sends those that need not wait. When
// there has been no room for a while, they are to be stored.
func (s *sender) admit(ctx context.Context) error {
	free := s.free()
	if free > 0 {
		s.roomAt = time.Now()
	}
	if s.offer == nil || s.full() {
		return nil
	}
	n := min(len(s.offer.events), maxWindow-len(s.window.parcels))
	late := time.Since(s.roomAt) > freshFor
	switch {
	case n == 0, late:
	case free >= n, 2*free >= s.ahead, free > 0 && len(s.queue) == 0:
		n = min(n, free)
	default: // so few at a time cost more each
		return nil
	}
	list := newParcels(s.offer.events[:n])
	users := map[uuid.UUID]standing{}
	if n > 0 && !late {
		var err error
		switch users, err = s.prepare(ctx, list); {
		case errors.Is(err, eventstore.ErrForeign):
			s.offer.taken <- err
			s.offer = nil
			return nil
		case err != nil:
			return err
		}
	}
	for _, p := range list {
		_, busy := s.onWay[p.subject]
		if s.window.add(p, late || users[p.subject].held, busy) {
			s.start(p)
		}
		s.window.last = p.place()
	}
	if s.offer.events = s.offer.events[n:]; len(s.offer.events) == 0 {
		s.window.last = s.offer.last
		s.offer.taken <- nil
		s.offer = nil
	}
	s.at.Store(s.window.last.position)
	return nil
}

// start sends a delivery as soon as a worker is free.
func (s *sender) start(p *parcel) {
	s.onWay[p.subject] = p.position
	s.requests++
	s.queue <- p
}

// gather takes the results that are there.
func (s *sender) gather() {
	for {
		select {
		case p := <-s.results:
			s.came(p)
		default:
			return
		}
	}
}

// came takes over what came of a delivery, and sends the next of its user that is in the window.
func (s *sender) came(p *parcel) {
	s.requests--
	s.answers++
	switch {
	case p.stale:
		s.ahead = parallel
		s.dueAt = time.Time{} // what is stored is read again
	case !p.cut:
		s.decide(p)
	}
	if p.stored && p.tried {
		s.known = append(s.known, p)
		return
	}
	delete(s.onWay, p.subject)
	if p.stored {
		return
	}
	if next := s.window.answered(p); next != nil {
		s.start(next)
	}
}

// ripe says whether it is time to write down what there is.
func (s *sender) ripe() bool {
	n := s.window.settled + len(s.known)
	switch {
	case n >= recordBatch:
		return true
	case n == 0 && len(s.window.parcels) == 0:
		return s.window.last != s.saved && time.Since(s.savedAt) >= saveEvery
	case s.requests == 0 && s.offer == nil:
		return true
	}
	return time.Since(s.recordedAt) >= linger
}

// settle writes down what can be, and tries that until it succeeds, ctx ends or the webhook is passed on. What could not be
// written is kept for finish.
func (s *sender) settle(ctx context.Context) error {
	if s.unwritten == nil {
		fresh, to := s.window.ready(s.saved)
		s.unwritten = &batch{to: to, fresh: fresh, known: s.known}
		s.known = nil
		// What was taken since the last time may be taken again, and more.
		s.ahead = min(max(2*s.answers, s.ahead/2, parallel), maxAhead)
		s.recordedAt, s.answers = time.Now(), 0
	}
	b := *s.unwritten
	if b.to == s.saved && len(b.known) == 0 {
		s.unwritten = nil
		return nil
	}
	for wait := firstWait; ; wait = min(2*wait, lastWait) {
		v, err := s.record(ctx, b)
		switch {
		case err == nil:
			s.written(b)
			return s.judge(ctx, b, v)
		case errors.Is(err, errFenced), errors.Is(err, eventstore.ErrForeign), errors.Is(err, errMoved):
			return err
		}
		s.logger().WarnContext(ctx, "what came of deliveries is not written; trying again", slog.Any("error", err))
		if err := eventstore.Pause(ctx, wait); err != nil {
			return err
		}
	}
}

// written takes note that a batch was written down. What is on its way has a row from now on, where it had none.
func (s *sender) written(b batch) {
	s.unwritten = nil
	s.window.written(b.fresh)
	s.untrimmed.Add(int64(len(b.fresh) + len(b.known)))
	changed := len(b.known) > 0
	for _, p := range b.known {
		delete(s.onWay, p.subject)
	}
	for _, p := range b.fresh {
		p.stored = true
		changed = changed || p.status == DeliveryPending
	}
	if changed {
		s.dueAt = time.Time{}
	}
}

// judge disables the webhook where that is what the endpoint wants, or deserves.
func (s *sender) judge(ctx context.Context, b batch, v verdict) error {
	for _, list := range [][]*parcel{b.fresh, b.known} {
		for _, p := range list {
			if p.tried && p.gone() {
				return s.disable(ctx, identity.WebhookGone)
			}
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
	s.window.holdAll()
	for range len(s.queue) {
		select {
		case p := <-s.queue:
			p.stale = true
			s.came(p)
		default: // a request was begun with it meanwhile
		}
	}
	close(s.queue)
	timer := time.AfterFunc(grace, func() { cancel(errors.New("shutting down")) })
	defer timer.Stop()
	for s.requests > 0 {
		s.came(<-s.results)
	}
	ctx, stop := context.WithTimeout(ctx, grace)
	defer stop()
	var err error
	if s.unwritten != nil {
		err = s.settle(ctx)
	}
	if err == nil || errors.Is(err, errInactive) {
		s.window.cut(s.saved)
		err = s.settle(ctx)
	}
	if errors.Is(err, errInactive) {
		err = nil
	}
	return err
}
