package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"

	"usher.example/eventstore"
	"usher.example/eventstore/postgres"
	"usher.example/internal/devstack"
	"usher.example/publisher"
	"usher.example/schema"
)

// lab is what all benches share: one durable PostgreSQL and the accounts of CPU time.
type lab struct {
	flags    flags
	accounts *accounts
	self     *process
	postgres *process
	server   *devstack.Postgres
	dir      string
	made     int // databases
}

func openLab(ctx context.Context, f flags) (*lab, error) {
	server, err := devstack.StartPostgres(ctx, devstack.PostgresOptions{
		Durable: true,
		Settings: map[string]string{
			"shared_buffers": "1GB",
			// A checkpoint would hit whoever is running.
			"max_wal_size":       "8GB",
			"checkpoint_timeout": "1h",
		},
	})
	if err != nil {
		return nil, err
	}
	l := &lab{
		flags: f, accounts: newAccounts(), server: server,
		self: single("this process", os.Getpid()), postgres: tree("PostgreSQL", server.PIDs),
	}
	l.accounts.add(l.self)
	l.accounts.add(l.postgres)
	if l.dir, err = os.MkdirTemp("", "usher-bench-"); err != nil {
		return nil, errors.Join(err, server.Stop())
	}
	return l, nil
}

func (l *lab) close() error { return errors.Join(l.server.Stop(), os.RemoveAll(l.dir)) }

func (l *lab) postgresVersion(ctx context.Context) (version string, err error) {
	conn, err := pgx.Connect(ctx, l.server.DSN("postgres"))
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx)
	err = conn.QueryRow(ctx, "SHOW server_version").Scan(&version)
	version, _, _ = strings.Cut(version, " ")
	return version, err
}

// admin runs a statement outside of any bench's database.
func (l *lab) admin(ctx context.Context, sql string) error {
	conn, err := pgx.Connect(ctx, l.server.DSN("postgres"))
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, sql)
	return errors.Join(err, conn.Close(ctx))
}

// stage is what one bench works with. What it opens is closed when the bench is done, the last first.
type stage struct {
	*lab
	ctx  context.Context // of the bench
	undo []func() error
}

func (s *stage) after(f func() error) { s.undo = append(s.undo, f) }

func (s *stage) clear() error {
	var errs []error
	for _, f := range slices.Backward(s.undo) {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

// account accounts for a process until the bench is done.
func (s *stage) account(p *process) {
	remove := s.accounts.add(p)
	s.after(func() error { remove(); return nil })
}

// database makes a database with usher's schema.
func (s *stage) database() (dsn string, err error) {
	if dsn, err = s.emptyDatabase(); err != nil {
		return "", err
	}
	m, err := schema.Postgres(dsn)
	if err != nil {
		return "", err
	}
	_, err = m.Up(s.ctx)
	return dsn, errors.Join(err, m.Close())
}

func (s *stage) emptyDatabase() (dsn string, err error) {
	s.made++
	name := fmt.Sprintf("bench_%d", s.made)
	if err := s.admin(s.ctx, "CREATE DATABASE "+name); err != nil {
		return "", fmt.Errorf("make a database: %w", err)
	}
	s.after(func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), time.Minute)
		defer cancel()
		return s.admin(ctx, "DROP DATABASE "+name+" WITH (FORCE)")
	})
	return s.server.DSN(name), nil
}

// pool opens a pool of connections, all of which are there at once.
func (s *stage) pool(dsn string, conns int) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	config.MaxConns, config.MinConns = int32(conns), int32(conns)
	pool, err := pgxpool.NewWithConfig(s.ctx, config)
	if err != nil {
		return nil, err
	}
	s.after(func() error { pool.Close(); return nil })
	return pool, nil
}

// logOn is usher's log on a database of its own.
type logOn struct {
	dsn       string
	store     *postgres.Store
	master    eventstore.MasterKey
	masterKey string // its text
	log       *eventstore.Log
}

func (s *stage) openLog(o eventstore.Options) (*logOn, error) {
	dsn, err := s.database()
	if err != nil {
		return nil, err
	}
	store, err := postgres.Open(s.ctx, dsn, postgres.Options{})
	if err != nil {
		return nil, err
	}
	s.after(func() error { store.Close(); return nil })
	l := &logOn{dsn: dsn, store: store}
	l.master, l.masterKey = eventstore.NewMasterKey()
	if l.master, err = eventstore.Unlock(s.ctx, store, l.master); err != nil {
		return nil, err
	}
	l.log = eventstore.New(store, l.master, o)
	s.after(func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), time.Minute)
		defer cancel()
		return l.log.Close(ctx)
	})
	return l, nil
}

// appendMany makes and appends n appends.
func (l *logOn) appendMany(ctx context.Context, n int, next func() (eventstore.Append, error)) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(256)
	for range n {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error {
			a, err := next()
			if err == nil {
				_, err = l.log.Append(ctx, a)
			}
			return err
		})
	}
	return group.Wait()
}

// relay is usher's relay of the log, to be run or flushed.
func (l *logOn) relay(conn *nats.Conn) (*publisher.Relay, error) {
	return publisher.New(publisher.Config{Log: l.log, DB: l.store, Conn: conn, Source: relaySource, Logger: quiet})
}

// broker is a nats-server in a process of its own, with a file store.
type broker struct {
	server  *devstack.NATSChild
	process *process
	conn    *nats.Conn
}

func (s *stage) broker() (*broker, error) {
	dir, err := os.MkdirTemp(s.dir, "nats-")
	if err != nil {
		return nil, err
	}
	server, err := devstack.StartNATSProcess(devstack.NATSOptions{StoreDir: dir})
	if err != nil {
		return nil, err
	}
	s.after(func() error { return errors.Join(server.Stop(), os.RemoveAll(dir)) })
	b := &broker{server: server, process: single("nats-server", server.PID())}
	s.account(b.process)
	if b.conn, err = server.Connect(); err != nil {
		return nil, err
	}
	s.after(func() error { b.conn.Close(); return nil })
	return b, nil
}

// file is the path of a new file.
func (s *stage) file(name string) (string, error) {
	dir, err := os.MkdirTemp(s.dir, "files-")
	if err != nil {
		return "", err
	}
	s.after(func() error { return os.RemoveAll(dir) })
	return filepath.Join(dir, name), nil
}

// quiet discards what the parts under measurement would log.
var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))
