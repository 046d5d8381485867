package publisher

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"usher.example/eventstore"
	"usher.example/eventstore/cloudevent"
)

// resync makes the stream a prefix of the log, if it is not one, and answers with its last event, after which the
// relay goes on. It decides like this:
//
//	a reset is asked for                       do it, whatever the row says
//	the row says halted                        ErrHalted: nothing is touched, unless restores are to be followed
//	a rebuild was begun, or is asked for       do it
//	there is no stream                         create it, to begin at the first event that it has to have
//	last sequence above the log's head         ErrHalted, ErrStreamAhead; or follow
//	another event than the log has, at its     ErrHalted, ErrForeignStream; or follow
//	end or where a scrub has found it
//	its subjects name users, not shards        rebuild: an earlier version published it
//	messages missing at its beginning, inside  rebuild; those of erased users are not missed
//	last sequence below the cursor             the end was lost: say so; it is published again
func (r *Relay) resync(ctx context.Context) (last eventstore.Anchor, err error) {
	r.resyncs.Add(1)
	found, err := r.load(ctx)
	if err != nil {
		return last, err
	}
	if err := r.adopt(found); err != nil {
		return last, err
	}
	// The stream first: the log only grows, so a head that is read later can't be too low.
	info, err := r.look(ctx)
	if err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return last, err
	}
	head, err := r.Log.Head(ctx)
	if err != nil {
		return last, err
	}
	r.head.Store(head)

	switch {
	case found.reset:
		return r.reset(ctx, found, info, head)
	case found.rebuild != nil && (info == nil || found.rebuild.replaces(info)):
		return r.continueRebuild(ctx, found.rebuild, head)
	case info == nil:
		return r.begin(ctx, head)
	}
	last, reason, err := r.compare(ctx, info, head)
	if err == nil && reason != nil && found.rebuild == nil {
		err = r.ours(ctx, info, head)
	}
	switch {
	case errors.Is(err, ErrHalted) && r.FollowRestores:
		return r.followRestore(ctx, found, info, head, err)
	case errors.Is(err, ErrHalted):
		return last, r.halt(ctx, found, err)
	case err != nil:
		return last, err
	case found.rebuild != nil:
		return r.continueRebuild(ctx, found.rebuild, head)
	case reason != nil:
		return r.beginRebuild(ctx, reason, info, head)
	}
	r.configure(ctx, info)
	if cursor := r.published.Load(); last.Position < cursor {
		r.tailsLost.Add(1)
		r.Logger.Error("the JetStream stream lost its end, which is published again", "last", last.Position, "published", cursor)
	}
	r.published.Store(last.Position)
	r.noticeServer()
	return last, nil
}

// ours fails with ErrHalted and ErrForeignStream where a stream that is to be rebuilt has messages that are not the log's: to
// replace them without a word would leave subscribers with what did not happen.
func (r *Relay) ours(ctx context.Context, info *jetstream.StreamInfo, head int64) error {
	s, err := r.survey(ctx, info, head)
	if err != nil || s.voided == 0 {
		return err
	}
	return fmt.Errorf("%w: %w: %d of its messages are not the log's, the first after position %d. "+restoredHint, ErrHalted, ErrForeignStream, s.voided, s.fork)
}

// halt writes down why the relay touches nothing any more, and answers with that.
func (r *Relay) halt(ctx context.Context, found row, reason error) error {
	return errors.Join(reason, r.putState(ctx, found.published, StateHalted, reason.Error(), found.rebuild))
}

// begin creates the stream where there is none.
func (r *Relay) begin(ctx context.Context, head int64) (last eventstore.Anchor, err error) {
	first, err := r.firstOwed(ctx, head, 0)
	if err == nil {
		last, err = r.Log.AnchorAt(ctx, first-1)
	}
	if err != nil {
		return last, err
	}
	if cursor := r.published.Load(); cursor > 0 {
		r.tailsLost.Add(1)
		r.Logger.Error("the JetStream stream is gone; it is made again", "published", cursor, "first", first)
	}
	if _, err := r.create(ctx, first); err != nil {
		return last, err
	}
	r.published.Store(last.Position)
	r.noticeServer()
	return last, nil
}

