package publisher

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/internal/devstack"
)

func TestVerify(t *testing.T) {
	t.Parallel()
	s, nc := newSite(t), connection(t, devstack.NATS(t))
	r := s.relay(t, nc)
	s.appendEvents(t, 3000) // some batches
	if err := r.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	told := int64(0)
	verify := func(r *Relay) VerifyReport {
		t.Helper()
		v, err := r.Verify(t.Context(), func(position, last int64) { told = position })
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	head := s.head(t)
	if v := verify(r); !v.Same() || v.First != 1 || v.Last != head || v.Messages != head || told != head {
		t.Errorf("Verify() = %+v, told of %d, want %d messages that are the same", v, told, head)
	}
	if v := verify(s.relay(t, nc, func(c *Config) { c.OmitPersonal = true })); !v.Same() {
		t.Errorf("Verify() with another STREAM_PERSONAL = %+v", v)
	}

	// A message is gone.
	stream, err := r.js.Stream(t.Context(), r.Stream.Name)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.DeleteMsg(t.Context(), 2500); err != nil {
		t.Fatal(err)
	}
	if v := verify(r); v.Same() || v.Missing != 1 || v.FirstDifference != 2500 || v.What != "the message is missing" {
		t.Errorf("Verify() = %+v, want position 2500 missing", v)
	}

	// A stream whose only message is the log's last event, but for its body.
	last, err := stream.GetMsg(t.Context(), uint64(head))
	if err != nil {
		t.Fatal(err)
	}
	m := nats.NewMsg("in")
	for name := range last.Header {
		if !strings.HasPrefix(name, "Nats-") {
			m.Header[name] = last.Header[name]
		}
	}
	m.Data = []byte(`{"forged":true}`)
	if _, err := r.js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: "FORGED", Subjects: []string{"in"}, FirstSeq: uint64(head),
		SubjectTransform: &jetstream.SubjectTransformConfig{Source: "in", Destination: last.Subject},
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.js.PublishMsg(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	v := verify(s.relay(t, nc, func(c *Config) { c.Stream.Name = "FORGED" }))
	if v.Differ != 1 || v.FirstDifference != head || v.What != "the body is another than the log says" || v.Log == v.Stream {
		t.Errorf("Verify() = %+v, want another body at %d", v, head)
	}
}

// The server pauses for longer than a message is waited for, in the middle of a comparison, which then goes on.
func TestVerifyWaitsForTheServer(t *testing.T) {
	t.Parallel()
	s, server := newSite(t), devstack.NATSProcess(t, t.TempDir(), 0)
	r := s.relay(t, connection(t, server))
	s.appendEvents(t, 3*scrubBatch)
	s.mustFlush(t, r)
	signal := func(sig syscall.Signal) {
		if err := syscall.Kill(server.PID(), sig); err != nil {
			t.Error(err)
		}
	}
	resumed := make(chan struct{})
	v, err := r.Verify(t.Context(), func(position, _ int64) {
		if position == 1 { // more than is on its way is still to come
			signal(syscall.SIGSTOP)
			time.AfterFunc(3*scrubWait, func() {
				signal(syscall.SIGCONT)
				close(resumed)
			})
		}
	})
	<-resumed
	if err != nil || !v.Same() || v.Messages != s.head(t) {
		t.Errorf("Verify() = %+v, %v, want %d messages that are the same", v, err, s.head(t))
	}
}
