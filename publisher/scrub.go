package publisher

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/eventstore"
	"usher.example/eventstore/cloudevent"
)

const (
	// scrubBatch is how many messages are compared with the log at once.
	scrubBatch = 1000
	// scrubWait bounds the time without a message before the consumer is asked whether it has more.
	scrubWait = 500 * time.Millisecond
	// scrubStalls is how often in a row it may say that it has and then not deliver any.
	scrubStalls = 20
	// scrubBehind is how often a scrub waits for the replica that it reads from, which lacks what the leader has.
	scrubBehind = 20
	// maxListed bounds the positions that a report lists.
	maxListed = 100
)

// ScrubReport is what a scrub found.
type ScrubReport struct {
	First, Last int64         // the positions that were looked at
	Checked     int64         // messages that were there
	Missing     int64         // that are not, and ought to be
	Foreign     int64         // that are another event than the log has
	Misplaced   int64         // that are the log's event, and have another subject than it has
	Positions   []int64       // of the first hundred of all these
	At          time.Time     // when it began
	Took        time.Duration // how long it took
}

// Damaged says whether the stream has to be rebuilt: messages are gone, or under other subjects than they ought to be. Foreign
// ones are no damage: they belong to another history, and what subscribers made of them has to be taken back.
func (s ScrubReport) Damaged() bool { return (s.Missing > 0 || s.Misplaced > 0) && s.Foreign == 0 }

// found is what the relay has to do something about, if anything: ErrForeignStream or ErrDamaged.
func (s ScrubReport) found() error {
	switch {
	case s.Foreign > 0:
		return fmt.Errorf("%w: a scrub of positions %d to %d found messages that are not the log's: %d, and missing: %d, at %v. "+restoredHint,
			ErrForeignStream, s.First, s.Last, s.Foreign, s.Missing, s.Positions)
	case s.Damaged():
		return fmt.Errorf("%w: a scrub of positions %d to %d found messages that are missing: %d, and misplaced: %d, at %v", ErrDamaged,
			s.First, s.Last, s.Missing, s.Misplaced, s.Positions)
	}
	return nil
}

// Scrub reads the whole stream as a consumer does and compares it with the log: the server passes over a message whose
// checksum is wrong without a word, and its own account of the stream still counts it. In a cluster it reads from the one
// replica that serves its consumer. What is found missing makes this relay rebuild the stream, if it is running, and what is
// not the log's makes it halt, or follow; it is no error of Scrub.
func (r *Relay) Scrub(ctx context.Context) (ScrubReport, error) {
	report, err := r.scrub(ctx)
	if err != nil {
		return report, fmt.Errorf("scrub: %w", err)
	}
	r.lastScrub.Store(&report)
	if found := report.found(); found != nil {
		r.hasFound(found)
	}
	return report, nil
}

// LastScrub is the report of the last scrub that this relay finished; false before the first.
func (r *Relay) LastScrub() (ScrubReport, bool) {
	if report := r.lastScrub.Load(); report != nil {
		return *report, true
	}
	return ScrubReport{}, false
}

// keepScrubbing scrubs when the relay meets a server that it does not know, and every so often.
func (r *Relay) keepScrubbing(ctx context.Context) {
	if r.ScrubEvery < 0 {
		return
	}
	tick := time.NewTicker(r.ScrubEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.scrubWanted:
		case <-tick.C:
		}
		report, err := r.Scrub(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			r.Logger.Warn("the JetStream stream was not scrubbed", "error", err)
		case report.found() == nil:
			r.Logger.Info("scrubbed the JetStream stream", "messages", report.Checked, "took", report.Took)
		}
	}
}

// scrubbing is a scrub under way.
type scrubbing struct {
	*Relay
	report ScrubReport
	next   int64   // position
	gaps   []int64 // positions without a message, not yet judged
	// same says whether a message is the log's event at a position. Positions ascend from call to call.
	same func(ctx context.Context, position int64, m jetstream.Msg) (bool, error)
	// content is whether it needs the bodies of messages.
	content bool
}

// sameID compares the ids of events, which it reads in batches.
func (r *Relay) sameID() func(context.Context, int64, jetstream.Msg) (bool, error) {
	var (
		batch []uuid.UUID // ids of the log's events from base+1 on
		base  int64
	)
	return func(ctx context.Context, position int64, m jetstream.Msg) (bool, error) {
		if position > base+int64(len(batch)) {
			base = position - 1
			var err error
			if batch, err = r.eventIDs(ctx, base, base+scrubBatch); err != nil {
				return false, err
			}
		}
		i := position - base - 1
		return i < int64(len(batch)) && batch[i].String() == m.Headers().Get(cloudevent.HeaderID), nil
	}
}

func (r *Relay) scrub(ctx context.Context) (ScrubReport, error) {
	s := scrubbing{Relay: r, same: r.sameID()}
	report, err := s.run(ctx)
	if err != nil {
		return report, err
	}
	undead, err := s.undead(ctx)
	if err != nil {
		return report, err
	}
	for user, erased := range undead {
		r.Logger.Warn("messages of an erased user are in the stream, as after a crash of the broker; they are deleted again", "user", user)
		if err := r.forget(ctx, user, erased); err != nil {
			return report, err
		}
	}
	return report, nil
}

