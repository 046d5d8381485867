package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"usher.example/internal/devstack"
)

// What is measured of `usher dev`.
const (
	resident   = "memory"
	binarySize = "binary"
	firstReady = "first start"
	laterReady = "start"

	stopWait = 10 * time.Second
)

func idleBenches() []bench {
	return []bench{{
		about: "`usher dev` with nothing to do, as `make build` makes it",
		lines: []line{
			{name: "idle-memory", subject: usher, show: size(resident), noCPU: true, targets: []target{mebibytesAtMost(resident, 80)}},
			{name: "idle-start", subject: usher, show: quantile(laterReady, laterReady, 0.5), noCPU: true, targets: []target{millisAtMost(laterReady, 400)}},
			// The first start makes keys and tables, and hashes the administrator's password.
			{name: "idle-first-start", subject: usher, show: quantile(firstReady, firstReady, 0.5), noCPU: true},
			{name: "idle-binary", subject: usher, show: size(binarySize), noCPU: true, targets: []target{mebibytesAtMost(binarySize, 60)}},
		},
		seconds: 3,
		setup: func(s *stage) ([]side, error) {
			i, err := buildIdle(s)
			return []side{{name: usher, run: i.run}}, err
		},
	}}
}

// idling is the binary, and the directories that it is started in.
type idling struct {
	*stage
	binary string
	size   int64
}

func buildIdle(s *stage) (*idling, error) {
	i := &idling{stage: s}
	var err error
	if i.binary, err = s.file("usher"); err != nil {
		return nil, err
	}
	if text, err := exec.CommandContext(s.ctx, "make", "build", "BIN="+i.binary).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("make build: %w\n%s", err, text)
	}
	info, err := os.Stat(i.binary)
	if err != nil {
		return nil, err
	}
	i.size = info.Size()
	// What it has used is known once it has ended.
	s.account(&process{"usher dev", func() (time.Duration, error) {
		u, err := readStat(os.Getpid())
		return u.reaped, err
	}})
	return i, nil
}

// run starts it in a new directory, stops it, starts it there again, and looks at its memory once it has had nothing to
// do for some time.
func (i *idling) run(ctx context.Context, length time.Duration) (tally, error) {
	dir, err := os.MkdirTemp(i.dir, "dev-")
	if err != nil {
		return tally{}, err
	}
	defer os.RemoveAll(dir)
	first, stop, err := i.start(ctx, dir)
	if err != nil {
		return tally{}, err
	}
	if err := stop(); err != nil {
		return tally{}, err
	}
	later, stop, err := i.start(ctx, dir)
	if err != nil {
		return tally{}, err
	}
	select {
	case <-time.After(length):
	case <-ctx.Done():
		return tally{}, errors.Join(context.Cause(ctx), stop())
	}
	memory, err := residentBytes(later.pid)
	return tally{
		ops:   1,
		times: map[string][]time.Duration{firstReady: {first.took}, laterReady: {later.took}},
		bytes: map[string]int64{resident: memory, binarySize: i.size},
	}, errors.Join(err, stop())
}

// started is a process that is ready.
type started struct {
	pid  int
	took time.Duration
}

// start starts `usher dev` and waits until it says that it is ready.
func (i *idling) start(ctx context.Context, dir string) (began started, stop func() error, err error) {
	cmd := exec.Command(i.binary, "dev", "--dir", filepath.Join(dir, ".usher"), "--http", "127.0.0.1:0", "--nats", "127.0.0.1:0", "--metrics", "127.0.0.1:0")
	cmd.Dir = dir
	cmd.Env = []string{"LOG_LEVEL=error"} // nobody's settings
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return began, nil, err
	}
	at := time.Now()
	if err := devstack.Spawn(cmd); err != nil {
		return began, nil, err
	}
	stop = func() error {
		kill := time.AfterFunc(stopWait, func() { _ = cmd.Process.Kill() }) // Wait tells of it
		defer kill.Stop()
		return errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait())
	}
	address, err := announced(stdout)
	if err == nil {
		err = readyAt(ctx, address)
	}
	if err != nil {
		return began, nil, errors.Join(err, stop())
	}
	return started{cmd.Process.Pid, time.Since(at)}, stop, nil
}

// announced reads where the API is from what `usher dev` prints.
func announced(stdout io.Reader) (address string, err error) {
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) == 2 && fields[0] == "API" {
			return fields[1], nil
		}
	}
	return "", errors.Join(errors.New("usher dev has ended, or says nothing of its API"), lines.Err())
}

// readyAt asks the API whether it is.
func readyAt(ctx context.Context, address string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"/readyz", nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("usher dev says that it is ready, and /readyz answers %s", answer.Status)
	}
	return nil
}
