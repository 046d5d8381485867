package devstack

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// Cluster is a cluster of nats-servers inside this process, each with its own store.
type Cluster struct {
	// Servers are named n1, n2 and so on. Shutdown and Restart of one keep the others running.
	Servers []*NATSServer
}

// NATSCluster starts n servers that know each other, waits until they have a meta leader and shuts them down
// when the test ends. The options of each pass through change, which must leave the name alone.
func NATSCluster(tb TB, n int, change ...func(*NATSOptions)) *Cluster {
	tb.Helper()
	c, err := startCluster(tb.TempDir(), n, change)
	if err != nil {
		tb.Fatalf("devstack: %v", err)
	}
	tb.Cleanup(func() {
		for _, s := range c.Servers {
			s.Shutdown()
		}
	})
	ctx, cancel := context.WithTimeout(tb.Context(), 30*time.Second)
	defer cancel()
	if err := c.WaitReady(ctx); err != nil {
		tb.Fatalf("devstack: %v", err)
	}
	return c
}

func startCluster(dir string, n int, change []func(*NATSOptions)) (*Cluster, error) {
	options, err := clusterOptions(dir, n, change)
	if err != nil {
		return nil, err
	}
	c := &Cluster{}
	for _, opts := range options {
		s, err := StartNATS(opts)
		if err != nil {
			for _, s := range c.Servers {
				s.Shutdown()
			}
			return nil, err
		}
		c.Servers = append(c.Servers, s)
	}
	return c, nil
}

// clusterOptions are the options of n servers that know each other, each with a store of its own below dir.
func clusterOptions(dir string, n int, change []func(*NATSOptions)) ([]NATSOptions, error) {
	var routes []string
	for range n {
		port, err := FreePort()
		if err != nil {
			return nil, err
		}
		routes = append(routes, net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	}
	options := make([]NATSOptions, n)
	for i := range options {
		options[i].Name = "n" + strconv.Itoa(i+1)
		for _, f := range change {
			f(&options[i])
		}
		options[i].StoreDir = filepath.Join(dir, options[i].Name)
		options[i].Routes = append(slices.Clone(routes[i:]), routes[:i]...)
	}
	return options, nil
}

// NATSProcesses starts n servers that know each other, each in a process of its own, which can be killed, and stops them
// when the test ends. The package's TestMain must call Main. Whoever asks them for JetStream at once may find that they
// have no leader yet.
func NATSProcesses(tb TB, n int) []*NATSChild {
	tb.Helper()
	options, err := clusterOptions(tb.TempDir(), n, nil)
	if err != nil {
		tb.Fatalf("devstack: %v", err)
	}
	servers := make([]*NATSChild, n)
	for i, opts := range options {
		servers[i] = NATSProcess(tb, opts.StoreDir, 0, func(o *NATSOptions) { o.Name, o.Routes = opts.Name, opts.Routes })
	}
	return servers
}

// URL returns the addresses of all servers, as nats.Connect takes them.
func (c *Cluster) URL() string {
	var urls []string
	for _, s := range c.Servers {
		urls = append(urls, s.URL())
	}
	return strings.Join(urls, ",")
}

// Connect connects to any of the servers. The connection moves on when its server stops; the caller closes it.
func (c *Cluster) Connect(opts ...nats.Option) (*nats.Conn, error) {
	nc, err := nats.Connect(c.URL(), clientOptions(opts)...)
	if err != nil {
		return nil, fmt.Errorf("connect to the NATS cluster: %w", err)
	}
	return nc, nil
}

// Server returns the server called name, as a stream's cluster information names its leader, or nil.
func (c *Cluster) Server(name string) *NATSServer {
	for _, s := range c.Servers {
		if s.opts.Name == name {
			return s
		}
	}
	return nil
}

// Leader returns the running server that is the meta leader, or nil while there is none.
func (c *Cluster) Leader() *NATSServer {
	for _, s := range c.Servers {
		if s.isRunning() && s.Server().JetStreamIsLeader() {
			return s
		}
	}
	return nil
}

// WaitReady waits until the running servers have a meta leader and agree with it. It returns an error that
// wraps the cause when ctx ends first.
func (c *Cluster) WaitReady(ctx context.Context) error {
	for !c.ready() {
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return fmt.Errorf("NATS cluster has no leader: %w", err)
		}
	}
	return nil
}

func (c *Cluster) ready() bool {
	leader := c.Leader()
	if leader == nil || len(leader.Server().JetStreamClusterPeers()) < len(c.Servers) {
		return false
	}
	for _, s := range c.Servers {
		if s.isRunning() && !s.Server().JetStreamIsCurrent() {
			return false
		}
	}
	return true
}
