package devstack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"
	"github.com/jackc/pgx/v5"
)

// ErrNoPostgres reports that no PostgreSQL server program was found on this machine.
var ErrNoPostgres = errors.New("no PostgreSQL server found: install it, or let test/postgres.sh do so")

// PostgresOptions says how a server is set up. The zero value is right for most tests.
type PostgresOptions struct {
	// Durable leaves fsync and full_page_writes on, as crash tests and benchmarks need. Otherwise the
	// server may lose everything if the machine stops, though not if only the server is killed.
	Durable bool
	// Settings are further server settings, such as "synchronous_commit": "off".
	Settings map[string]string
}

// Postgres is a PostgreSQL server: a child process of this one, on a temporary directory and a port of
// 127.0.0.1, with the superuser postgres and no password. Its methods must not be called concurrently,
// except DSN.
type Postgres struct {
	dsn      *url.URL // without a database
	external bool     // the server of TEST_DATABASE_URL, which is not ours to start or stop
	bin      string
	dir      string // holds data, log and lock
	lock     *flock.Flock
	port     int
	settings map[string]string
	proc     *child
	killed   bool // the last stop was Kill, which leaves shared memory behind
}

// Bin is the directory of PostgreSQL's programs.
func (p *Postgres) Bin() string { return p.bin }

// OwnPostgres starts a server for one test and stops it when the test ends.
func OwnPostgres(tb TB, opts PostgresOptions) *Postgres {
	tb.Helper()
	p, err := StartPostgres(tb.Context(), opts)
	if err != nil {
		tb.Fatalf("devstack: %v", err)
	}
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("PostgreSQL log:\n%s", p.logTail())
		}
		if err := p.Stop(); err != nil {
			tb.Logf("devstack: %v", err)
		}
	})
	return p
}

// StartPostgres makes a new, empty server and waits until it accepts connections. Cancelling ctx ends the
// wait; it does not stop a server that has been returned. It returns ErrNoPostgres where there is none to run.
func StartPostgres(ctx context.Context, opts PostgresOptions) (*Postgres, error) {
	bin, err := findPostgres()
	if err != nil {
		return nil, err
	}
	removeAbandoned()
	dir, err := os.MkdirTemp("", abandonedPrefix)
	if err != nil {
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	p := &Postgres{bin: bin, dir: dir, lock: flock.New(filepath.Join(dir, "lock")), settings: serverSettings(opts)}
	if err := p.initialise(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start PostgreSQL: %w", err), p.Stop())
	}
	// Nothing reserves a free port, so another process may be faster.
	for attempt := 1; ; attempt++ {
		if p.port, err = FreePort(); err == nil {
			err = p.start(ctx)
		}
		if err == nil {
			break
		}
		if attempt == 3 || ctx.Err() != nil {
			return nil, errors.Join(fmt.Errorf("start PostgreSQL: %w", err), p.Stop())
		}
	}
	p.dsn = &url.URL{
		Scheme: "postgres", User: url.User("postgres"), Host: "127.0.0.1:" + strconv.Itoa(p.port), RawQuery: "sslmode=disable",
	}
	return p, nil
}

func serverSettings(opts PostgresOptions) map[string]string {
	s := map[string]string{
		"listen_addresses":        "127.0.0.1",
		"unix_socket_directories": "", // their paths are limited to 107 bytes, temporary directories are not
		"max_connections":         "500",
		"timezone":                "UTC",
		"log_timezone":            "UTC",
		"jit":                     "off", // compiling a query takes longer than running it on what tests have
		// Segments in /dev/shm would outlive a killed server; files in its data directory go with it.
		"dynamic_shared_memory_type": "mmap",
	}
	if !opts.Durable {
		s["fsync"] = "off"
		s["full_page_writes"] = "off"
	}
	for name, value := range opts.Settings {
		s[name] = value
	}
	return s
}

// findPostgres returns the directory of the newest initdb and postgres that it finds together, or TEST_POSTGRES_BIN where that is set.
func findPostgres() (string, error) {
	complete := func(dir string) bool {
		_, noInitdb := exec.LookPath(filepath.Join(dir, "initdb"))
		_, noServer := exec.LookPath(filepath.Join(dir, "postgres"))
		return noInitdb == nil && noServer == nil
	}
	if dir := os.Getenv("TEST_POSTGRES_BIN"); dir != "" {
		if !complete(dir) {
			return "", fmt.Errorf("%w: TEST_POSTGRES_BIN has no initdb and postgres", ErrNoPostgres)
		}
		return dir, nil
	}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if filepath.IsAbs(dir) && complete(dir) {
			return dir, nil
		}
	}
	best, bestVersion := "", -1.0
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin",         // Debian, Ubuntu, Alpine
		"/usr/libexec/postgresql*",          // older Alpine
		"/usr/pgsql-*/bin",                  // PGDG on Fedora, RHEL
		"/usr/local/bin",                    // the official image, BSD
		"/usr/local/pgsql/bin",              // from source
		"/opt/homebrew/opt/postgresql*/bin", // Homebrew on Apple silicon
		"/usr/local/opt/postgresql*/bin",    // Homebrew on Intel
	} {
		dirs, err := filepath.Glob(pattern)
		if err != nil {
			return "", err
		}
		for _, dir := range dirs {
			digits := strings.TrimFunc(strings.TrimSuffix(dir, "/bin"), func(r rune) bool { return r < '0' || r > '9' })
			version, err := strconv.ParseFloat(digits, 64)
			if err != nil {
				version = 0
			}
			if complete(dir) && version > bestVersion {
				best, bestVersion = dir, version
			}
		}
	}
	if best == "" {
		return "", ErrNoPostgres
	}
	return best, nil
}

