package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"usher.example/internal/devstack"
)

// forwarderDir is the module of the forwarder, from the root of the repository.
const forwarderDir = "test/watermill"

func watermillBenches() []bench {
	const forwarder = "forwarder"
	return []bench{{
		about: "relay the same events on the same servers",
		lines: []line{{
			name: "watermill", subject: usher, yardstick: forwarder, against: "Watermill's forwarder from SQL to NATS", show: rate,
			targets: []target{waitingRateAtLeast(5)},
		}},
		seconds: 3, // of which the forwarder takes a moment to begin
		setup: func(s *stage) ([]side, error) {
			r, err := setupRelay(s)
			if err != nil {
				return nil, err
			}
			f, err := buildForwarder(s, r)
			if err != nil {
				return nil, err
			}
			return []side{{name: usher, prepare: r.empty, run: r.usher}, {name: forwarder, prepare: f.start, run: f.run}}, nil
		},
	}}
}

// forwarder is Watermill's, in a process of its own.
type forwarder struct {
	*relaying
	stage  *stage
	binary string
	cmd    *exec.Cmd
	stdin  io.WriteCloser
}

// buildForwarder builds the program and has it copy the log into a table of Watermill's.
func buildForwarder(s *stage, r *relaying) (*forwarder, error) {
	f := &forwarder{relaying: r, stage: s}
	var err error
	if f.binary, err = s.file("forwarder"); err != nil {
		return nil, err
	}
	build := exec.CommandContext(s.ctx, "go", "build", "-C", forwarderDir, "-o", f.binary, ".")
	if text, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the forwarder: %w\n%s", err, text)
	}
	if text, err := exec.CommandContext(s.ctx, f.binary, "copy", r.dsn).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("copy the log for the forwarder: %w\n%s", err, text)
	}
	_, err = r.pool.Exec(s.ctx, "VACUUM ANALYZE")
	return f, err
}

// start starts the forwarder, which waits to be told to begin.
func (f *forwarder) start(ctx context.Context) error {
	if err := f.fresh(ctx); err != nil {
		return err
	}
	f.cmd = exec.Command(f.binary, "forward", f.dsn, f.broker.server.URL())
	f.cmd.Stderr = os.Stderr
	var err error
	if f.stdin, err = f.cmd.StdinPipe(); err != nil {
		return err
	}
	stdout, err := f.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := devstack.Spawn(f.cmd); err != nil {
		return err
	}
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		return errors.Join(fmt.Errorf("start the forwarder: %w", err), f.stop())
	}
	return nil
}

func (f *forwarder) stop() error { return errors.Join(f.stdin.Close(), f.cmd.Wait()) }

// run lets the forwarder work for some time, or until the first event has arrived, and counts what has arrived by then.
func (f *forwarder) run(ctx context.Context, length time.Duration) (t tally, err error) {
	_, err = fmt.Fprintln(f.stdin, "begin")
	for began := time.Now(); err == nil && (time.Since(began) < length || t.ops == 0 && time.Since(began) < arrivalWait); {
		select {
		case <-time.After(min(length, 100*time.Millisecond)):
			t, err = f.published(ctx)
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	return t, errors.Join(err, f.stop())
}
