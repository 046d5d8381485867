package devstack

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
)

// childEnv holds the options of the server that a process was started to be.
const childEnv = "USHER_DEVSTACK_NATS"

// RunIfChild runs the nats-server that this process was started to be by [StartNATSProcess] and then exits.
// In any other process it returns at once. Main calls it; a program without Main calls it first of all.
func RunIfChild() {
	options := os.Getenv(childEnv)
	if options == "" {
		return
	}
	if err := runChild(options); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func runChild(options string) error {
	var opts NATSOptions
	if err := json.Unmarshal([]byte(options), &opts); err != nil {
		return fmt.Errorf("%s: %w", childEnv, err)
	}
	opts.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM, os.Interrupt)
	n, err := StartNATS(opts)
	if err != nil {
		return err
	}
	fmt.Println(n.URL())
	// The parent holds the other end of stdin, so that its death is seen on every system.
	orphaned := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(orphaned)
	}()
	select {
	case <-terminated:
	case <-orphaned:
	}
	n.Shutdown()
	return nil
}

// NATSChild is a nats-server with JetStream in a process of its own, which can be killed. Its methods must
// not be called concurrently, except URL and Connect.
type NATSChild struct {
	opts   NATSOptions
	url    string
	proc   *child
	stdin  io.Closer
	stderr bytes.Buffer
}

// NATSProcess starts a server of its own process for one test, on the store dir and the port (0 for a free
// one), and stops it when the test ends. The package's TestMain must call Main.
func NATSProcess(tb TB, dir string, port int, change ...func(*NATSOptions)) *NATSChild {
	tb.Helper()
	if !mainRuns.Load() {
		tb.Fatalf("devstack: the package needs func TestMain(m *testing.M) { os.Exit(devstack.Main(m)) }")
	}
	opts := NATSOptions{StoreDir: dir, Port: port}
	for _, f := range change {
		f(&opts)
	}
	n, err := StartNATSProcess(opts)
	if err != nil {
		tb.Fatalf("devstack: %v", err)
	}
	tb.Cleanup(func() {
		if err := n.Stop(); err != nil {
			tb.Logf("devstack: %v", err)
		}
		if tb.Failed() {
			tb.Logf("nats-server log:\n%s", n.stderr.String())
		}
	})
	return n
}

// StartNATSProcess runs this program once more, as a nats-server, and returns when it accepts connections.
// The program has to call RunIfChild, or Main, before anything else. Options that are functions or loggers
// don't reach another process, and it refuses DontListen.
func StartNATSProcess(opts NATSOptions) (*NATSChild, error) {
	if opts.Configure != nil || opts.DontListen {
		return nil, errors.New("start NATS process: Configure and DontListen only work inside this process")
	}
	if os.Getenv(childEnv) != "" {
		return nil, errors.New("start NATS process: this program does not call devstack.RunIfChild")
	}
	n := &NATSChild{opts: opts}
	if err := n.start(); err != nil {
		return nil, fmt.Errorf("start NATS process: %w", err)
	}
	return n, nil
}

func (n *NATSChild) start() error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	options, err := json.Marshal(n.opts)
	if err != nil {
		return err
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), childEnv+"="+string(options))
	n.stderr.Reset()
	cmd.Stderr = &n.stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd.Stdout = w
	proc, err := spawnChild(cmd)
	_ = w.Close()
	if err != nil {
		return err
	}
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		<-proc.done
		return fmt.Errorf("%s: %w", strings.TrimSpace(n.stderr.String()), proc.err)
	}
	n.url, n.proc, n.stdin = strings.TrimSpace(line), proc, stdin
	u, err := url.Parse(n.url)
	if err != nil {
		return err
	}
	n.opts.Port, err = strconv.Atoi(u.Port())
	return err
}

// URL returns the server's address. It stays the same over Restart.
func (n *NATSChild) URL() string { return n.url }

// PID returns the process id of the server, 0 when it is down.
func (n *NATSChild) PID() int {
	if n.proc == nil {
		return 0
	}
	return n.proc.pid()
}

// StoreDir returns the directory given in the options.
func (n *NATSChild) StoreDir() string { return n.opts.StoreDir }

// Connect connects over TCP. The connection survives a Restart; the caller closes it.
func (n *NATSChild) Connect(opts ...nats.Option) (*nats.Conn, error) {
	nc, err := nats.Connect(n.url, clientOptions(opts)...)
	if err != nil {
		return nil, fmt.Errorf("connect to NATS: %w", err)
	}
	return nc, nil
}

// Kill ends the server with SIGKILL, as a crash does. The store stays for Restart.
func (n *NATSChild) Kill() {
	if n.proc == nil {
		return
	}
	n.proc.kill()
	_ = n.stdin.Close()
	n.proc = nil
}

// Stop shuts the server down in good order. Calling it again does nothing. The store stays.
func (n *NATSChild) Stop() error {
	if n.proc == nil {
		return nil
	}
	proc := n.proc
	_ = n.stdin.Close() // which the child takes for our end, and shuts down
	select {
	case <-proc.done:
		n.proc = nil
		return proc.err
	case <-time.After(30 * time.Second):
		n.Kill()
		return errors.New("stop NATS process: killed after 30 s")
	}
}

// Restart starts the server again on the same store and port, shutting it down first if it runs.
func (n *NATSChild) Restart() error {
	if err := n.Stop(); err != nil {
		return err
	}
	if err := n.start(); err != nil {
		return fmt.Errorf("restart NATS process: %w", err)
	}
	return nil
}
