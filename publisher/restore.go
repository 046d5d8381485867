package publisher

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/eventstore"
	"usher.example/eventstore/cloudevent"
)

// followRestore makes the stream a copy of the log again that has what the log does not have any more. It fails with ErrHalted
// where the two have nothing in common: then one of them is the wrong one.
func (r *Relay) followRestore(ctx context.Context, found row, info *jetstream.StreamInfo, head int64, reason error) (eventstore.Anchor, error) {
	s, err := r.survey(ctx, info, head)
	if err != nil {
		return eventstore.Anchor{}, err
	}
	if s.same == 0 {
		return eventstore.Anchor{}, r.halt(ctx, found, fmt.Errorf("%w; %w", reason, ErrNothingCommon))
	}
	r.Logger.Error("the log was restored, or its database gave way to one that lacks its newest events; the JetStream stream follows it",
		"reason", reason, "fork", s.fork, "last", s.last, "void", s.voided)
	return r.replace(ctx, found, info, head, s, "restored")
}

// reset makes the stream anew from the log, whatever is in it.
func (r *Relay) reset(ctx context.Context, found row, info *jetstream.StreamInfo, head int64) (last eventstore.Anchor, err error) {
	r.Logger.Warn("resetting: the JetStream stream is made anew from the log")
	s := survey{fork: head, last: head}
	if info != nil {
		if s, err = r.survey(ctx, info, head); err != nil {
			return last, err
		}
	}
	return r.replace(ctx, found, info, head, s, "reset")
}

// replace makes the stream anew from the log, and appends to it, before anything else, what subscribers have to know of the
// events that they were given and that are void. Durable consumers are kept, also those of a rebuild that this one replaces,
// but none goes on after the fork.
func (r *Relay) replace(ctx context.Context, found row, info *jetstream.StreamInfo, head int64, s survey, reason string) (last eventstore.Anchor, err error) {
	r.takeFound()
	plan := &rebuild{Reason: reason}
	if plan.First, err = r.firstOwed(ctx, head, 0); err != nil {
		return last, err
	}
	if info != nil {
		plan.Replaces = info.Created
		if plan.Durables, err = r.durables(ctx); err != nil {
			return last, err
		}
	}
	if found.rebuild != nil {
		if plan.Durables, err = r.takeOver(ctx, found.rebuild, plan.Durables); err != nil {
			return last, err
		}
	}
	if s.voided > 0 {
		for i := range plan.Durables {
			plan.Durables[i].setBack(s.fork)
		}
		if head, err = r.tell(ctx, info, s); err != nil {
			return last, err
		}
		r.restores.Add(1)
	}
	if err := r.planRebuild(ctx, plan); err != nil {
		return last, err
	}
	// The plan is written down by now, so an order to reset is not needed any more. It is gone before the stream is touched.
	if _, err := r.DB.Exec(ctx, "DELETE FROM relay_orders WHERE stream = $1", r.Stream.Name); err != nil {
		return last, fmt.Errorf("take the order back: %w", err)
	}
	return r.continueRebuild(ctx, plan, head)
}

// takeOver answers with the durable consumers of a rebuild that was cut short and of the stream that it left. Those that the
// rebuild had not put in their place are as its plan has them: the stream's may be held, or begin at the beginning.
func (r *Relay) takeOver(ctx context.Context, cut *rebuild, there []durable) ([]durable, error) {
	ctx, stop := context.WithTimeout(ctx, requestWait)
	defer stop()
	for _, d := range cut.Durables {
		i := slices.IndexFunc(there, func(t durable) bool { return t.Config.Durable == d.Config.Durable })
		if i < 0 {
			there = append(there, d)
			continue
		}
		s, err := r.js.Stream(ctx, r.Stream.Name)
		if err != nil {
			return nil, fmt.Errorf("take the rebuild's durable consumers over: %w", err)
		}
		done, err := r.restored(ctx, s, d)
		if err != nil {
			return nil, fmt.Errorf("take the durable consumer %s over: %w", d.Config.Durable, err)
		}
		if !done {
			there[i] = d
		}
	}
	return there, nil
}

