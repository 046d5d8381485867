package subscription_test

import (
	"context"
	"testing"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"usher.example/eventstore"
	"usher.example/eventstore/cloudevent"
)

// BenchmarkBacklog hands a backlog over to a handler that only counts. An operation is one event.
func BenchmarkBacklog(b *testing.B) {
	s := setup(b)
	user := eventstore.UserStream(uuid.Must(uuid.NewV7()))
	for i := range b.N {
		e := eventstore.Event{
			Position: int64(i) + 1, Stream: user, Version: i + 1, ID: uuid.Must(uuid.NewV7()), Type: "user.profile_updated", SchemaVersion: 1,
			Personal: []byte(`{"name":"Ann of the Very Long Family Name"}`),
		}
		header, body := cloudevent.Encode(e, cloudevent.Options{Source: "urn:usher:bench"})
		if _, err := s.js.PublishMsgAsync(&nats.Msg{Subject: cloudevent.Subject(e), Header: header, Data: body}); err != nil {
			b.Fatal(err)
		}
		if i%1000 == 999 {
			<-s.js.PublishAsyncComplete()
		}
	}
	<-s.js.PublishAsyncComplete()
	sub := s.on(newLedger())
	sub.MaxBatch = 0
	at := int64(0)
	sub.Checkpoint = func(context.Context) (int64, error) { return at, nil }
	batches := 0
	ctx, cancel := context.WithCancel(b.Context())
	sub.Handle = func(_ context.Context, events []eventstore.Event) error {
		batches++
		if at += int64(len(events)); at == int64(b.N) {
			cancel()
		}
		return nil
	}
	b.ReportAllocs()
	b.ResetTimer()
	if err := sub.Run(ctx); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/float64(batches), "events/batch")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
