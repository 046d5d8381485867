package devstack

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// NATSOptions says how a server is set up. Only StoreDir is needed.
type NATSOptions struct {
	// StoreDir holds the JetStream data. No other running server may use it: nats-server does not lock it.
	StoreDir string
	// Host is 127.0.0.1 unless it is set.
	Host string
	// Port 0 picks a free one, which Restart keeps.
	Port int
	// DontListen leaves in-process connections as the only way in.
	DontListen bool
	// SyncInterval is the time between syncs of the stores to disk, two minutes unless it is set.
	SyncInterval time.Duration
	// SyncAlways syncs before every acknowledgement.
	SyncAlways bool
	// Name is the server's name, a random one unless it is set.
	Name string
	// Routes are the addresses, host and port, at which the servers of a cluster reach each other, this one's own first;
	// none for a server that stands alone.
	Routes []string
	// Log receives what the server logs at warning level and above. Nil discards it.
	Log *slog.Logger `json:"-"`
	// Configure, if set, has the last word on the server's options.
	Configure func(*server.Options) `json:"-"`
}

func (o NATSOptions) serverOptions() (*server.Options, error) {
	opts := &server.Options{SyncInterval: o.SyncInterval, SyncAlways: o.SyncAlways}
	opts.ServerName = o.Name
	opts.Host, opts.Port, opts.DontListen = cmp.Or(o.Host, "127.0.0.1"), o.Port, o.DontListen
	opts.JetStream, opts.StoreDir, opts.DisableJetStreamBanner = true, o.StoreDir, true
	opts.NoLog, opts.NoSigs = true, true // the server's signal handler would end this process
	for _, address := range o.Routes {
		opts.Routes = append(opts.Routes, &url.URL{Scheme: "nats-route", Host: address})
	}
	if len(o.Routes) > 0 {
		host, port, err := net.SplitHostPort(o.Routes[0])
		if err != nil {
			return nil, err
		}
		opts.Cluster = server.ClusterOpts{Name: "devstack", Host: host, PoolSize: -1}
		if opts.Cluster.Port, err = strconv.Atoi(port); err != nil {
			return nil, err
		}
	}
	if o.Configure != nil {
		o.Configure(opts)
	}
	return opts, nil
}

// NATSServer is a nats-server with JetStream inside this process. Its methods may be called concurrently.
type NATSServer struct {
	opts    NATSOptions
	mu      sync.Mutex
	server  *server.Server
	running bool
}

// NATS starts a server for one test, on a store in the test's temporary directory, and shuts it down when
// the test ends.
func NATS(tb TB, change ...func(*NATSOptions)) *NATSServer {
	tb.Helper()
	opts := NATSOptions{}
	for _, f := range change {
		f(&opts)
	}
	if opts.StoreDir == "" {
		opts.StoreDir = tb.TempDir()
	}
	n, err := StartNATS(opts)
	if err != nil {
		tb.Fatalf("devstack: %v", err)
	}
	tb.Cleanup(n.Shutdown)
	return n
}

// StartNATS starts a server and returns when it accepts connections and JetStream is ready.
func StartNATS(opts NATSOptions) (*NATSServer, error) {
	if opts.StoreDir == "" {
		return nil, errors.New("start NATS: no store directory")
	}
	n := &NATSServer{opts: opts}
	for attempt := 1; ; attempt++ {
		if opts.Port == 0 && !opts.DontListen {
			port, err := FreePort()
			if err != nil {
				return nil, fmt.Errorf("start NATS: %w", err)
			}
			n.opts.Port = port
		}
		err := n.start()
		if err == nil {
			return n, nil
		}
		if opts.Port != 0 || opts.DontListen || attempt == 3 {
			return nil, fmt.Errorf("start NATS: %w", err)
		}
	}
}

func (n *NATSServer) start() error {
	opts, err := n.opts.serverOptions()
	if err != nil {
		return err
	}
	s, err := server.NewServer(opts)
	if err != nil {
		return err
	}
	log := &serverLog{to: n.opts.Log}
	s.SetLogger(log, false, false)
	s.Start()
	// Start returns once the listeners are open, or with the first fatal error logged.
	if err := log.fatalError(); err != nil {
		s.Shutdown()
		s.WaitForShutdown()
		return err
	}
	if !s.ReadyForConnections(30*time.Second) || !s.JetStreamEnabled() {
		s.Shutdown()
		s.WaitForShutdown()
		return errors.New("nats-server is not ready after 30 s")
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.server, n.running = s, true
	return nil
}

// Server returns the server as it now is; Restart replaces it.
func (n *NATSServer) Server() *server.Server {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.server
}

// URL returns the address for clients of other processes. It stays the same over Restart.
func (n *NATSServer) URL() string { return n.Server().ClientURL() }

// StoreDir returns the directory given in the options.
func (n *NATSServer) StoreDir() string { return n.opts.StoreDir }

// InProcessConn lets nats.InProcessServer find the server again after a Restart.
func (n *NATSServer) InProcessConn() (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.running {
		return nil, errors.New("nats-server is down")
	}
	return n.server.InProcessConn()
}

func (n *NATSServer) isRunning() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.running
}

// clientOptions are what every connection of ours has: it comes back for as long as it takes, and refuses
// to publish while it is away instead of keeping messages that may be stale when they go out.
func clientOptions(opts []nats.Option) []nats.Option {
	return append([]nats.Option{
		nats.ReconnectBufSize(-1),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(20 * time.Millisecond),
		nats.ReconnectJitter(10*time.Millisecond, 10*time.Millisecond),
	}, opts...)
}

// Connect connects in process, without a socket. The connection survives a Restart; the caller closes it.
func (n *NATSServer) Connect(opts ...nats.Option) (*nats.Conn, error) {
	nc, err := nats.Connect("", append(clientOptions(opts), nats.InProcessServer(n))...)
	if err != nil {
		return nil, fmt.Errorf("connect to NATS: %w", err)
	}
	return nc, nil
}

// Shutdown stops the server in good order and waits for it. Calling it again does nothing.
func (n *NATSServer) Shutdown() {
	n.mu.Lock()
	s := n.server
	n.running = false
	n.mu.Unlock()
	s.Shutdown()
	s.WaitForShutdown()
}

// Restart starts the server again on the same store and port, shutting it down first if it runs.
func (n *NATSServer) Restart() error {
	n.Shutdown()
	if err := n.start(); err != nil {
		return fmt.Errorf("restart NATS: %w", err)
	}
	return nil
}

// serverLog passes the server's warnings and errors on, and keeps its fatal one, since the server only logs
// why it could not start.
type serverLog struct {
	to    *slog.Logger
	mu    sync.Mutex
	fatal error
}

func (l *serverLog) fatalError() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fatal
}

func (l *serverLog) Fatalf(format string, args ...any) {
	text := strings.TrimSpace(fmt.Sprintf(format, args...))
	l.mu.Lock()
	if l.fatal == nil {
		l.fatal = errors.New(text)
	}
	l.mu.Unlock()
	if l.to != nil {
		l.to.Error("nats-server: " + text)
	}
}

func (l *serverLog) Errorf(format string, args ...any) {
	if l.to != nil {
		l.to.Error("nats-server: " + fmt.Sprintf(format, args...))
	}
}

func (l *serverLog) Warnf(format string, args ...any) {
	if l.to != nil {
		l.to.Warn("nats-server: " + fmt.Sprintf(format, args...))
	}
}

func (l *serverLog) Noticef(string, ...any) {}
func (l *serverLog) Debugf(string, ...any)  {}
func (l *serverLog) Tracef(string, ...any)  {}
