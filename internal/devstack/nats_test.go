package devstack_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/internal/devstack"
)

type natsServer interface {
	Connect(...nats.Option) (*nats.Conn, error)
}

func jetStream(t *testing.T, s natsServer) jetstream.JetStream {
	t.Helper()
	nc, err := s.Connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// eventually calls f until it succeeds.
func eventually(t *testing.T, ctx context.Context, f func(context.Context) error) {
	t.Helper()
	for {
		attempt, cancel := context.WithTimeout(ctx, time.Second)
		err := f(attempt)
		cancel()
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("still: %v", err)
		}
	}
}

func fill(t *testing.T, js jetstream.JetStream, replicas, messages int) jetstream.Stream {
	t.Helper()
	ctx := deadline(t)
	var s jetstream.Stream
	eventually(t, ctx, func(ctx context.Context) (err error) {
		s, err = js.CreateStream(ctx, jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}, Replicas: replicas})
		return err
	})
	for i := range messages {
		if _, err := js.Publish(ctx, "s.x", fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func wantMessages(t *testing.T, s jetstream.Stream, want uint64) {
	t.Helper()
	eventually(t, deadline(t), func(ctx context.Context) error {
		info, err := s.Info(ctx)
		if err == nil && info.State.Msgs != want {
			err = fmt.Errorf("%d messages, want %d", info.State.Msgs, want)
		}
		return err
	})
}

func TestNATSRestartKeepsStoreAndPort(t *testing.T) {
	t.Parallel()
	n := devstack.NATS(t)
	s := fill(t, jetStream(t, n), 1, 10)
	before := n.URL()
	n.Shutdown()
	n.Shutdown()
	if _, err := n.Connect(); err == nil {
		t.Error("connected to a server that is shut down")
	}
	if err := n.Restart(); err != nil {
		t.Fatal(err)
	}
	if n.URL() != before {
		t.Errorf("URL after Restart = %s, want %s", n.URL(), before)
	}
	wantMessages(t, s, 10)

	nc, err := nats.Connect(n.URL())
	if err != nil {
		t.Fatalf("connect over TCP: %v", err)
	}
	nc.Close()
}

func TestNATSDontListen(t *testing.T) {
	t.Parallel()
	n := devstack.NATS(t, func(o *devstack.NATSOptions) { o.DontListen, o.SyncAlways = true, true })
	wantMessages(t, fill(t, jetStream(t, n), 1, 3), 3)
}

func TestNATSPortTaken(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	n, err := devstack.StartNATS(devstack.NATSOptions{StoreDir: t.TempDir(), Port: l.Addr().(*net.TCPAddr).Port})
	if err == nil {
		n.Shutdown()
	}
	if err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("StartNATS on a taken port = %v, want address already in use", err)
	}
}

func TestNATSProcessSurvivesKill(t *testing.T) {
	t.Parallel()
	n := devstack.NATSProcess(t, t.TempDir(), 0, func(o *devstack.NATSOptions) { o.SyncAlways = true })
	s := fill(t, jetStream(t, n), 1, 10)
	before, pid := n.URL(), n.PID()
	n.Kill()
	n.Kill()
	if n.PID() != 0 {
		t.Errorf("PID after Kill = %d, want 0", n.PID())
	}
	if err := n.Restart(); err != nil {
		t.Fatal(err)
	}
	if n.URL() != before || n.PID() == pid {
		t.Errorf("after Restart %s as process %d, want %s and another than %d", n.URL(), n.PID(), before, pid)
	}
	wantMessages(t, s, 10)
	if err := n.Restart(); err != nil {
		t.Fatal(err)
	}
	wantMessages(t, s, 10)
}

func TestNATSProcessSaysWhyNot(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = devstack.StartNATSProcess(devstack.NATSOptions{StoreDir: t.TempDir(), Port: l.Addr().(*net.TCPAddr).Port})
	if err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("StartNATSProcess on a taken port = %v, want address already in use", err)
	}
}

// A replicated stream goes on without its leader, and the leader catches up when it comes back.
func TestNATSClusterLosesStreamLeader(t *testing.T) {
	t.Parallel()
	c := devstack.NATSCluster(t, 3)
	if c.Leader() == nil {
		t.Fatal("no meta leader")
	}
	js := jetStream(t, c)
	s := fill(t, js, 3, 10)
	ctx := deadline(t)
	info, err := s.Info(ctx)
	if err != nil {
		t.Fatal(err)
	}
	leader := c.Server(info.Cluster.Leader)
	if leader == nil {
		t.Fatalf("no server is called %q", info.Cluster.Leader)
	}
	leader.Shutdown()
	eventually(t, ctx, func(ctx context.Context) error {
		_, err := js.Publish(ctx, "s.x", nil, jetstream.WithExpectLastSequence(10))
		var apiErr *jetstream.APIError
		if errors.As(err, &apiErr) && apiErr.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence {
			return nil // an earlier attempt was stored without its answer arriving
		}
		return err
	})
	if err := leader.Restart(); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	eventually(t, ctx, func(ctx context.Context) error {
		info, err := s.Info(ctx)
		if err != nil {
			return err
		}
		for _, peer := range info.Cluster.Replicas {
			if !peer.Current {
				return fmt.Errorf("%s is behind", peer.Name)
			}
		}
		return nil
	})
	wantMessages(t, s, 11)
}

func BenchmarkStartNATS(b *testing.B) {
	for b.Loop() {
		n, err := devstack.StartNATS(devstack.NATSOptions{StoreDir: b.TempDir()})
		if err != nil {
			b.Fatal(err)
		}
		n.Shutdown()
	}
}

func BenchmarkNATSCluster(b *testing.B) {
	for b.Loop() {
		devstack.NATSCluster(b, 3)
	}
}
