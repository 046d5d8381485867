package subscription

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"usher.example/eventstore/cloudevent"
)

// lookEvery is the time between looks at how the durable consumer is set up.
const lookEvery = 5 * time.Second

// wanted is how the durable consumer of a subscription is set up, on the base of the one that there is: what is no concern
// of the subscription's stays.
func wanted(base jetstream.ConsumerConfig, subjects []string) jetstream.ConsumerConfig {
	base.AckPolicy = jetstream.AckAllPolicy
	base.ReplayPolicy = jetstream.ReplayInstantPolicy
	base.MaxDeliver = -1
	base.FilterSubject, base.FilterSubjects = "", subjects
	base.HeadersOnly = false
	base.MaxRequestBatch, base.MaxRequestExpires, base.MaxRequestMaxBytes = 0, 0, 0
	return base
}

// Drift names everything about a durable consumer that is not as a subscription with a filter sets it up, or with none:
// "field is x, wanted y". Somebody changed it; a subscription that runs sets it right.
func Drift(c jetstream.ConsumerConfig, subjects ...string) (list []string) {
	if c.FilterSubject != "" { // one is told in either way
		c.FilterSubject, c.FilterSubjects = "", []string{c.FilterSubject}
	}
	have, want := reflect.ValueOf(c), reflect.ValueOf(wanted(c, subjects))
	for i := range have.NumField() {
		a, b := have.Field(i), want.Field(i)
		if a.Kind() == reflect.Slice && a.Len() == 0 && b.Len() == 0 || reflect.DeepEqual(a.Interface(), b.Interface()) {
			continue
		}
		list = append(list, fmt.Sprintf("%s is %v, wanted %v", have.Type().Field(i).Name, a.Interface(), b.Interface()))
	}
	return list
}

// consumer finds or makes the durable consumer and sees to it that it goes on right after the position.
func (l *loop) consumer(ctx context.Context) (jetstream.Consumer, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	l.fresh = false
	c, err := l.JetStream.Consumer(ctx, l.stream(), l.Name)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		c, err = l.create(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("durable consumer: %w", err)
	}
	info := c.CachedInfo()
	if err := l.checkSetBack(info); err != nil {
		return nil, err
	}
	drift := Drift(info.Config, l.Subjects...)
	if len(drift) > 0 {
		if c, err = l.mend(ctx, c, drift); err != nil {
			return nil, err
		}
	}
	if len(drift) == 0 && info.NumAckPending == 0 && info.AckFloor.Stream == uint64(l.position) && info.Delivered.Stream == uint64(l.position) {
		l.fresh = true
		return c, nil
	}
	if _, err := l.JetStream.ResetConsumerToSequence(ctx, l.stream(), l.Name, uint64(l.position)+1); err != nil {
		// It is not lost: what was delivered and not acknowledged comes again, only later.
		l.logger().WarnContext(ctx, "durable consumer not set back", "to", l.position, slog.Any("error", err))
		return c, nil
	}
	if err := l.wasThatOne(ctx, info); err != nil {
		return nil, err
	}
	l.fresh = true
	return c, nil
}

// wasThatOne fails where another durable consumer took the place of the one that was to be set, before it was: they are told apart by
// nothing but their name, so the other was set. If that one says that the log was restored, its acknowledgements tell no more how
// far it was set back for that, and what it says counts as it stands.
func (l *loop) wasThatOne(ctx context.Context, was *jetstream.ConsumerInfo) error {
	c, err := l.JetStream.Consumer(ctx, l.stream(), l.Name)
	if err != nil {
		return fmt.Errorf("durable consumer: %w", err)
	}
	is := c.CachedInfo()
	if is.Created.Equal(was.Created) {
		return nil
	}
	is.AckFloor = jetstream.SequenceInfo{}
	if err := l.checkSetBack(is); err != nil {
		return err
	}
	return fmt.Errorf("%w: another took its place", errChanged)
}

func (l *loop) create(ctx context.Context) (jetstream.Consumer, error) {
	return l.JetStream.CreateConsumer(ctx, l.stream(), wanted(jetstream.ConsumerConfig{
		Durable:       l.Name,
		AckWait:       ackWait,
		MaxAckPending: 4 * l.maxBatch(),
		// From the beginning, because a consumer can't be set back below where it was made to begin.
		DeliverPolicy: jetstream.DeliverAllPolicy,
	}, l.Subjects))
}