// compare looks for what can't be mended by publishing on, and answers with the event at the stream's last sequence. It fails
// with ErrHalted where the stream is not this log's. A reason to rebuild the stream wraps ErrDamaged.
func (r *Relay) compare(ctx context.Context, info *jetstream.StreamInfo, head int64) (at eventstore.Anchor, reason, err error) {
	at, reason, err = r.compareEnd(ctx, info, head)
	if reason != nil || err != nil {
		return at, reason, err
	}
	switch found := r.takeFound(); {
	case errors.Is(found, ErrForeignStream):
		return at, nil, fmt.Errorf("%w: %w", ErrHalted, found)
	case found != nil:
		return at, found, nil
	}
	if outgrown, err := r.perUser(ctx); err != nil || outgrown != nil {
		return at, outgrown, err
	}
	missing, err := r.missing(ctx, info, head)
	if err == nil {
		missing, err = r.lost(ctx, missing, 1)
	}
	if err != nil {
		return at, nil, err
	}
	if len(missing) > 0 {
		return at, fmt.Errorf("%w: messages are missing, the first at %d", ErrDamaged, missing[0]), nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.accounted = accountOf(info)
	return at, nil, nil
}

// restoredHint says what may have happened where stream and log do not belong together.
const restoredHint = "Was the log restored from a backup, did its database give way to a standby that lacked its newest events, or is it " +
	"the wrong database or broker?"

// compareEnd is compare of the stream's end.
func (r *Relay) compareEnd(ctx context.Context, info *jetstream.StreamInfo, head int64) (at eventstore.Anchor, reason, err error) {
	last := int64(info.State.LastSeq)
	if last > head {
		return at, nil, fmt.Errorf("%w: %w: its last sequence is %d, the log's head is %d. "+restoredHint, ErrHalted, ErrStreamAhead, last, head)
	}
	if info.State.Msgs > 0 {
		m, there, err := r.fetchAt(ctx, last)
		if err == nil && !there {
			var missed []int64
			if missed, err = r.lost(ctx, []int64{last}, 1); err == nil && len(missed) > 0 {
				return at, fmt.Errorf("%w: its last message, at %d, can't be read", ErrDamaged, last), nil
			}
			if err == nil {
				m, there, err = r.fetchLast(ctx, cloudevent.SubjectPrefix+">")
			}
		}
		if err != nil {
			return at, nil, err
		}
		if there {
			if at, err = r.agrees(ctx, m); err != nil {
				return at, nil, err
			}
			if at.Position == last {
				return at, nil, nil
			}
		}
	}
	at, err = r.Log.AnchorAt(ctx, last) // the message was purged, with its user
	return at, nil, err
}

// agrees answers with the event of a message, if the log has it at the same position. It fails with ErrForeignStream, and
// with ErrHalted, where not.
func (r *Relay) agrees(ctx context.Context, m message) (eventstore.Anchor, error) {
	ids, err := r.eventIDs(ctx, m.position-1, m.position)
	if err != nil {
		return eventstore.Anchor{}, err
	}
	if len(ids) != 1 || ids[0].String() != m.id {
		return eventstore.Anchor{}, fmt.Errorf("%w: %w: at position %d it has event %q, which is not the log's. "+restoredHint,
			ErrHalted, ErrForeignStream, m.position, m.id)
	}
	return eventstore.Anchor{Position: m.position, ID: ids[0]}, nil
}

// perUser answers with a reason to rebuild a stream whose subjects are those of an earlier version. Every event of a user
// or a session is about a user, and this version publishes nothing before it has looked here, so the last of each kind
// stands for all: also where relays of both versions took turns.
func (r *Relay) perUser(ctx context.Context) (reason, err error) {
	for _, kind := range []eventstore.Kind{eventstore.KindUser, eventstore.KindSession} {
		m, there, err := r.fetchLast(ctx, cloudevent.SubjectPrefix+"*."+string(kind)+".>")
		if err != nil {
			return nil, err
		}
		if there && cloudevent.PerUser(m.subject) {
			return fmt.Errorf("%w: its subjects are those of an earlier version, of which each user had some, the last at %d", ErrDamaged, m.position), nil
		}
	}
	return nil, nil
}

// missing lists the positions up to the stream's last sequence that it does not have although it should, but for erased
// users. At its beginning only what is younger than the maximum age is missed, and nothing where its size is limited.
func (r *Relay) missing(ctx context.Context, info *jetstream.StreamInfo, head int64) ([]int64, error) {
	state := info.State
	first, last := int64(state.FirstSeq), int64(state.LastSeq)
	r.mu.Lock()
	known := r.accounted.of(info)
	r.mu.Unlock()
	if known {
		return nil, nil
	}
	var missing []int64
	if r.Stream.MaxBytes <= 0 {
		owed, err := r.firstOwed(ctx, head, ageSlack)
		if err != nil {
			return nil, err
		}
		// A stream may have been made under a shorter maximum age than there is now.
		for p := max(owed, int64(info.Config.FirstSeq)); p < min(first, last+1); p++ {
			missing = append(missing, p)
		}
	}
	if state.NumDeleted > 0 {
		ctx, stop := context.WithTimeout(ctx, detailWait) // it is a long list where many users were erased
		defer stop()
		s, err := r.js.Stream(ctx, r.Stream.Name)
		if err != nil {
			return nil, fmt.Errorf("look at the stream: %w", err)
		}
		detailed, err := s.Info(ctx, jetstream.WithDeletedDetails(true))
		if err != nil {
			return nil, fmt.Errorf("look at the stream: %w", err)
		}
		for _, p := range detailed.State.Deleted {
			missing = append(missing, int64(p))
		}
	}
	return missing, nil
}

// detailWait bounds the wait for the list of what is missing inside the stream.
const detailWait = time.Minute

// takeFound answers with what a scrub found, once.
func (r *Relay) takeFound() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	found := r.found
	r.found = nil
	return found
}

// noticeServer asks for a scrub when the connection is to another server than before, or to one that restarted: what a
// crash did to its files shows only when they are read.
func (r *Relay) noticeServer() {
	id := r.Conn.ConnectedServerId()
	r.mu.Lock()
	defer r.mu.Unlock()
	if id == "" || id == r.server {
		return
	}
	r.server = id
	select {
	case r.scrubWanted <- struct{}{}:
	default:
	}
}
