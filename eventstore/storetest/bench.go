package storetest

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"usher.example/eventstore"
)

// Bench runs the benchmark suite: appends of one event and of a whole registration, by one caller and by many, and
// reading the log. Every append is durable when it is counted.
func Bench(b *testing.B, backend Backend) {
	for _, callers := range []int{1, 32, 256} {
		b.Run(fmt.Sprintf("Append/callers=%d", callers), func(b *testing.B) {
			benchAppend(b, backend, callers, func() eventstore.Append { return facts(eventstore.UserStream(newID())) })
		})
		b.Run(fmt.Sprintf("Register/callers=%d", callers), func(b *testing.B) {
			benchAppend(b, backend, callers, func() eventstore.Append {
				user := newID()
				return registration(user, user.String()+"@example.org")
			})
		})
	}
	b.Run("ReadAll/plain", func(b *testing.B) {
		benchRead(b, backend, func() eventstore.Append { return facts(eventstore.UserStream(newID())) })
	})
	b.Run("ReadAll/sealed", func(b *testing.B) {
		benchRead(b, backend, func() eventstore.Append {
			user := newID()
			return registration(user, user.String()+"@example.org")
		})
	})
}

func benchAppend(b *testing.B, backend Backend, callers int, next func() eventstore.Append) {
	d := deploy(b, backend)
	var commits atomic.Int64
	log := d.processOn(b, d.open(b), eventstore.Options{OnCommit: func(eventstore.CommitStats) { commits.Add(1) }})
	b.ReportAllocs()
	b.ResetTimer()
	appendMany(b, log.Log, callers, b.N, next)
	b.ReportMetric(float64(b.N)/float64(commits.Load()), "appends/commit")
}

func appendMany(b *testing.B, log *eventstore.Log, callers, appends int, next func() eventstore.Append) {
	var group sync.WaitGroup
	var taken atomic.Int64
	for range callers {
		group.Go(func() {
			for taken.Add(1) <= int64(appends) {
				if _, err := log.Append(context.Background(), next()); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
}

// benchRead reads pages of 1,000 events; an operation is one event.
func benchRead(b *testing.B, backend Backend, next func() eventstore.Append) {
	const stored, page = 20_000, 1000
	log := setup(b, backend)
	appendMany(b, log.Log, 256, stored, next)
	b.ReportAllocs()
	b.ResetTimer()
	var after int64
	for read := 0; read < b.N; {
		events, err := log.ReadAll(b.Context(), after, min(page, b.N-read))
		if err != nil {
			b.Fatal(err)
		}
		read += len(events)
		if after += int64(len(events)); after >= stored {
			after = 0
		}
	}
}
