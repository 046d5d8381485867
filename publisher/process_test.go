package publisher

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"usher.example/eventstore"
	"usher.example/internal/devstack"
)

// The environment of a process that is a relay.
const (
	relayDatabase = "USHER_TEST_RELAY_DATABASE"
	relayBroker   = "USHER_TEST_RELAY_BROKER"
)

// runIfRelay makes a process that startRelay started run a relay until it is killed.
func runIfRelay() {
	dsn := os.Getenv(relayDatabase)
	if dsn == "" {
		return
	}
	if err := runRelay(context.Background(), dsn, os.Getenv(relayBroker)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func runRelay(ctx context.Context, dsn, broker string) error {
	opened, err := openStore(ctx, dsn)
	if err != nil {
		return err
	}
	log, err := newLog(opened)
	if err != nil {
		return err
	}
	nc, err := nats.Connect(broker, nats.ReconnectBufSize(-1))
	if err != nil {
		return err
	}
	r, err := New(Config{
		Log: log, DB: opened, Conn: nc, Source: "urn:usher:test", ScrubEvery: -1,
		Holder: "the same each time", // so that the next one need not wait for the lease
		Poll:   5 * time.Millisecond, BatchSize: 20, Window: 50,
	})
	if err != nil {
		return err
	}
	go func() {
		for r.Status().State != StateRunning {
			_ = eventstore.Pause(ctx, 100*time.Microsecond)
		}
		for start := r.published.Load(); r.published.Load() == start; {
			_ = eventstore.Pause(ctx, 100*time.Microsecond)
		}
		fmt.Println("publishing")
	}()
	return r.Run(ctx)
}

// startRelay starts a relay in a process of its own; publishes waits until it publishes.
func startRelay(t *testing.T, dsn, broker string) (cmd *exec.Cmd, publishes func()) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.Command(program)
	cmd.Env = append(os.Environ(), relayDatabase+"="+dsn, relayBroker+"="+broker)
	cmd.Stderr = testOutput{t}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := devstack.Spawn(cmd); err != nil {
		t.Fatal(err)
	}
	return cmd, func() {
		t.Helper()
		if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			t.Fatalf("the relay's process said %q: %v", line, err)
		}
	}
}

func TestKilledRelay(t *testing.T) {
	t.Parallel()
	const kills = 20 // of each
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		s, server := newSite(t), devstack.NATS(t)
		s.killRelays(t, server, kills**dose, func() {}, func() { s.appendEvents(t, 150) })
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		s, server := newPostgresSite(t), devstack.NATS(t)
		halt := s.keepAppending(t, 4)
		s.killRelays(t, server, kills**dose, halt, func() {})
	})
}

// killRelays starts a relay and kills it, over and over, each after load was put on, and halts what goes on beside it
// before everything is compared.
func (s *site) killRelays(t *testing.T, server *devstack.NATSServer, kills int, halt, load func()) {
	t.Helper()
	for i := range kills {
		load()
		cmd, publishes := startRelay(t, s.dsn, server.URL())
		if i%5 > 0 { // every fifth may die before it did anything
			publishes()
		}
		if eventstore.Pause(t.Context(), rand.N(10*time.Millisecond)) != nil {
			t.FailNow()
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err == nil {
			t.Fatal("the relay ended before it was killed")
		}
	}
	halt()
	nc := connection(t, server)
	killed := lastSequence(t, nc)
	if err := s.relay(t, nc, func(c *Config) { c.Holder = "the same each time" }).Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.checkStream(t, nc)
	t.Logf("%d events, %d of them published by relays that were killed", s.head(t), killed)
	if killed < int64(kills) {
		t.Error("the relays that were killed hardly published anything")
	}
}