func (s *scrubbing) run(ctx context.Context) (ScrubReport, error) {
	began := time.Now()
	s.report.At = s.Now().UTC()
	info, err := s.look(ctx)
	if err != nil {
		return s.report, err
	}
	s.report.First, s.report.Last = max(int64(info.State.FirstSeq), 1), int64(info.State.LastSeq)
	s.next = s.report.First
	for waits := 0; ; waits++ {
		if err := s.readThrough(ctx); err != nil {
			return s.report, err
		}
		behind, err := s.behind(ctx)
		if err != nil {
			return s.report, err
		}
		if !behind || waits == scrubBehind {
			break
		}
		if err := eventstore.Pause(ctx, scrubWait); err != nil {
			return s.report, err
		}
	}
	for ; s.next <= s.report.Last; s.next++ { // nothing was left to read
		s.gaps = append(s.gaps, s.next)
	}
	if err := s.judge(ctx, info); err != nil {
		return s.report, err
	}
	s.report.Took = time.Since(began)
	return s.report, nil
}

// readThrough reads messages until the last, or until the consumer has no more.
func (s *scrubbing) readThrough(ctx context.Context) error {
	if s.next > s.report.Last {
		return nil
	}
	consumer, err := s.js.OrderedConsumer(ctx, s.Stream.Name, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:   uint64(s.next),
		HeadersOnly:   !s.content, // the server checks the checksum of the whole message all the same
	})
	if err != nil {
		return fmt.Errorf("make a consumer: %w", err)
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(scrubBatch))
	if err != nil {
		return fmt.Errorf("consume: %w", err)
	}
	defer messages.Stop()
	for stalls := 0; s.next <= s.report.Last; {
		m, err := messages.Next(jetstream.NextMaxWait(scrubWait))
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, nats.ErrTimeout):
			stalls++
			info, err := consumer.Info(ctx)
			if err == nil && info.NumPending == 0 {
				return nil
			}
			if stalls == scrubStalls {
				return fmt.Errorf("no message after position %d for %v", s.next-1, scrubStalls*scrubWait)
			}
			continue
		case err != nil:
			return fmt.Errorf("after position %d: %w", s.next-1, err)
		}
		stalls = 0
		meta, err := m.Metadata()
		if err != nil {
			return fmt.Errorf("after position %d: %w", s.next-1, err)
		}
		if err := s.check(ctx, int64(meta.Sequence.Stream), m); err != nil {
			return err
		}
		if meta.NumPending == 0 {
			return nil
		}
	}
	return nil
}

// behind says whether the stream's leader has one of the messages at the end that the consumer did not bring. In a cluster the
// replica that serves the consumer may not have them yet, which is no damage.
func (s *scrubbing) behind(ctx context.Context) (bool, error) {
	if s.next > s.report.Last {
		return false, nil
	}
	m, found, err := s.fetch(ctx, fmt.Sprintf(`{"seq":%d,"next_by_subj":">"}`, s.next))
	return found && m.position <= s.report.Last, err
}

func (s *scrubbing) check(ctx context.Context, position int64, m jetstream.Msg) error {
	if position < s.next || position > s.report.Last {
		return nil
	}
	for ; s.next < position; s.next++ {
		s.gaps = append(s.gaps, s.next)
	}
	s.next++
	s.report.Checked++
	same, err := s.same(ctx, position, m)
	switch {
	case err != nil:
		return err
	case !same:
		s.report.Foreign++
		s.list(position)
	case misplaced(m):
		s.report.Misplaced++
		s.list(position)
	}
	return nil
}

// misplaced says whether a message has another subject than its headers ask for.
func misplaced(m jetstream.Msg) bool {
	user, _ := uuid.Parse(m.Headers().Get(cloudevent.HeaderSubject)) // none stands for the nil UUID
	return m.Subject() != cloudevent.ShardSubject(cloudevent.Shard(user), m.Headers().Get(cloudevent.HeaderType))
}

// judge tells gaps that are damage from those of erased users, and from what the server discarded in the meantime.
func (s *scrubbing) judge(ctx context.Context, before *jetstream.StreamInfo) error {
	if len(s.gaps) == 0 && s.report.Foreign == 0 && s.report.Misplaced == 0 {
		return nil
	}
	now, err := s.look(ctx)
	if err != nil {
		return err
	}
	if !now.Created.Equal(before.Created) {
		return errors.New("the stream was made anew meanwhile")
	}
	// Aged messages go from the beginning. Where they can't, the beginning is not allowed to move either.
	first := int64(before.State.FirstSeq)
	if s.Stream.MaxAge > 0 || s.Stream.MaxBytes > 0 {
		first = int64(now.State.FirstSeq)
	}
	var gaps []int64
	for _, p := range s.gaps {
		if p >= first {
			gaps = append(gaps, p)
		}
	}
	lost, err := s.lost(ctx, gaps, len(gaps))
	if err != nil {
		return err
	}
	s.report.Missing = int64(len(lost))
	for _, p := range lost {
		s.list(p)
	}
	return nil
}

func (s *scrubbing) list(position int64) {
	if len(s.report.Positions) < maxListed {
		s.report.Positions = append(s.report.Positions, position)
	}
}
