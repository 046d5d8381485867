package subscription

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/semaphore"

	"usher.example/eventstore"
	"usher.example/eventstore/cloudevent"
)

// loop is a Subscription while it runs. It lives through sessions, each of which begins at the checkpoint and ends with
// an error: no error is mended in place.
type loop struct {
	*Subscription
	position int64 // of the last event handed over and handled
	handled  int   // batches
	fresh    bool  // the consumer was set to position, and nothing has come since
	jump     jump
	versions *versions
	accepted time.Time // when the consumer was made whose mark of a restore says nothing more, since this loop began before it
	given    uint64    // the consumer's number of the last message that came in this session
	looked   bool      // at the consumer in this session, since it brought what was handled already

	last           message // handled, and not acknowledged yet
	unacknowledged int
	reported       struct {
		handled int
		text    string
	}
}

const (
	apiTimeout = 5 * time.Second
	ackWait    = 30 * time.Second
	expiry     = 30 * time.Second // of a pull; the next is sent before
	heartbeat  = 5 * time.Second  // two missed ones end the session
	pullBytes  = 2 << 20          // of a pull; up to three are in memory
	// roomBytes bounds the messages that are decoded and not handled yet, so that a batch of large ones is a small one.
	roomBytes   = 4 << 20
	besidesData = 512
)

var (
	// errReconnected: the connection was lost and is back. What was on its way is lost.
	errReconnected = errors.New("reconnected")
	// errJump: a message is missing that may only be lost on its way.
	errJump = errors.New("a message is missing")
)

// jump is a gap in what the consumer brings, of which it is not known yet whether the stream has it too.
type jump struct {
	after, next int64
	since       time.Time // when it was seen first
	seen        int       // how often it came first from a consumer set to the position before it
}

// certainJumps is how often a jump is seen before it is taken for a gap: something else may hold messages of the
// consumer for a while.
const certainJumps = 3

// message is an event as it came from the stream.
type message struct {
	jetstream.Msg
	position int64
	given    uint64 // the consumer's own number of the message
	event    eventstore.Event
	unusable bool // the event is to be read from the source
}

// session hands events over from the checkpoint on, until something fails.
func (l *loop) session(ctx context.Context) error {
	conn := l.JetStream.Conn()
	status := conn.StatusChanged(nats.CONNECTED, nats.CLOSED)
	defer conn.RemoveStatusListener(status)
	if err := connected(ctx, conn, status); err != nil {
		return err
	}
	position, err := l.Checkpoint(ctx)
	if err != nil {
		return fmt.Errorf("read the checkpoint: %w", err)
	}
	l.position, l.last, l.unacknowledged, l.given, l.looked = position, message{}, 0, 0, false
	consumer, err := l.consumer(ctx)
	if err != nil {
		return err
	}
	return l.follow(ctx, consumer, status)
}