const (
	abandonedPrefix = "usher-postgres-"
	abandonedAge    = time.Hour
)

// removeAbandoned removes the directories of processes that were killed before they could, and those kept
// after a failed test, once they are an hour old. A live server's directory is locked.
func removeAbandoned() {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), abandonedPrefix+"*"))
	if err != nil {
		return
	}
	for _, dir := range dirs {
		info, err := os.Stat(dir)
		if err != nil || time.Since(info.ModTime()) < abandonedAge {
			continue
		}
		lock := flock.New(filepath.Join(dir, "lock"))
		if ok, err := lock.TryLock(); err != nil || !ok {
			continue
		}
		_ = os.RemoveAll(dir) // the next process tries again
		_ = lock.Unlock()
	}
}

func (p *Postgres) initialise(ctx context.Context) error {
	if ok, err := p.lock.TryLock(); err != nil || !ok {
		return fmt.Errorf("lock %s: %w", p.dir, err)
	}
	attr, err := postgresAttr(p.dir)
	if err != nil {
		return err
	}
	locale := "C"
	if runtime.GOOS == "linux" {
		locale = "C.UTF-8" // folds the case of every script, as a deployed server does
	}
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, "initdb"), "--pgdata="+p.data(), "--username=postgres",
		"--auth=trust", "--encoding=UTF8", "--locale="+locale, "--no-sync")
	cmd.Dir, cmd.SysProcAttr = p.dir, attr
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := Spawn(cmd); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("initdb: %s: %w", bytes.TrimSpace(out.Bytes()), err)
	}
	return nil
}

func (p *Postgres) data() string    { return filepath.Join(p.dir, "data") }
func (p *Postgres) logFile() string { return filepath.Join(p.dir, "log") }

