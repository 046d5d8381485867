// Package devstack runs the servers that usher stands on, for development and for tests: PostgreSQL as a
// child process, nats-server inside this process or as a child process of its own.
//
// Every server is a real one on a directory of its own and a free port of 127.0.0.1. Servers stop, and their
// temporary directories go, when the test that asked for them ends; the one PostgreSQL that a test binary
// shares stops in [Main]. On Linux the child processes also end when this process is killed; elsewhere a
// killed process may leave a PostgreSQL behind.
//
// [Eventually], [Background] and [Output] are for tests that wait for what goes on beside them.
//
// It offers nothing for production: no authentication, no TLS, and durability only where it is asked for.
//
// The package does not import testing, because the usher binary links it.
package devstack

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync/atomic"
)

// TB is the part of testing.TB that devstack needs.
type TB interface {
	Helper()
	Name() string
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Failed() bool
	Cleanup(func())
	TempDir() string
	Context() context.Context
}

// mainRuns is set while Main runs, which is what makes the shared server stop.
var mainRuns atomic.Bool

// Main runs the tests of a package and then stops the server they shared. Every package that uses
// [SharedPostgres], [Database] or [NATSProcess] has it as its TestMain:
//
//	func TestMain(m *testing.M) { os.Exit(devstack.Main(m)) }
//
// The result is the exit code: that of the tests, or 1 if the shared server did not stop cleanly.
func Main(m interface{ Run() int }) int {
	RunIfChild()
	mainRuns.Store(true)
	code := m.Run()
	mainRuns.Store(false)
	if err := shared.stop(); err != nil {
		fmt.Fprintln(os.Stderr, "devstack:", err)
		return max(code, 1)
	}
	return code
}

// Ports come from below the range from which systems pick ports for outgoing connections (32768 on Linux,
// 49152 elsewhere). A client that dials a stopped server over and over would otherwise in the end be given
// the server's own port as its source, connect to itself, and keep the server from coming back.
const (
	firstPort = 20000
	lastPort  = 32000
)

// FreePort returns a TCP port of 127.0.0.1 that nothing listens on. Nothing reserves it: a server that
// finds it taken has to ask again.
func FreePort() (int, error) {
	var errs error
	for range 50 {
		port := firstPort + rand.IntN(lastPort-firstPort)
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			errs = err
			continue
		}
		if err := l.Close(); err != nil {
			return 0, fmt.Errorf("free port: %w", err)
		}
		return port, nil
	}
	return 0, fmt.Errorf("free port: %w", errors.Join(errors.New("50 ports tried"), errs))
}
