package publisher

import (
	"errors"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/eventstore"
	"usher.example/eventstore/cloudevent"
	"usher.example/internal/devstack"
)

func TestParseAck(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer nats.Msg
		seq    int64
		err    error // nil: none; otherwise what errors.Is finds
	}{
		"usual":          {answer: nats.Msg{Data: []byte(`{"stream":"USHER","seq":42}`)}, seq: 42},
		"with a domain":  {answer: nats.Msg{Data: []byte(`{"stream":"USHER","domain":"hub","seq":42}`)}, seq: 42},
		"duplicate":      {answer: nats.Msg{Data: []byte(`{"stream":"USHER","seq":42,"duplicate":true}`)}, err: ErrNotAcknowledged},
		"other stream":   {answer: nats.Msg{Data: []byte(`{"stream":"USHER2","seq":42}`)}, err: ErrNotAcknowledged},
		"not JSON":       {answer: nats.Msg{Data: []byte(`+OK`)}, err: ErrNotAcknowledged},
		"nothing":        {answer: nats.Msg{}, err: ErrNotAcknowledged},
		"nobody there":   {answer: nats.Msg{Header: nats.Header{"Status": {"503"}}}, err: nats.ErrNoResponders},
		"too large":      {answer: nats.Msg{Data: []byte(`{"error":{"code":400,"err_code":10054,"description":"message size exceeds maximum allowed"},"stream":"USHER","seq":0}`)}, err: ErrUnpublishable},
		"wrong sequence": {answer: nats.Msg{Data: []byte(`{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 7"},"stream":"USHER","seq":0}`)}, err: &jetstream.APIError{ErrorCode: 10071}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seq, err := parseAck(&c.answer, "USHER")
			if seq != c.seq || !errors.Is(err, c.err) {
				t.Errorf("parseAck() = %d, %v, want %d, %v", seq, err, c.seq, c.err)
			}
		})
	}
}

// A window refuses an event out of order before it is sent, and fails for good when the server refuses one.
func TestWindowKeepsOrder(t *testing.T) {
	t.Parallel()
	s, nc := newSite(t), connection(t, devstack.NATS(t))
	s.appendEvents(t, 10)
	r := s.relay(t, nc)
	if err := r.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.appendEvents(t, 10)
	events, err := s.ReadAll(t.Context(), 0, 20)
	if err != nil {
		t.Fatal(err)
	}
	acked := int64(0)
	open := func(after int64) *window {
		w, err := openWindow(nc, DefaultStream, after, 4, cloudevent.Options{Source: "urn:usher:test"}, func(p int64) { acked = p })
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(w.close)
		return w
	}
	w := open(10)
	if err := w.publish(t.Context(), events[11]); !errors.Is(err, eventstore.ErrGap) {
		t.Errorf("publish() of position 12 after 10 = %v, want ErrGap", err)
	}
	for _, e := range events[10:15] {
		if err := w.publish(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.drain(); err != nil || acked != 15 {
		t.Errorf("drain() = %v with %d acknowledged, want 15", err, acked)
	}
	late := open(12) // as a relay that was paused for a while would
	for _, e := range events[12:] {
		if err := late.publish(t.Context(), e); err != nil {
			break
		}
	}
	if err := late.drain(); !errors.Is(err, &jetstream.APIError{ErrorCode: jetstream.JSErrCodeStreamWrongLastSequence}) {
		t.Errorf("drain() of a late window = %v, want wrong last sequence", err)
	}
	if err := r.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.checkStream(t, nc)
}

// An answer that is in hand while the window is closed tells nothing after that: a resync may have found another place meanwhile.
func TestWindowTellsNothingOnceClosed(t *testing.T) {
	t.Parallel()
	acked := int64(-1)
	w, err := openWindow(connection(t, devstack.NATS(t)), DefaultStream, 0, 4, cloudevent.Options{}, func(p int64) { acked = p })
	if err != nil {
		t.Fatal(err)
	}
	w.close()
	w.answer(&nats.Msg{Subject: w.inbox + "1", Data: []byte(`{"stream":"` + DefaultStream + `","seq":1}`)})
	if acked != -1 || w.acked.Load() != 0 {
		t.Errorf("a closed window told of %d, and is at %d", acked, w.acked.Load())
	}
}
