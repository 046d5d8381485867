package publisher

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/trace"

	"usher.example/eventstore"
	"usher.example/eventstore/cloudevent"
)

const (
	// windowBytes bounds the content of the messages that are not acknowledged yet.
	windowBytes = 8 << 20
	// ackWait bounds the time without any answer while some are due.
	ackWait = 4 * time.Second
	// drainWait bounds the wait for answers after an error.
	drainWait = 2 * time.Second
)

// window is a sliding window of published and not yet acknowledged messages. It serves one run of the relay from one
// resync to the next: the first error is final. One goroutine publishes; answers arrive on another.
//
// Every message is answered to a subject of its own that ends in its position. jetstream.PublishMsgAsync would do, but
// it sends a message again by itself after "no responders", and costs a map entry, a future and a timer for each.
type window struct {
	conn     *nats.Conn
	stream   string
	encoding cloudevent.Options
	inbox    string // with its final dot
	sub      *nats.Subscription
	status   chan nats.Status
	done     chan struct{}
	watch    sync.WaitGroup

	// Owned by the publishing goroutine. sizes is a ring: the content published up to a position.
	sizes []int64
	sent  atomic.Int64 // last position published

	acked   atomic.Int64 // last position acknowledged; by the expected sequences, all before it are stored too
	answers atomic.Int64 // acknowledgements and errors
	start   int64        // the position before the first
	moved   chan struct{}
	onAck   func(position int64)
	inHand  sync.Mutex // of whoever handles an answer
	closed  bool       // nothing is told any more; guarded by inHand

	traced traced

	failOnce sync.Once
	failed   chan struct{}
	err      error // valid once failed is closed
}

// openWindow begins after a position, which must be the stream's last sequence.
func openWindow(conn *nats.Conn, stream string, after int64, size int, encoding cloudevent.Options, onAck func(int64)) (*window, error) {
	w := &window{
		conn:     conn,
		stream:   stream,
		encoding: encoding,
		inbox:    conn.NewInbox() + ".",
		done:     make(chan struct{}),
		sizes:    make([]int64, size+1),
		start:    after,
		moved:    make(chan struct{}, 1),
		onAck:    onAck,
		failed:   make(chan struct{}),
	}
	w.sent.Store(after)
	w.acked.Store(after)
	var err error
	if w.sub, err = conn.Subscribe(w.inbox+"*", w.answer); err != nil {
		return nil, fmt.Errorf("subscribe to acknowledgements: %w", err)
	}
	w.status = conn.StatusChanged(nats.DISCONNECTED, nats.RECONNECTING, nats.CLOSED)
	if !conn.IsConnected() {
		w.fail(nats.ErrDisconnected)
	}
	w.watch.Go(w.watchConnection)
	return w, nil
}

// publish sends an event, which must be the next one, once there is room in the window. It fails with the window's
// error, with the cause of ctx, or with ErrUnpublishable.
func (w *window) publish(ctx context.Context, e eventstore.Event) error {
	if next := w.sent.Load() + 1; e.Position != next {
		return fmt.Errorf("publish position %d: %w: the next one is %d", e.Position, eventstore.ErrGap, next)
	}
	header, body := cloudevent.Encode(e, w.encoding)
	header[jetstream.ExpectedStreamHeader] = []string{w.stream}
	header[jetstream.ExpectedLastSeqHeader] = []string{strconv.FormatInt(e.Position-1, 10)}
	if err := w.waitForRoom(ctx, int64(len(body))); err != nil {
		return err
	}
	m := nats.Msg{
		Subject: cloudevent.Subject(e),
		Reply:   w.inbox + strconv.FormatInt(e.Position, 10),
		Header:  header,
		Data:    body,
	}
	err := w.conn.PublishMsg(&m)
	if errors.Is(err, nats.ErrMaxPayload) {
		err = fmt.Errorf("%w: %w", ErrUnpublishable, err)
	}
	if err != nil {
		err = fmt.Errorf("publish position %d: %w", e.Position, err)
		w.fail(err)
		return err
	}
	w.traced.sent(e)
	n := int64(len(w.sizes))
	w.sizes[e.Position%n] = w.sizes[(e.Position-1)%n] + int64(len(body))
	w.sent.Store(e.Position)
	return nil
}

// traced are the events on their way whose trace is recorded, in the order of their positions: few, if any.
type traced struct {
	tracer trace.Tracer // nil where nothing is traced

	mu     sync.Mutex
	events []eventstore.Event
	began  []time.Time
}

func (t *traced) sent(e eventstore.Event) {
	if t.tracer == nil || !e.Metadata.Sampled() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.events, t.began = append(t.events, e), append(t.began, time.Now())
}

// acked records those up to a position.
func (t *traced) acked(position int64) {
	if t.tracer == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.events) > 0 && t.events[0].Position <= position {
		e := t.events[0]
		e.RecordSpan(t.tracer, "publish "+e.Type, trace.SpanKindProducer, t.began[0], nil)
		t.events, t.began = t.events[1:], t.began[1:]
	}
}

func (w *window) waitForRoom(ctx context.Context, size int64) error {
	n := int64(len(w.sizes))
	return w.waitUntil(ctx, func(sent, acked int64) bool {
		content := w.sizes[sent%n] - w.sizes[acked%n]
		return sent == acked || sent-acked < n-1 && content+size <= windowBytes
	})
}