// mend sets the durable consumer right: what the old filter passed over, or came without its body, comes only if it is set
// back after that. What the server never changes makes it anew, where the checkpoint is all that counts.
func (l *loop) mend(ctx context.Context, c jetstream.Consumer, drift []string) (jetstream.Consumer, error) {
	is := c.CachedInfo().Config
	if is.AckPolicy != jetstream.AckAllPolicy && !l.BesideLog {
		return nil, fmt.Errorf("durable consumer %s does not acknowledge all: it was not made for a subscription", l.Name)
	}
	l.logger().WarnContext(ctx, "the durable consumer is not as it was made; it is set right", "drift", drift)
	if is.AckPolicy != jetstream.AckAllPolicy || is.ReplayPolicy != jetstream.ReplayInstantPolicy && l.BesideLog {
		if err := l.JetStream.DeleteConsumer(ctx, l.stream(), l.Name); err != nil {
			return nil, fmt.Errorf("delete the durable consumer, to make it anew: %w", err)
		}
		made, err := l.create(ctx)
		if err != nil {
			return nil, fmt.Errorf("make the durable consumer anew: %w", err)
		}
		return made, nil
	}
	want := wanted(is, l.Subjects)
	want.ReplayPolicy = is.ReplayPolicy
	if _, held := is.Metadata[cloudevent.MetadataPerUser]; held {
		if _, err := l.JetStream.ResumeConsumer(ctx, l.stream(), l.Name); err != nil {
			return nil, fmt.Errorf("resume the durable consumer: %w", err)
		}
		want.PauseUntil = nil
		delete(want.Metadata, cloudevent.MetadataPerUser)
	}
	mended, err := l.JetStream.UpdateConsumer(ctx, l.stream(), want)
	switch {
	case err == nil:
		return mended, nil
	case !slices.Equal(filterOf(is), l.Subjects) || is.HeadersOnly:
		return nil, fmt.Errorf("set the durable consumer right: %w", err)
	}
	l.logger().WarnContext(ctx, "the durable consumer stays as it is", slog.Any("error", err)) // slower, perhaps, and complete
	return c, nil
}

var errChanged = errors.New("somebody changed the durable consumer")

// watch fails once the durable consumer is set up in another way than when the session began: nothing else would tell that
// it brings no more what it ought to.
func (l *loop) watch(ctx context.Context, c jetstream.Consumer) error {
	before := Drift(c.CachedInfo().Config, l.Subjects...)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		ask, cancel := context.WithTimeout(ctx, apiTimeout)
		now, err := l.JetStream.Consumer(ask, l.stream(), l.Name)
		cancel()
		if err != nil { // the pull notices what that means
			continue
		}
		if !now.CachedInfo().Created.Equal(c.CachedInfo().Created) {
			return fmt.Errorf("%w: another took its place", errChanged)
		}
		if drift := Drift(now.CachedInfo().Config, l.Subjects...); !slices.Equal(drift, before) {
			return fmt.Errorf("%w: %v", errChanged, drift)
		}
	}
}

// checkSetBack fails with a *RestoredError where the consumer was set back behind the checkpoint because the log was restored.
// Once the subscription has gone on from there, the mark that is left says nothing any more: the consumer's acknowledgements
// tell, and in this process the loop remembers. Where a process died before the first of them arrived, what it handled has to be
// taken back for nothing, which does no harm; the other way round would.
func (l *loop) checkSetBack(info *jetstream.ConsumerInfo) error {
	mark, marked := info.Config.Metadata[cloudevent.MetadataSetBack]
	if !marked || l.BesideLog || info.Created.Equal(l.accepted) {
		return nil
	}
	after, err := strconv.ParseInt(mark, 10, 64)
	if err != nil {
		return fmt.Errorf("durable consumer: metadata %s: %w", cloudevent.MetadataSetBack, err)
	}
	if l.position > after && int64(info.AckFloor.Stream) <= after {
		return &RestoredError{After: after, Checkpoint: l.position}
	}
	l.accepted = info.Created
	return nil
}

// stillTheSame looks at the consumer again where a batch shows that it was made anew, or set, since the session began: its own
// numbers begin anew then, or it brings what was handled already. It fails as checkSetBack does.
func (l *loop) stillTheSame(ctx context.Context, batch []message) error {
	anew := false
	for _, m := range batch {
		handled := m.position <= l.position && !l.looked
		l.looked = l.looked || handled // once in a session: it may be a redelivery as well
		anew = anew || m.given <= l.given || handled
		l.given = m.given
	}
	if !anew || l.BesideLog {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	c, err := l.JetStream.Consumer(ctx, l.stream(), l.Name)
	if err != nil {
		return fmt.Errorf("durable consumer: %w", err)
	}
	return l.checkSetBack(c.CachedInfo())
}

func filterOf(c jetstream.ConsumerConfig) []string {
	if c.FilterSubject != "" {
		return []string{c.FilterSubject}
	}
	return c.FilterSubjects
}
