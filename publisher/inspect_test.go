package publisher

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"usher.example/internal/devstack"
)

func TestInspect(t *testing.T) {
	t.Parallel()
	s, nc := newSite(t), connection(t, devstack.NATS(t))
	r := s.relay(t, nc)
	if _, err := r.Inspect(t.Context()); err == nil || !strings.Contains(err.Error(), jetstream.ErrStreamNotFound.Error()) {
		t.Errorf("Inspect() without a stream = %v, want %v", err, jetstream.ErrStreamNotFound)
	}
	s.appendEvents(t, 10)
	if err := r.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.js.CreateConsumer(t.Context(), r.Stream.Name, jetstream.ConsumerConfig{Durable: "billing", AckPolicy: jetstream.AckExplicitPolicy}); err != nil {
		t.Fatal(err)
	}
	report, err := r.Inspect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if report.First != 1 || int64(report.Last) != s.head(t) || report.Messages != report.Last || report.Replicas != 1 || report.Drift != nil {
		t.Errorf("Inspect() = %+v", report)
	}
	if len(report.Consumers) != 1 || report.Consumers[0].Name != "billing" || report.Consumers[0].Pending != report.Last {
		t.Errorf("consumers = %+v, want billing with everything before it", report.Consumers)
	}

	// So is what is missing.
	whole, err := r.js.Stream(t.Context(), r.Stream.Name)
	if err != nil {
		t.Fatal(err)
	}
	if report.Missing != 0 {
		t.Errorf("position %d is missing, want none", report.Missing)
	}
	if err := whole.DeleteMsg(t.Context(), 7); err != nil {
		t.Fatal(err)
	}
	if report, err = r.Inspect(t.Context()); err != nil || report.Missing != 7 {
		t.Errorf("Inspect() = %+v, %v, want 7 missing", report, err)
	}
	if err := whole.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	if report, err = r.Inspect(t.Context()); err != nil || report.Missing != 1 || report.Messages != 0 {
		t.Errorf("Inspect() = %+v, %v, want all missing from 1 on", report, err)
	}

	// What somebody changed by hand is named.
	stream, err := r.js.Stream(t.Context(), r.Stream.Name)
	if err != nil {
		t.Fatal(err)
	}
	changed := stream.CachedInfo().Config
	changed.MaxAge = time.Hour
	if _, err := r.js.UpdateStream(t.Context(), changed); err != nil {
		t.Fatal(err)
	}
	if report, err = r.Inspect(t.Context()); err != nil || len(report.Drift) != 1 || report.Drift[0] != "MaxAge is 1h0m0s, wanted 0s" {
		t.Errorf("Inspect() = %+v, %v, want the changed age", report, err)
	}
}
