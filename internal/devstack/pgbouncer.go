package devstack

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// errNoPgBouncer reports that the program is not on this machine.
var errNoPgBouncer = errors.New("no PgBouncer found: install it, or let test/postgres.sh do so")

// Pooler is a PgBouncer in front of a PostgreSQL: a child process of this one, on a free port of 127.0.0.1. It asks for no passwords.
type Pooler struct {
	port int
	proc *child
}

// PgBouncer starts a pooler for one test, in front of the server of TEST_DATABASE_URL or one of ours, and stops it when the test
// ends. Everything is as PgBouncer has it by default, but for the settings that are given, such as "pool_mode": "transaction".
func PgBouncer(tb TB, server *Postgres, settings map[string]string) *Pooler {
	tb.Helper()
	dir, err := os.MkdirTemp("", "usher-pgbouncer-") // as root's tests run it as somebody else, who can't enter their own
	if err != nil {
		tb.Fatalf("devstack: %v", err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	p, err := startPgBouncer(dir, server, settings)
	if err != nil {
		tb.Fatalf("devstack: %v", err)
	}
	tb.Cleanup(func() {
		p.proc.kill()
		if log, err := os.ReadFile(filepath.Join(dir, "log")); err == nil && tb.Failed() {
			tb.Logf("PgBouncer log:\n%s", log[max(0, len(log)-4000):])
		}
	})
	return p
}

func startPgBouncer(dir string, server *Postgres, settings map[string]string) (*Pooler, error) {
	program, err := findPgBouncer()
	if err != nil {
		return nil, err
	}
	attr, err := postgresAttr(dir) // it refuses to run as root, too
	if err != nil {
		return nil, err
	}
	for attempt := 1; ; attempt++ {
		p := &Pooler{}
		if p.port, err = FreePort(); err != nil {
			return nil, err
		}
		files := map[string]string{
			"users":         `"postgres" ""` + "\n",
			"pgbouncer.ini": p.configuration(server, settings),
		}
		for _, name := range slices.Sorted(maps.Keys(files)) {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(files[name]), 0o644); err != nil {
				return nil, err
			}
		}
		log, err := os.Create(filepath.Join(dir, "log"))
		if err != nil {
			return nil, err
		}
		cmd := exec.Command(program, "pgbouncer.ini")
		cmd.Dir, cmd.SysProcAttr, cmd.Stdout, cmd.Stderr = dir, attr, log, log
		p.proc, err = spawnChild(cmd)
		err = errors.Join(err, log.Close())
		if err == nil {
			err = p.listens()
		}
		if err == nil {
			return p, nil
		}
		if attempt == 3 { // nothing reserves a free port, so another process may be faster
			said, _ := os.ReadFile(filepath.Join(dir, "log"))
			return nil, fmt.Errorf("start PgBouncer: %w\n%s", err, said)
		}
	}
}

func (p *Pooler) configuration(server *Postgres, settings map[string]string) string {
	to := fmt.Sprintf("* = host=%s port=%s", server.dsn.Hostname(), server.dsn.Port())
	if password, ok := server.dsn.User.Password(); ok {
		to += " user=" + server.dsn.User.Username() + " password=" + password
	}
	lines := []string{"[databases]", to, "[pgbouncer]", "listen_addr = 127.0.0.1", "listen_port = " + strconv.Itoa(p.port),
		"unix_socket_dir =", "auth_type = trust", "auth_file = users"}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		lines = append(lines, name+" = "+settings[name])
	}
	return strings.Join(lines, "\n") + "\n"
}

// listens waits until connections are accepted.
func (p *Pooler) listens() error {
	for {
		conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(p.port)))
		if err == nil {
			return conn.Close()
		}
		if p.proc.exited() {
			return fmt.Errorf("it has ended: %w", p.proc.err)
		}
	}
}

// DSN is the connection string of the server's, by way of the pooler, with further parameters.
func (p *Pooler) DSN(direct string, parameters ...string) string {
	u, err := url.Parse(direct)
	if err != nil {
		return ""
	}
	u.Host = net.JoinHostPort("127.0.0.1", strconv.Itoa(p.port))
	query := u.Query()
	for _, parameter := range parameters {
		name, value, _ := strings.Cut(parameter, "=")
		query.Set(name, value)
	}
	u.RawQuery = query.Encode()
	return u.String()
}

// findPgBouncer finds the program where distributions put it, which may be no place for everybody's PATH.
func findPgBouncer() (string, error) {
	for _, name := range []string{"pgbouncer", "/usr/sbin/pgbouncer", "/usr/local/bin/pgbouncer", "/opt/homebrew/bin/pgbouncer"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errNoPgBouncer
}

// PgBouncerVersion is the version of the program on this machine, such as 1.18.
func PgBouncerVersion(tb TB) (major, minor int) {
	tb.Helper()
	program, err := findPgBouncer()
	if err != nil {
		tb.Fatalf("devstack: %v", err)
	}
	out, err := exec.Command(program, "--version").Output()
	if err == nil {
		_, err = fmt.Sscanf(string(out), "PgBouncer %d.%d", &major, &minor)
	}
	if err != nil {
		tb.Fatalf("devstack: the version of PgBouncer: %v: %s", err, out)
	}
	return major, minor
}
