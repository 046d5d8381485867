package publisher

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/internal/devstack"
)

// subscriber is a durable consumer, and the last sequence that it handled.
type subscriber struct {
	name  string
	last  int64
	again bool // the next message may be one that it handled before
}

func newSubscriber(t testing.TB, nc *nats.Conn, cfg jetstream.ConsumerConfig) *subscriber {
	t.Helper()
	cfg.AckPolicy = jetstream.AckExplicitPolicy
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateConsumer(t.Context(), DefaultStream, cfg); err != nil {
		t.Fatal(err)
	}
	return &subscriber{name: cfg.Durable}
}

// handle reads messages up to a position and acknowledges them. Each must be the one after the last.
func (c *subscriber) handle(t testing.TB, nc *nats.Conn, upTo int64) {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	consumer, err := js.Consumer(t.Context(), DefaultStream, c.name)
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for c.last < upTo {
		if time.Now().After(deadline) {
			t.Fatalf("%s got nothing after %d, want %d", c.name, c.last, upTo)
		}
		batch, err := consumer.Fetch(int(min(500, upTo-c.last)), jetstream.FetchMaxWait(time.Second))
		if err != nil {
			t.Fatal(err)
		}
		for m := range batch.Messages() {
			meta, err := m.Metadata()
			if err != nil {
				t.Fatal(err)
			}
			got := int64(meta.Sequence.Stream)
			if got != c.last+1 && (!c.again || got > c.last) {
				t.Fatalf("%s got sequence %d after %d", c.name, got, c.last)
			}
			c.last, c.again = got, false
			if err := m.DoubleAck(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// handleOne reads one message, which must have a sequence, and acknowledges it.
func (c *subscriber) handleOne(t testing.TB, nc *nats.Conn, want int64) {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	consumer, err := js.Consumer(t.Context(), DefaultStream, c.name)
	if err != nil {
		t.Fatal(err)
	}
	m, err := consumer.Next(jetstream.FetchMaxWait(30 * time.Second))
	if err != nil {
		t.Fatalf("%s got nothing, want sequence %d: %v", c.name, want, err)
	}
	meta, err := m.Metadata()
	if err != nil {
		t.Fatal(err)
	}
	if got := int64(meta.Sequence.Stream); got != want {
		t.Fatalf("%s got sequence %d, want %d", c.name, got, want)
	}
	if err := m.DoubleAck(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func blocks(t testing.TB, storeDir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(storeDir, "jetstream", "*", "streams", DefaultStream, "msgs", "*.blk"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no block files in %s: %v", storeDir, err)
	}
	slices.Sort(files)
	return files
}

// truncate takes the last third off the stream's last block. The server must be down.
func truncate(t testing.TB, storeDir string) {
	t.Helper()
	files := blocks(t, storeDir)
	last := files[len(files)-1]
	info, err := os.Stat(last)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(last, info.Size()*2/3); err != nil {
		t.Fatal(err)
	}
}

// flip changes one byte of a message body at about the given part of the stream's last block. The server must be down.
func flip(t testing.TB, storeDir string, part float64) {
	t.Helper()
	files := blocks(t, storeDir)
	file := files[len(files)-1]
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	start := int(part * float64(len(content)))
	at := bytes.Index(content[start:], []byte("xxxx"))
	if at < 0 {
		start, at = 0, bytes.LastIndex(content, []byte("xxxx"))
	}
	content[start+at] ^= 1
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestStreamLost: whatever happens to the stream's files while the server is down, the relay notices and mends it, the
// sequences stay, and a durable consumer goes on with the message after the last that it handled.
func TestStreamLost(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		// breaks is called with the server down. older is a copy of the store from before the last events.
		breaks  func(t *testing.T, storeDir, older string)
		needs   func(Counters) bool
		goesOn  int64 // where the durable consumer goes on after
		again   bool  // or before that
		scrubs  bool  // nothing but a scrub finds it
		reports int64 // what the scrub finds
	}{
		"older store put back": {
			breaks: func(t *testing.T, storeDir, older string) {
				if err := errors.Join(os.RemoveAll(storeDir), os.CopyFS(storeDir, os.DirFS(older))); err != nil {
					t.Fatal(err)
				}
			},
			needs:  func(c Counters) bool { return c.TailsLost == 1 && c.Rebuilds == 0 },
			goesOn: 150,
		},
		// The server believes in its index, which says that everything is there.
		"last block truncated": {
			breaks: func(t *testing.T, storeDir, _ string) { truncate(t, storeDir) },
			needs:  func(c Counters) bool { return c.TailsLost == 0 && c.Rebuilds == 1 },
			goesOn: 450,
		},
		// After a crash there is no index that is up to date: the server reads the blocks.
		"last block truncated and no index": {
			breaks: func(t *testing.T, storeDir, _ string) {
				truncate(t, storeDir)
				if err := os.Remove(filepath.Join(filepath.Dir(blocks(t, storeDir)[0]), "index.db")); err != nil {
					t.Fatal(err)
				}
			},
			needs:  func(c Counters) bool { return c.TailsLost == 1 && c.Rebuilds == 0 },
			goesOn: 450,
			again:  true, // the server took the consumer back to the end that it found
		},
		"store gone": {
			breaks: func(t *testing.T, storeDir, _ string) {
				if err := os.RemoveAll(storeDir); err != nil {
					t.Fatal(err)
				}
			},
			needs:  func(c Counters) bool { return c.TailsLost == 1 && c.Rebuilds == 0 },
			goesOn: -1,
		},
		"byte flipped in the middle": {
			breaks:  func(t *testing.T, storeDir, _ string) { flip(t, storeDir, 0.4) },
			needs:   func(c Counters) bool { return c.Rebuilds == 1 && c.TailsLost == 0 },
			goesOn:  450,
			scrubs:  true,
			reports: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, server := newSite(t), devstack.NATS(t)
			nc := connection(t, server)
			r := s.relay(t, nc)
			devstack.Background(t, r.Run)
			s.appendEvents(t, 300)
			s.awaitPublished(t, r)
			consumer := newSubscriber(t, nc, jetstream.ConsumerConfig{Durable: "reader"})
			consumer.handle(t, nc, 150)
			server.Shutdown()
			older := t.TempDir()
			if err := os.CopyFS(older, os.DirFS(server.StoreDir())); err != nil {
				t.Fatal(err)
			}
			if err := server.Restart(); err != nil {
				t.Fatal(err)
			}
			s.appendEvents(t, 200)
			s.awaitPublished(t, r)
			consumer.handle(t, nc, 450)
			server.Shutdown()
			c.breaks(t, server.StoreDir(), older)
			if err := server.Restart(); err != nil {
				t.Fatal(err)
			}
			if c.scrubs {
				report := scrubUntilDone(t, r)
				if report.Missing != c.reports || report.Checked != 500-c.reports || report.Foreign != 0 {
					t.Errorf("Scrub() = %+v, want %d missing of 500", report, c.reports)
				}
			}
			devstack.Eventually(t, "the loss is noticed", func() bool { return c.needs(r.Counters()) })
			s.appendEvents(t, 100)
			s.awaitPublished(t, r)
			s.checkStream(t, nc)
			if c.goesOn >= 0 {
				consumer.last, consumer.again = c.goesOn, c.again
				consumer.handle(t, nc, s.head(t))
			}
			if report := scrubUntilDone(t, r); report.Damaged() || report.Checked != s.head(t) {
				t.Errorf("Scrub() = %+v after it was mended", report)
			}
			if !c.needs(r.Counters()) {
				t.Errorf("%+v", r.Counters())
			}
		})
	}
}

// scrubUntilDone scrubs once the server is reached again.
func scrubUntilDone(t testing.TB, r *Relay) (report ScrubReport) {
	t.Helper()
	devstack.Eventually(t, "scrubbed", func() bool {
		var err error
		report, err = r.Scrub(t.Context())
		return err == nil
	})
	return report
}

// A byte flipped in the last message is not left to the scrub: every resync reads that one.
func TestLastMessageDamaged(t *testing.T) {
	t.Parallel()
	s, server := newSite(t), devstack.NATS(t)
	nc := connection(t, server)
	r := s.relay(t, nc)
	devstack.Background(t, r.Run)
	s.appendEvents(t, 300)
	s.awaitPublished(t, r)
	server.Shutdown()
	flip(t, server.StoreDir(), 1)
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	devstack.Eventually(t, "it is rebuilt", func() bool { return r.Counters().Rebuilds == 1 && r.Status().State == StateRunning })
	s.awaitPublished(t, r)
	s.checkStream(t, nc)
}

// The relay scrubs by itself when it meets a server that it does not know, which is also one that restarted.
func TestScrubsAfterRestart(t *testing.T) {
	t.Parallel()
	s, server := newSite(t), devstack.NATS(t)
	nc := connection(t, server)
	r := s.relay(t, nc, func(c *Config) { c.ScrubEvery = time.Hour })
	devstack.Background(t, r.Run)
	devstack.Eventually(t, "the first scrub", func() bool { _, done := r.LastScrub(); return done })
	s.appendEvents(t, 500)
	s.awaitPublished(t, r)
	server.Shutdown()
	flip(t, server.StoreDir(), 0.5)
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	devstack.Eventually(t, "it is rebuilt", func() bool { return r.Counters().Rebuilds == 1 && r.Status().State == StateRunning })
	s.awaitPublished(t, r)
	s.checkStream(t, nc)
}

func TestStreamDeleted(t *testing.T) {
	t.Parallel()
	s, server := newSite(t), devstack.NATS(t)
	nc := connection(t, server)
	r := s.relay(t, nc)
	devstack.Background(t, r.Run)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	halt := s.keepAppending(t, 8)
	for i := range int64(5) {
		before := r.published.Load()
		devstack.Eventually(t, "some are published", func() bool { return r.published.Load() > before+100 })
		if err := js.DeleteStream(t.Context(), DefaultStream); err != nil {
			t.Fatal(err)
		}
		devstack.Eventually(t, "the loss is noticed", func() bool { return r.Counters().TailsLost > i })
	}
	halt()
	s.awaitPublished(t, r)
	s.checkStream(t, nc)
}

// Messages deleted by hand, at the beginning and inside, are missed without a scrub, and durable consumers of every
// kind go on exactly where they were.
func TestRebuildKeepsDurables(t *testing.T) {
	t.Parallel()
	onBothStores(t, rebuildKeepsDurables)
}

func rebuildKeepsDurables(t *testing.T, s *site) {
	nc := connection(t, devstack.NATS(t))
	if err := s.relay(t, nc).Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.appendEvents(t, 200)
	if err := s.relay(t, nc).Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	all := newSubscriber(t, nc, jetstream.ConsumerConfig{Durable: "all"})
	untouched := newSubscriber(t, nc, jetstream.ConsumerConfig{Durable: "untouched"})
	fresh := newSubscriber(t, nc, jetstream.ConsumerConfig{Durable: "new", DeliverPolicy: jetstream.DeliverNewPolicy})
	fresh.last = 200
	from := newSubscriber(t, nc, jetstream.ConsumerConfig{Durable: "from", DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: 51})
	from.last = 50
	newSubscriber(t, nc, jetstream.ConsumerConfig{Durable: "paused", PauseUntil: &later})
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	push := jetstream.ConsumerConfig{Durable: "push", DeliverSubject: "pushed", AckPolicy: jetstream.AckNonePolicy}
	if _, err := js.CreatePushConsumer(t.Context(), DefaultStream, push); err != nil {
		t.Fatal(err)
	}
	all.handle(t, nc, 150)
	from.handle(t, nc, 80)
	s.appendEvents(t, 200)
	if err := s.relay(t, nc).Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	fresh.handle(t, nc, 250)
	before := consumerConfigs(t, nc)

	stream, err := js.Stream(t.Context(), DefaultStream)
	if err != nil {
		t.Fatal(err)
	}
	for _, position := range []uint64{1, 2, 170, 220} {
		if err := stream.DeleteMsg(t.Context(), position); err != nil {
			t.Fatal(err)
		}
	}
	r := s.relay(t, nc)
	devstack.Background(t, r.Run)
	devstack.Eventually(t, "it is rebuilt", func() bool { return r.Counters().Rebuilds == 1 && r.Status().State == StateRunning })
	s.awaitPublished(t, r)
	s.checkStream(t, nc)
	all.handle(t, nc, 400)
	untouched.handle(t, nc, 400)
	fresh.handle(t, nc, 400)
	from.handle(t, nc, 400)
	if got := consumerConfigs(t, nc); !slices.Equal(got, before) {
		t.Errorf("consumers after the rebuild:\n%s\nbefore:\n%s", strings.Join(got, "\n"), strings.Join(before, "\n"))
	}
	if r.Counters().Rebuilds != 1 {
		t.Errorf("%d rebuilds, want 1", r.Counters().Rebuilds)
	}
}

// A rebuild that is cut short, at whichever of its steps, is finished by the next relay.
func TestRebuildCutShort(t *testing.T) {
	t.Parallel()
	s, server := newSite(t), devstack.NATS(t)
	nc := connection(t, server)
	s.appendEvents(t, 400)
	if err := s.relay(t, nc).Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	early := newSubscriber(t, nc, jetstream.ConsumerConfig{Durable: "early"})
	late := newSubscriber(t, nc, jetstream.ConsumerConfig{Durable: "late"})
	early.handle(t, nc, 50)
	late.handle(t, nc, 300)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	slow := func(c *Config) { c.Holder, c.BatchSize, c.Window = "the same each time", 10, 10 }
	const damages = 5
	most := 40 * time.Millisecond // for one attempt; more and more where the machine gets nowhere in that
	for damaged := 0; damaged < damages**dose; most += most / 50 {
		stream, err := js.Stream(t.Context(), DefaultStream)
		if err == nil && stream.CachedInfo().State.Msgs == 400 {
			if err := stream.DeleteMsg(t.Context(), rand.Uint64N(400)+1); err != nil {
				t.Fatal(err)
			}
			damaged++
		}
		ctx, stop := context.WithTimeout(t.Context(), rand.N(most))
		_ = s.relay(t, nc, slow).Flush(ctx) // as far as it gets
		stop()
	}
	if err := s.relay(t, nc, slow).Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.checkStream(t, nc)
	early.handle(t, nc, 400)
	late.handle(t, nc, 400)
}

func consumerConfigs(t testing.TB, nc *nats.Conn) []string {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), DefaultStream)
	if err != nil {
		t.Fatal(err)
	}
	var configs []string
	list := stream.ListConsumers(t.Context())
	for info := range list.Info() {
		if info.Config.Durable == "" {
			continue
		}
		raw, err := json.Marshal(info.Config)
		if err != nil {
			t.Fatal(err)
		}
		configs = append(configs, string(raw))
	}
	if err := list.Err(); err != nil {
		t.Fatal(err)
	}
	slices.Sort(configs)
	return configs
}

// The messages of an erased user are purged. They are not missed, and nobody else's is purged.
