package publisher

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"usher.example/eventstore"
	"usher.example/eventstore/cloudevent"
)

// rebuild is the plan of a rebuild. It is written to the database before the stream is deleted and stays there until
// the last durable consumer is back, so that a rebuild which is cut short is finished at the next start.
type rebuild struct {
	Reason   string    `json:"reason"`
	Replaces time.Time `json:"replaces,omitzero"` // when the stream that is to be deleted was created
	First    int64     `json:"first"`
	Durables []durable `json:"durables"` // by ascending floor
}

// durable is a durable consumer of the stream: it has handled everything up to its floor.
type durable struct {
	Config jetstream.ConsumerConfig `json:"config"`
	Floor  int64                    `json:"floor"`
}

// holdFor is how long a consumer stays paused at most while it is put in its place.
const holdFor = 24 * time.Hour

// forGood is how long one stays paused that waits for its owner.
const forGood = 100 * 365 * 24 * time.Hour

// replaces says whether a stream is the one that the rebuild is to delete.
func (p *rebuild) replaces(info *jetstream.StreamInfo) bool { return info.Created.Equal(p.Replaces) }

// beginRebuild plans a rebuild of the stream that there is, and carries it out.
func (r *Relay) beginRebuild(ctx context.Context, reason error, info *jetstream.StreamInfo, head int64) (last eventstore.Anchor, err error) {
	r.Logger.Error("rebuilding the JetStream stream from the log", "reason", reason)
	first, err := r.firstOwed(ctx, head, 0)
	if err != nil {
		return last, err
	}
	if r.Stream.MaxBytes > 0 { // the server would discard what came before
		first = max(first, int64(info.State.FirstSeq))
	}
	durables, err := r.durables(ctx)
	if err == nil {
		err = r.setBackToFloors(ctx, info, head, durables)
	}
	if err != nil {
		return last, err
	}
	plan := &rebuild{Reason: reason.Error(), Replaces: info.Created, First: first, Durables: durables}
	if err := r.planRebuild(ctx, plan); err != nil {
		return last, err
	}
	return r.continueRebuild(ctx, plan, head)
}

// planRebuild writes a plan down, after which it will be carried out, whatever happens.
func (r *Relay) planRebuild(ctx context.Context, plan *rebuild) error {
	r.rebuilds.Add(1)
	for i := range plan.Durables {
		r.hold(&plan.Durables[i])
	}
	slices.SortStableFunc(plan.Durables, func(a, b durable) int { return int(a.Floor - b.Floor) })
	r.setState(StateRebuilding, nil)
	return r.putState(ctx, plan.First-1, StateRebuilding, plan.Reason, plan)
}

// hold pauses a durable consumer whose filter names the subjects of a user, which an earlier version had. No message
// comes under them any more, so it would pass over everything without a word; and the user's shard has the messages of
// others, which may be none of its service's business. So it stays where it is until its owner has decided: see
// [ConsumerReport].
func (r *Relay) hold(d *durable) {
	filters := d.Config.FilterSubjects
	if d.Config.FilterSubject != "" {
		filters = []string{d.Config.FilterSubject}
	}
	if !slices.ContainsFunc(filters, cloudevent.PerUser) {
		return
	}
	r.Logger.Error("a durable consumer filters by the subjects of a user, which there are no longer; it is paused where it is", "durable", d.Config.Durable)
	until := r.Now().Add(forGood).UTC().Truncate(time.Second)
	d.Config.PauseUntil = &until
	d.Config.Metadata = maps.Clone(d.Config.Metadata)
	if d.Config.Metadata == nil {
		d.Config.Metadata = map[string]string{}
	}
	d.Config.Metadata[cloudevent.MetadataPerUser] = "true"
}

// Intrudes says whether a consumer has the server send events to where requests and signals of usher's own go. The server does not hold
// what it delivers itself against anybody's permissions, so whoever may make a consumer could keep others from being answered.
func Intrudes(c jetstream.ConsumerConfig) bool {
	return strings.HasPrefix(c.DeliverSubject, "$") || strings.HasPrefix(c.DeliverSubject, "usher.")
}

// durables reads the durable consumers of the stream, and removes those that intrude. Others are their clients' to make again.
func (r *Relay) durables(ctx context.Context) ([]durable, error) {
	ctx, stop := context.WithTimeout(ctx, requestWait)
	defer stop()
	s, err := r.js.Stream(ctx, r.Stream.Name)
	if err != nil {
		return nil, fmt.Errorf("list durable consumers: %w", err)
	}
	var found []durable
	var intruders []*jetstream.ConsumerInfo
	list := s.ListConsumers(ctx)
	for info := range list.Info() {
		if Intrudes(info.Config) {
			intruders = append(intruders, info)
			continue
		}
		if info.Config.Durable != "" {
			found = append(found, durable{info.Config, int64(info.AckFloor.Stream)})
		}
	}
	if err := list.Err(); err != nil {
		return nil, fmt.Errorf("list durable consumers: %w", err)
	}
	for _, info := range intruders {
		r.Logger.Error("a consumer that delivers to where usher's own requests go is removed; find out who made it",
			"consumer", info.Name, "delivers_to", info.Config.DeliverSubject)
		if err := s.DeleteConsumer(ctx, info.Name); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
			return nil, fmt.Errorf("remove the consumer %s: %w", info.Name, err)
		}
	}
	return found, nil
}

