package devstack

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/gofrs/flock"
)

// StartStandby makes a server that follows this one by streaming replication, under an application name, and waits until it
// accepts connections. It listens at a port, at a free one when that is 0: a standby may take the place of a server that was
// killed. It is for the caller to stop.
func (p *Postgres) StartStandby(ctx context.Context, name string, port int) (*Postgres, error) {
	program, err := exec.LookPath(filepath.Join(p.bin, "pg_basebackup"))
	if err != nil {
		if program, err = exec.LookPath("pg_basebackup"); err != nil {
			return nil, fmt.Errorf("start a standby: %w", err)
		}
	}
	dir, err := os.MkdirTemp("", abandonedPrefix)
	if err != nil {
		return nil, err
	}
	s := &Postgres{bin: p.bin, dir: dir, lock: flock.New(filepath.Join(dir, "lock")), settings: maps.Clone(p.settings)}
	if ok, err := s.lock.TryLock(); err != nil || !ok {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	fail := func(err error) (*Postgres, error) {
		return nil, errors.Join(fmt.Errorf("start a standby: %w", err), s.Stop())
	}
	attr, err := postgresAttr(dir)
	if err != nil {
		return fail(err)
	}
	from := fmt.Sprintf("host=127.0.0.1 port=%d user=postgres application_name=%s", p.port, name)
	cmd := exec.CommandContext(ctx, program, "-d", from, "-D", s.data(), "-c", "fast", "-X", "stream", "-R", "--no-sync")
	cmd.Dir, cmd.SysProcAttr = dir, attr
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := Spawn(cmd); err != nil {
		return fail(err)
	}
	if err := cmd.Wait(); err != nil {
		return fail(fmt.Errorf("pg_basebackup: %s: %w", bytes.TrimSpace(out.Bytes()), err))
	}
	free, err := FreePort()
	if err != nil {
		return fail(err)
	}
	s.port = cmp.Or(port, free)
	s.dsn = &url.URL{Scheme: "postgres", User: url.User("postgres"), Host: "127.0.0.1:" + strconv.Itoa(s.port), RawQuery: "sslmode=disable"}
	if err := s.start(ctx); err != nil {
		return fail(err)
	}
	return s, nil
}

// Host is where the server listens.
func (p *Postgres) Host() string { return p.dsn.Host }

// Port is the port of Host, for a standby that is to take the place of a server that was killed.
func (p *Postgres) Port() int { return p.port }

// Cut ends the replication to a standby, which stays at what it has got by then.
func (p *Postgres) Cut(ctx context.Context) error {
	for _, sql := range []string{"ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 port=1'", "SELECT pg_reload_conf()"} {
		if err := p.exec(ctx, sql); err != nil {
			return fmt.Errorf("cut the standby off: %w", err)
		}
	}
	return nil
}

// Promote makes a standby a primary, of what it has.
func (p *Postgres) Promote(ctx context.Context) error {
	if err := p.exec(ctx, "SELECT pg_promote()"); err != nil {
		return fmt.Errorf("promote the standby: %w", err)
	}
	return nil
}

// Set changes settings of a running server, for good.
func (p *Postgres) Set(ctx context.Context, name, value string) error {
	for _, sql := range []string{"ALTER SYSTEM SET " + quote(name) + " = '" + value + "'", "SELECT pg_reload_conf()"} {
		if err := p.exec(ctx, sql); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	return nil
}