// settle waits until everything that was sent is stored. It fails as publish does.
func (w *window) settle(ctx context.Context) error {
	return w.waitUntil(ctx, func(sent, acked int64) bool { return sent == acked })
}

func (w *window) waitUntil(ctx context.Context, holds func(sent, acked int64) bool) error {
	for {
		select {
		case <-w.failed:
			return w.err
		default:
		}
		if holds(w.sent.Load(), w.acked.Load()) {
			return nil
		}
		select {
		case <-w.moved:
		case <-w.failed:
			return w.err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// answer handles what the server says to one message. nats.go calls it for one message after the other, and may still be at one
// when the subscription is over. By then the relay may know better from a resync what is published.
func (w *window) answer(m *nats.Msg) {
	w.inHand.Lock()
	defer w.inHand.Unlock()
	if w.closed {
		return
	}
	position, err := strconv.ParseInt(m.Subject[len(w.inbox):], 10, 64)
	if err == nil {
		err = w.check(position, m)
	}
	if err != nil {
		w.fail(fmt.Errorf("publish position %d: %w", position, err))
	} else if position > w.acked.Load() {
		w.traced.acked(position)
		w.onAck(position)
		w.acked.Store(position)
	}
	w.answers.Add(1) // last, so that a drain, which waits for it, knows of what was told and of what failed
	select {
	case w.moved <- struct{}{}:
	default:
	}
}

func (w *window) check(position int64, m *nats.Msg) error {
	seq, err := parseAck(m, w.stream)
	if err != nil {
		return err
	}
	if seq != position {
		return fmt.Errorf("%w: it got sequence %d", ErrNotAcknowledged, seq)
	}
	return nil
}

// parseAck reads the server's answer to a message. The usual one is read without reflection.
func parseAck(m *nats.Msg, stream string) (seq int64, err error) {
	if rest, ok := bytes.CutPrefix(m.Data, []byte(`{"stream":"`)); ok {
		if rest, ok = bytes.CutPrefix(rest, []byte(stream)); ok {
			if rest, ok = bytes.CutPrefix(rest, []byte(`","seq":`)); ok && bytes.HasSuffix(rest, []byte("}")) {
				if seq, err = strconv.ParseInt(string(rest[:len(rest)-1]), 10, 64); err == nil {
					return seq, nil
				}
			}
		}
	}
	if len(m.Data) == 0 && m.Header.Get("Status") == "503" {
		return 0, nats.ErrNoResponders
	}
	var ack struct {
		jetstream.PubAck
		Error *jetstream.APIError `json:"error"`
	}
	switch err := json.Unmarshal(m.Data, &ack); {
	case err != nil:
		return 0, fmt.Errorf("%w: %w", ErrNotAcknowledged, err)
	case ack.Error != nil && ack.Error.ErrorCode == jetstream.JSErrCodeStreamMessageExceedsMaximum:
		return 0, fmt.Errorf("%w: %w", ErrUnpublishable, ack.Error)
	case ack.Error != nil:
		return 0, ack.Error
	case ack.Stream != stream:
		return 0, fmt.Errorf("%w: stream %q answered", ErrNotAcknowledged, ack.Stream)
	case ack.Duplicate:
		return 0, fmt.Errorf("%w: the server took it for a duplicate", ErrNotAcknowledged)
	}
	return int64(ack.Sequence), nil
}

// watchConnection fails the window when the connection breaks, which may have lost messages or answers, and when
// answers stay away.
func (w *window) watchConnection() {
	tick := time.NewTicker(ackWait / 4)
	defer tick.Stop()
	answers, since := w.answers.Load(), time.Now()
	for {
		select {
		case <-w.done:
			return
		case <-w.status:
			w.fail(nats.ErrDisconnected)
			return
		case now := <-tick.C:
			if n := w.answers.Load(); n != answers || w.start+n >= w.sent.Load() {
				answers, since = n, now
			} else if now.Sub(since) >= ackWait {
				// A publish that the server's permissions refuse shows as the connection's error only.
				w.fail(fmt.Errorf("%w: no answer for %v, connection's last error: %w", ErrNotAcknowledged, ackWait, lastError(w.conn)))
				return
			}
		}
	}
}

func lastError(conn *nats.Conn) error {
	if err := conn.LastError(); err != nil {
		return err
	}
	return errors.New("none")
}

func (w *window) fail(err error) {
	w.failOnce.Do(func() {
		w.err = err
		close(w.failed)
	})
}

// drain waits until every message that was sent has its answer, so that the stream's state can be read without
// anything still on its way. After an error not all may come: then it waits for a bounded time. It fails with the
// window's error.
func (w *window) drain() error {
	failed := w.failed
	var late <-chan time.Time
	for w.start+w.answers.Load() < w.sent.Load() {
		select {
		case <-w.moved:
		case <-failed:
			if !w.conn.IsConnected() {
				return w.err
			}
			failed, late = nil, time.After(drainWait)
		case <-late:
			return w.err
		}
	}
	select {
	case <-w.failed:
		return w.err
	default:
		return nil
	}
}

func (w *window) close() {
	close(w.done)
	w.watch.Wait()
	w.conn.RemoveStatusListener(w.status)
	// It fails only if the connection is closed, and the subscription with it.
	_ = w.sub.Unsubscribe()
	w.inHand.Lock()
	defer w.inHand.Unlock()
	w.closed = true
}