// continueRebuild carries a rebuild out from wherever it stands, and answers with the stream's last event then. Each
// durable consumer is made again when the stream has been filled up to its floor: one that begins with new messages
// then begins in the right place by itself, and the others are reset to it.
func (r *Relay) continueRebuild(ctx context.Context, plan *rebuild, head int64) (last eventstore.Anchor, err error) {
	r.setState(StateRebuilding, nil)
	info, err := r.look(ctx)
	switch {
	case err == nil && plan.replaces(info):
		if err = r.deleteStream(ctx); err == nil {
			info, err = r.create(ctx, plan.First)
		}
	case errors.Is(err, jetstream.ErrStreamNotFound):
		info, err = r.create(ctx, plan.First)
	}
	if err == nil {
		last, err = r.Log.AnchorAt(ctx, int64(info.State.LastSeq))
	}
	if err != nil {
		return last, err
	}
	r.published.Store(last.Position)
	for _, d := range plan.Durables {
		if upTo := min(d.Floor, head); upTo > last.Position {
			if last, err = r.pump(ctx, last, upTo); err != nil {
				return last, err
			}
		}
		if err := r.restore(ctx, d); err != nil {
			return last, fmt.Errorf("restore the durable consumer %s: %w", d.Config.Durable, err)
		}
	}
	if err := r.putState(ctx, last.Position, StateRunning, "", nil); err != nil {
		return last, err
	}
	r.Logger.Info("the JetStream stream is rebuilt; what is left is published as usual", "published", last.Position, "head", head, "durables", len(plan.Durables))
	r.noticeServer()
	return last, nil
}

// restore makes a durable consumer again, to go on after its floor. It is paused meanwhile, so that no client gets a
// message too early; being paused is also what tells one whose restoring was cut short.
func (r *Relay) restore(ctx context.Context, d durable) error {
	ctx, stop := context.WithTimeout(ctx, requestWait)
	defer stop()
	s, err := r.js.Stream(ctx, r.Stream.Name)
	if err != nil {
		return err
	}
	done, err := r.restored(ctx, s, d)
	if err != nil || done {
		return err
	}
	held := d.Config
	until := r.Now().Add(holdFor).UTC()
	held.PauseUntil = &until
	// One that its client makes meanwhile is not taken over, but deleted: the client has to look at this one, and its mark.
	for again := true; again; again = errors.Is(err, jetstream.ErrConsumerExists) {
		if err := s.DeleteConsumer(ctx, d.Config.Durable); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
			return err
		}
		if d.Config.DeliverSubject != "" {
			_, err = s.CreatePushConsumer(ctx, held)
		} else {
			_, err = s.CreateConsumer(ctx, held)
		}
	}
	if err != nil {
		return err
	}
	switch d.Config.DeliverPolicy {
	case jetstream.DeliverAllPolicy, jetstream.DeliverByStartSequencePolicy, jetstream.DeliverByStartTimePolicy:
		// A consumer that never handled anything begins where its policy says.
		if d.Floor > 0 {
			if _, err := s.ResetConsumerToSequence(ctx, d.Config.Durable, uint64(d.Floor)+1); err != nil {
				return err
			}
		}
	}
	if d.Config.PauseUntil != nil && d.Config.PauseUntil.After(r.Now()) {
		_, err = s.PauseConsumer(ctx, d.Config.Durable, *d.Config.PauseUntil)
	} else {
		_, err = s.ResumeConsumer(ctx, d.Config.Durable)
	}
	return err
}

// restored says whether a durable consumer is in its place: not held by a restore that was cut short, and not made
// again by its client, in which case it begins too early, or lacks the mark that it was set back.
func (r *Relay) restored(ctx context.Context, s jetstream.Stream, d durable) (bool, error) {
	var (
		c interface {
			CachedInfo() *jetstream.ConsumerInfo
		}
		err error
	)
	if d.Config.DeliverSubject != "" {
		c, err = s.PushConsumer(ctx, d.Config.Durable)
	} else {
		c, err = s.Consumer(ctx, d.Config.Durable)
	}
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	info := c.CachedInfo()
	held := info.Paused && (d.Config.PauseUntil == nil || !d.Config.PauseUntil.Equal(*info.Config.PauseUntil))
	marked := info.Config.Metadata[cloudevent.MetadataSetBack] == d.Config.Metadata[cloudevent.MetadataSetBack]
	return !held && marked && int64(info.AckFloor.Stream) >= d.Floor, nil
}