// follow hands over what the durable consumer brings, until something fails. Then nothing is in hand any more.
func (l *loop) follow(ctx context.Context, consumer jetstream.Consumer, status <-chan nats.Status) error {
	ctx, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel()
	p := pulled{messages: make(chan message, l.maxBatch()), room: semaphore.NewWeighted(roomBytes), failed: make(chan error, 1)}
	stop, err := l.pull(ctx, consumer, &p)
	if err != nil {
		return fmt.Errorf("pull: %w", err)
	}
	defer func() {
		cancel()
		stop()
	}()
	watch.Go(func() {
		if err := l.watch(ctx, consumer); err != nil {
			p.fail(err)
		}
	})

	batch := make([]message, 0, l.maxBatch())
	for {
		select {
		case m := <-p.messages:
			batch = gather(append(batch[:0], m), p.messages)
			err := l.take(ctx, batch)
			for _, m := range batch {
				p.room.Release(weight(m))
			}
			clear(batch)
			if err != nil || len(p.messages) == 0 || l.unacknowledged >= l.maxBatch() {
				err = errors.Join(err, l.acknowledge())
			}
			if err != nil {
				return err
			}
		case err := <-p.failed:
			return fmt.Errorf("pull: %w", err)
		case s := <-status:
			if s == nats.CLOSED {
				return Final(nats.ErrConnectionClosed)
			}
			return errReconnected
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// pulled is what was pulled and is not handled yet.
type pulled struct {
	messages chan message
	room     *semaphore.Weighted // for more of them
	failed   chan error          // why no more come; the first that is known
}

func (p *pulled) fail(err error) {
	select {
	case p.failed <- err:
	default:
	}
}

// pull has the consumer bring messages. stop, which is called once ctx has ended, ends that, and waits for what is in hand.
func (l *loop) pull(ctx context.Context, consumer jetstream.Consumer, p *pulled) (stop func(), err error) {
	var inHand sync.Mutex // nats.go says that a pull is closed while a message may still be, see findings/jetstream-closed-while-handling.sh
	pull, err := consumer.Consume(func(m jetstream.Msg) {
		inHand.Lock()
		defer inHand.Unlock()
		if ctx.Err() != nil {
			return
		}
		// It waits for room here, and so bounds the memory: no more is pulled meanwhile than was asked for.
		if p.room.Acquire(ctx, weight(m)) != nil {
			return
		}
		select {
		case p.messages <- l.decode(ctx, m):
		case <-ctx.Done():
		}
	},
		jetstream.PullMaxMessagesWithBytesLimit(2*l.maxBatch(), pullBytes),
		jetstream.PullExpiry(expiry), jetstream.PullHeartbeat(heartbeat),
		jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) { p.fail(err) }),
	)
	if err != nil {
		return nil, err
	}
	return func() {
		pull.Stop()
		<-pull.Closed()
		inHand.Lock() // and nothing is taken in hand any more, since ctx has ended
		defer inHand.Unlock()
	}, nil
}

// weight is about what a message has in memory, with the event that it is decoded to.
func weight(m jetstream.Msg) int64 { return min(2*int64(len(m.Data()))+besidesData, roomBytes) }

// report logs why a session ended, unless the one before it ended in the same way and nothing was handled since.
func (l *loop) report(ctx context.Context, err error) {
	if l.reported.handled == l.handled && l.reported.text == err.Error() {
		return
	}
	l.reported.handled, l.reported.text = l.handled, err.Error()
	if errors.Is(err, errReconnected) || errors.Is(err, jetstream.ErrStreamNotFound) { // the relay makes it
		l.logger().InfoContext(ctx, "subscription begins anew", slog.Any("error", err))
		return
	}
	l.logger().WarnContext(ctx, "subscription begins anew", slog.Any("error", err))
}

// connected waits until the connection is there.
func connected(ctx context.Context, conn *nats.Conn, status <-chan nats.Status) error {
	for !conn.IsConnected() {
		if conn.IsClosed() {
			return Final(nats.ErrConnectionClosed)
		}
		select {
		case <-status:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// gather adds what is there already to a batch, up to its capacity.
func gather(batch []message, messages <-chan message) []message {
	for len(batch) < cap(batch) {
		select {
		case m := <-messages:
			batch = append(batch, m)
		default:
			return batch
		}
	}
	return batch
}

// decode reads a message. One that is not what its sequence says is not used: the source has the truth.
func (l *loop) decode(ctx context.Context, raw jetstream.Msg) message {
	m := message{Msg: raw}
	meta, err := raw.Metadata()
	if err != nil { // not from JetStream: there is no such position
		l.logger().ErrorContext(ctx, "message without a sequence", slog.Any("error", err))
		return m
	}
	m.position, m.given = int64(meta.Sequence.Stream), meta.Sequence.Consumer
	m.event, err = cloudevent.Decode(raw.Headers(), raw.Data())
	if err == nil && m.event.Position != m.position {
		err = fmt.Errorf("it says that its position is %d", m.event.Position)
	}
	if err != nil {
		l.logger().ErrorContext(ctx, "message is no event", "position", m.position, slog.Any("error", err))
		m.unusable = true
		return m
	}
	if l.Personal && raw.Headers().Get(cloudevent.HeaderPersonal) == cloudevent.PersonalOmitted {
		m.unusable = true
	}
	return m
}

// take hands a batch of messages over. Those at or below the position, which are delivered again, are dropped.
func (l *loop) take(ctx context.Context, batch []message) error {
	if err := l.stillTheSame(ctx, batch); err != nil {
		return err
	}
	hand := l.inOrder
	if len(l.Subjects) > 0 {
		hand = l.filtered
	}
	err := hand(ctx, batch)
	for _, m := range batch {
		if m.position <= l.position && m.position > l.last.position {
			l.last = m
		}
	}
	l.unacknowledged += len(batch)
	return err
}

// acknowledge tells the server of the last message that was handled, and so of all before it. A lost acknowledgement
// costs a redelivery and nothing else, so nobody waits for an answer.
func (l *loop) acknowledge() error {
	if l.last.position == 0 {
		return nil
	}
	err := l.last.Ack()
	l.last, l.unacknowledged = message{}, 0
	if err != nil {
		return fmt.Errorf("acknowledge: %w", err)
	}
	return nil
}

// inOrder hands over the messages of an unfiltered stream, in which positions follow each other.
func (l *loop) inOrder(ctx context.Context, batch []message) error {
	unusable := int64(0)
	for _, m := range batch {
		if m.unusable {
			unusable = max(unusable, m.position)
		}
	}
	if err := l.refill(ctx, unusable); err != nil {
		return err
	}
	events := make([]eventstore.Event, 0, len(batch))
	for _, m := range batch {
		if m.position > l.position+int64(len(events))+1 {
			if err := l.hand(ctx, events, l.position+int64(len(events))); err != nil {
				return err
			}
			events = nil
			if err := l.bridge(ctx, m.position); err != nil {
				return err
			}
		}
		if m.position == l.position+int64(len(events))+1 {
			events = append(events, m.event)
		}
		l.fresh = false
	}
	return l.hand(ctx, events, l.position+int64(len(events)))
}

// hand hands events over, the last of which brings the position to where it says.
func (l *loop) hand(ctx context.Context, events []eventstore.Event, to int64) error {
	if len(events) == 0 {
		return nil
	}
	if err := l.Handle(ctx, events); err != nil {
		return fmt.Errorf("handle %d events up to %d: %w", len(events), to, err)
	}
	l.position = to
	l.handled++
	return nil
}

// bridge gets over the gap before the message at next: from the source, or else by finding out whether the messages are
// lost or only on their way.
func (l *loop) bridge(ctx context.Context, next int64) error {
	// Whoever handled events elsewhere has moved the checkpoint.
	position, err := l.Checkpoint(ctx)
	if err != nil {
		return fmt.Errorf("read the checkpoint: %w", err)
	}
	l.position = max(l.position, position)
	if l.position >= next-1 {
		return nil
	}
	if l.Source != nil {
		l.logger().InfoContext(ctx, "the stream lacks events; reading them from the log", "after", l.position, "next", next)
		return l.refill(ctx, next-1)
	}
	if l.jump.after != l.position || l.jump.next != next {
		l.jump = jump{after: l.position, next: next, since: time.Now()}
	}
	if l.fresh {
		l.jump.seen++
	}
	if l.jump.seen >= certainJumps || time.Since(l.jump.since) > 2*ackWait {
		return &GapError{After: l.position, Next: next}
	}
	return errJump
}

// refill hands over what the source has up to a position.
func (l *loop) refill(ctx context.Context, upTo int64) error {
	for l.position < upTo {
		if l.Source == nil {
			return &GapError{After: l.position, Next: upTo + 1}
		}
		events, err := l.Source.ReadAll(ctx, l.position, int(min(int64(l.maxBatch()), upTo-l.position)))
		if err != nil {
			return fmt.Errorf("read what the stream lacks: %w", err)
		}
		if len(events) == 0 {
			return fmt.Errorf("read what the stream lacks: the source has nothing after %d", l.position)
		}
		if err := l.hand(ctx, events, events[len(events)-1].Position); err != nil {
			return err
		}
	}
	return nil
}