// start runs the server and waits until it accepts connections.
func (p *Postgres) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("PostgreSQL is not ready after a minute"))
	defer cancel()
	for {
		err := p.run(ctx)
		// The backends of a killed server hold its shared memory until they notice that it is gone.
		if err == nil || !strings.Contains(err.Error(), "shared memory block") {
			return err
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

func (p *Postgres) run(ctx context.Context) error {
	attr, err := postgresAttr(p.dir)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(p.logFile(), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(p.bin, "postgres"), "-D", p.data(), "-p", strconv.Itoa(p.port))
	for name, value := range p.settings {
		cmd.Args = append(cmd.Args, "-c", name+"="+value)
	}
	cmd.Dir, cmd.SysProcAttr, cmd.Stdout, cmd.Stderr = p.dir, attr, log, log
	proc, err := spawnChild(cmd)
	if err != nil {
		return err
	}
	for !p.ready(proc.pid()) {
		if proc.exited() {
			return fmt.Errorf("postgres: %s: %w", p.logTail(), proc.err)
		}
		if err := pause(ctx, 2*time.Millisecond); err != nil {
			proc.kill()
			return fmt.Errorf("postgres: %s: %w", p.logTail(), err)
		}
	}
	p.proc, p.killed = proc, false
	return nil
}

// ready reads the server's own account of itself, which, unlike connecting until it works, leaves nothing
// in its log. The process number tells it from what a killed server wrote.
func (p *Postgres) ready(pid int) bool {
	lines := p.pidFile()
	return len(lines) > 7 && lines[0] == strconv.Itoa(pid) && strings.TrimSpace(lines[7]) == "ready"
}

// pidFile returns the lines of postmaster.pid: process, directory, start, port, socket, address, shared
// memory (key and id) and state.
func (p *Postgres) pidFile() []string {
	b, err := os.ReadFile(filepath.Join(p.data(), "postmaster.pid"))
	if err != nil {
		return nil
	}
	return strings.Split(string(b), "\n")
}

func (p *Postgres) logTail() string {
	b, err := os.ReadFile(p.logFile())
	if err != nil {
		return err.Error()
	}
	if len(b) > 4000 {
		b = b[len(b)-4000:]
	}
	return string(bytes.TrimSpace(b))
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// DSN returns the connection string of a database, as the superuser.
func (p *Postgres) DSN(database string) string {
	dsn := *p.dsn
	dsn.Path = "/" + database
	return dsn.String()
}

// PID returns the process id of the server, 0 when it is down or not ours.
func (p *Postgres) PID() int {
	if p.proc == nil {
		return 0
	}
	return p.proc.pid()
}

// PIDs returns the process ids of the server and, on Linux, of its backends and workers, as they are now.
func (p *Postgres) PIDs() []int {
	if p.proc == nil {
		return nil
	}
	return append([]int{p.proc.pid()}, children(p.proc.pid())...)
}

var errNotOurs = errors.New("the server of TEST_DATABASE_URL is not ours to stop")

// Kill ends the server and, on Linux, its backends with SIGKILL, as a crash does. The data stay for Restart.
func (p *Postgres) Kill() error {
	if p.external {
		return errNotOurs
	}
	if p.proc == nil {
		return nil
	}
	backends := children(p.proc.pid())
	p.proc.kill()
	for _, pid := range backends {
		if backend, err := os.FindProcess(pid); err == nil {
			_ = backend.Kill() // gone already, if it noticed
		}
	}
	p.proc, p.killed = nil, true
	return nil
}

// Halt shuts the server down in good order, cutting its connections. The data stay for Restart.
func (p *Postgres) Halt() error { return p.end(syscall.SIGINT) }

func (p *Postgres) end(signal os.Signal) error {
	if p.external {
		return errNotOurs
	}
	if p.proc == nil {
		return nil
	}
	if runtime.GOOS == "windows" {
		return p.Kill()
	}
	if err := p.proc.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop PostgreSQL: %w", err)
	}
	select {
	case <-p.proc.done:
		p.proc = nil
		return nil
	case <-time.After(time.Minute):
		return fmt.Errorf("stop PostgreSQL: process %d runs on after a minute", p.proc.pid())
	}
}

// Restart starts the server again on the same data and port, after Kill or Halt, or after shutting it down
// in good order if it runs. It waits until recovery is done and connections are accepted.
func (p *Postgres) Restart(ctx context.Context) error {
	if err := p.Halt(); err != nil {
		return err
	}
	if err := p.start(ctx); err != nil {
		return fmt.Errorf("restart PostgreSQL: %w", err)
	}
	return nil
}

// Stop ends the server and removes everything it made. Calling it again does nothing.
func (p *Postgres) Stop() error {
	if p.external {
		return nil
	}
	// Immediate shutdown: there is no point in a checkpoint of data about to be removed.
	if err := p.end(syscall.SIGQUIT); err != nil {
		return err
	}
	return errors.Join(p.releaseMemory(), os.RemoveAll(p.dir), p.lock.Unlock())
}

// releaseMemory removes the shared memory segment that a killed server could not.
func (p *Postgres) releaseMemory() error {
	lines := p.pidFile()
	if !p.killed || len(lines) < 7 {
		return nil
	}
	fields := strings.Fields(lines[6])
	if len(fields) != 2 {
		return nil
	}
	id, err := strconv.Atoi(fields[1])
	if err != nil {
		return fmt.Errorf("shared memory id of PostgreSQL: %w", err)
	}
	if err := removeSharedMemory(id); err != nil {
		return fmt.Errorf("remove shared memory of PostgreSQL: %w", err)
	}
	p.killed = false
	return nil
}

// exec runs one statement on the database postgres, in a connection of its own.
func (p *Postgres) exec(ctx context.Context, sql string) (err error) {
	conn, err := pgx.Connect(ctx, p.DSN("postgres"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	_, err = conn.Exec(ctx, sql)
	return err
}