// setBack makes a consumer that has read further than a position go on after it, and leaves it a mark. One whose
// acknowledgements go no further gets the mark too: what they do not cover its owner may have handled all the same.
func (d *durable) setBack(fork int64) {
	d.Floor = min(d.Floor, fork)
	d.Config.Metadata = maps.Clone(d.Config.Metadata)
	if d.Config.Metadata == nil {
		d.Config.Metadata = map[string]string{}
	}
	d.Config.Metadata[cloudevent.MetadataSetBack] = strconv.FormatInt(fork, 10)
}

// survey is how far the stream is a copy of the log, and what is in it that is not the log's.
type survey struct {
	fork   int64 // up to here stream and log are the same
	last   int64 // sequence of the stream
	same   int64 // messages that are the log's events
	voided int64 // messages that are not
	void   []eventstore.VoidEvent
}

// survey reads the whole stream. Two logs that are copies of one another agree up to some position and nowhere after it; but a
// stream may have been filled by one after the other.
func (r *Relay) survey(ctx context.Context, info *jetstream.StreamInfo, head int64) (survey, error) {
	found := survey{last: int64(info.State.LastSeq)}
	found.fork = min(found.last, head)
	first := max(int64(info.State.FirstSeq), 1)
	agreed, same := first-1, r.sameID()
	s := scrubbing{Relay: r, next: first, report: ScrubReport{First: first, Last: found.last}}
	s.same = func(ctx context.Context, position int64, m jetstream.Msg) (is bool, err error) {
		if position <= head {
			if is, err = same(ctx, position, m); err != nil {
				return false, err
			}
		}
		if is {
			found.same++
			if found.voided == 0 {
				agreed = position
			}
			return true, nil
		}
		found.fork = min(found.fork, agreed)
		found.voided++
		if e, err := cloudevent.Decode(m.Headers(), []byte("{}")); err == nil && len(found.void) < eventstore.MaxVoid {
			void := eventstore.VoidEvent{Position: position, ID: e.ID, Type: e.Type, Stream: e.Stream.ID, Subject: cloudevent.Shard(uuid.Nil)}
			if e.Stream.Subject != uuid.Nil {
				void.Subject = e.Stream.Subject.String()
			}
			found.void = append(found.void, void)
		}
		return false, nil
	}
	if err := s.readThrough(ctx); err != nil {
		return found, fmt.Errorf("compare the stream with the log: %w", err)
	}
	return found, nil
}

// tell appends to the log which events that had been published are void, once for each stream that had them, and answers with
// the log's head then.
func (r *Relay) tell(ctx context.Context, info *jetstream.StreamInfo, s survey) (head int64, err error) {
	parts := max((len(s.void)+eventstore.MaxVoidPart-1)/eventstore.MaxVoidPart, 1)
	for part := range parts {
		from := part * eventstore.MaxVoidPart
		void := s.void[from:min(from+eventstore.MaxVoidPart, len(s.void))]
		content := eventstore.Restored{Fork: s.fork, Last: s.last, Voided: s.voided, Part: part + 1, Parts: parts, Void: append([]eventstore.VoidEvent{}, void...)}
		data, err := json.Marshal(content)
		if err != nil {
			return 0, fmt.Errorf("tell of a restore: %w", err)
		}
		command := uuid.NewSHA1(restoreNamespace, fmt.Appendf(nil, "%s %d %d %d %d", r.Stream.Name, info.Created.UnixNano(), s.fork, s.last, part))
		result, err := r.Log.Append(ctx, eventstore.Append{
			Stream: eventstore.LogStream(), Expected: eventstore.AnyVersion, CommandID: command,
			Events:   []eventstore.NewEvent{{Type: eventstore.TypeRestored, Data: data}},
			Metadata: eventstore.Metadata{Correlation: command, Actor: "system"},
		})
		if err != nil {
			return 0, fmt.Errorf("tell of a restore: %w", err)
		}
		head = result.Position
	}
	return head, nil
}

var restoreNamespace = uuid.MustParse("9a0f3c0e-4a0e-5f3b-8d0a-2d6f6f5b1c11")
