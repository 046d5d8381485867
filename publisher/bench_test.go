package publisher

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/eventstore/cloudevent"
	"usher.example/internal/devstack"
)

// The relay from Postgres to a file store in a process of its own, beside a bare loop that has no fence to keep up, no
// acknowledgement to check and no loss to mend, and beside a relay that publishes one event at a time. One operation is
// one event of about 400 bytes.
func BenchmarkRelay(b *testing.B) {
	s := newPostgresSite(b)
	const events = 50_000
	for s.head(b) < events {
		s.appendEvents(b, 1000)
	}
	b.Run("relay", func(b *testing.B) {
		s.benchmark(b, events, func(nc *nats.Conn) {
			if _, err := s.store.Exec(b.Context(), "DELETE FROM relay"); err != nil {
				b.Fatal(err)
			}
			if err := s.relay(b, nc).Flush(b.Context()); err != nil {
				b.Fatal(err)
			}
		})
	})
	b.Run("bare", func(b *testing.B) {
		s.benchmark(b, events, func(nc *nats.Conn) { s.publishBare(b, nc) })
	})
	b.Run("one at a time", func(b *testing.B) {
		s.benchmark(b, 5_000, func(nc *nats.Conn) { s.publishOneByOne(b, nc, 5_000) })
	})
}

func (s *site) benchmark(b *testing.B, events int64, publish func(*nats.Conn)) {
	b.Helper()
	var took, here, there time.Duration // wall, and CPU of this process and of the server
	rounds := 0
	for b.Loop() {
		b.StopTimer()
		server := devstack.NATSProcess(b, b.TempDir(), 0)
		nc := connection(b, server)
		js, err := jetstream.New(nc)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := js.CreateStream(b.Context(), (StreamConfig{Name: DefaultStream, Replicas: 1}).wanted(jetstream.StreamConfig{})); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		start, ours, theirs := time.Now(), cpuTime(b, os.Getpid()), cpuTime(b, server.PID())
		publish(nc)
		took += time.Since(start)
		here += cpuTime(b, os.Getpid()) - ours
		there += cpuTime(b, server.PID()) - theirs
		rounds++
		b.StopTimer()
		if got := lastSequence(b, nc); got < events {
			b.Fatalf("%d events in the stream, want %d", got, events)
		}
		if err := server.Stop(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(int64(rounds)*events)/took.Seconds(), "events/s")
	b.ReportMetric(float64(here.Microseconds())/float64(int64(rounds)*events), "client-us/event")
	b.ReportMetric(float64(there.Microseconds())/float64(int64(rounds)*events), "server-us/event")
}

// cpuTime is what a process has used so far, in user and system mode; the fields are the 14th and 15th of proc(5).
func cpuTime(b *testing.B, pid int) time.Duration {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / 100
}

func (s *site) publishBare(b *testing.B, nc *nats.Conn) {
	js, err := jetstream.New(nc)
	if err != nil {
		b.Fatal(err)
	}
	for after := int64(0); ; {
		events, err := s.store.ReadAll(b.Context(), after, 1000)
		if err != nil {
			b.Fatal(err)
		}
		if len(events) == 0 {
			return
		}
		futures := make([]jetstream.PubAckFuture, len(events))
		for i, e := range events {
			header, body := cloudevent.Encode(e, cloudevent.Options{Source: "urn:usher:test"})
			header["Nats-Expected-Stream"] = []string{DefaultStream}
			header["Nats-Expected-Last-Sequence"] = []string{strconv.FormatInt(e.Position-1, 10)}
			m := &nats.Msg{Subject: cloudevent.Subject(e), Header: header, Data: body}
			if futures[i], err = js.PublishMsgAsync(m, jetstream.WithStallWait(time.Minute)); err != nil {
				b.Fatal(err)
			}
			after = e.Position
		}
		for _, f := range futures {
			select {
			case <-f.Ok():
			case err := <-f.Err():
				b.Fatal(err)
			}
		}
	}
}

func (s *site) publishOneByOne(b *testing.B, nc *nats.Conn, until int64) {
	js, err := jetstream.New(nc)
	if err != nil {
		b.Fatal(err)
	}
	for after := int64(0); after < until; {
		events, err := s.store.ReadAll(b.Context(), after, 1000)
		if err != nil {
			b.Fatal(err)
		}
		for _, e := range events {
			header, body := cloudevent.Encode(e, cloudevent.Options{Source: "urn:usher:test"})
			m := &nats.Msg{Subject: cloudevent.Subject(e), Header: header, Data: body}
			if _, err := js.PublishMsg(b.Context(), m); err != nil {
				b.Fatal(err)
			}
			after = e.Position
		}
	}
}

// BenchmarkLatency reports the time from the answer to an append to the message at a subscriber, at about 200 a second.
func BenchmarkLatency(b *testing.B) {
	s, server := newPostgresSite(b), devstack.NATSProcess(b, b.TempDir(), 0)
	nc := connection(b, server)
	devstack.Background(b, s.relay(b, nc).Run)
	arrived := make(chan uuid.UUID, 16)
	sub, err := nc.Subscribe("usher.v1.>", func(m *nats.Msg) {
		if e, err := cloudevent.Decode(m.Header, m.Data); err == nil {
			arrived <- e.Stream.ID
		}
	})
	if err != nil {
		b.Fatal(err)
	}
	defer sub.Unsubscribe()
	pace := time.NewTicker(5 * time.Millisecond)
	defer pace.Stop()
	var took []time.Duration
	for b.Loop() {
		<-pace.C
		user, err := s.register(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		start := time.Now()
		if got := <-arrived; got != user {
			b.Fatalf("got %s, want %s", got, user)
		}
		took = append(took, time.Since(start))
	}
	b.ReportMetric(quantile(took, 0.5), "p50-ms")
	b.ReportMetric(quantile(took, 0.99), "p99-ms")
}

// quantile is in milliseconds.
func quantile(took []time.Duration, q float64) float64 {
	slices.Sort(took)
	return float64(took[int(q*float64(len(took)-1))]) / float64(time.Millisecond)
}
