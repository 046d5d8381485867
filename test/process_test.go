package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"usher.example/internal/devstack"
)

// patience is how long a test waits for what takes a moment, on a busy machine.
const patience = 30 * time.Second

// eventually waits until a condition holds, which says by its error why it doesn't.
func eventually(t *testing.T, what string, holds func() error) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for begin := time.Now(); ; <-tick.C {
		err := holds()
		if err == nil {
			return
		}
		if time.Since(begin) > patience {
			t.Fatalf("%s: not within %v: %v", what, patience, err)
		}
	}
}

// output is what a process printed so far.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// process is a running usher.
type process struct {
	name           string
	cmd            *exec.Cmd
	stdout, stderr output
	ended          chan struct{}
}

// start starts usher with a command line. It is killed when the test ends, if it still runs then.
func (d *deployment) start(args ...string) *process {
	d.t.Helper()
	return d.startProgram("usher "+strings.Join(args, " "), program, d.env, args...)
}

// startProgram is start for any program.
func (d *deployment) startProgram(name, path string, env []string, args ...string) *process {
	d.t.Helper()
	p := &process{name: name, cmd: exec.Command(path, args...), ended: make(chan struct{})}
	p.cmd.Dir, p.cmd.Env = d.dir, env
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	if err := devstack.Spawn(p.cmd); err != nil {
		d.t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // the exit code tells
		close(p.ended)
	}()
	d.processes = append(d.processes, p)
	return p
}

// alive fails the test if the process has ended.
func (p *process) alive(t *testing.T) {
	t.Helper()
	select {
	case <-p.ended:
		t.Fatalf("%s ended with exit code %d:\n%s", p.name, p.cmd.ProcessState.ExitCode(), &p.stderr)
	default:
	}
}

// kill ends the process with SIGKILL.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // the only error is that it has ended already
	<-p.ended
}

// signal sends a signal.
func (p *process) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatalf("%s: %v", p.name, err)
	}
}

// wantStopped waits for the process to end by itself, in good order.
func (p *process) wantStopped(t *testing.T) {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		t.Fatalf("%s did not stop within %v:\n%s", p.name, patience, &p.stderr)
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Fatalf("%s stopped with exit code %d:\n%s", p.name, code, &p.stderr)
	}
}

// stop interrupts the process, as Ctrl-C does, and waits for it to stop in good order.
func (p *process) stop(t *testing.T) {
	t.Helper()
	p.signal(t, os.Interrupt)
	p.wantStopped(t)
}

// listening waits until the process serves HTTP, and answers with the addresses that it logged.
func (p *process) listening(t *testing.T) (http, metrics string) {
	t.Helper()
	eventually(t, p.name+" listens", func() error {
		p.alive(t)
		for line := range strings.Lines(p.stderr.String()) {
			var entry struct{ Msg, HTTP, Metrics string }
			if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "listening" {
				http, metrics = entry.HTTP, entry.Metrics
				return nil
			}
		}
		return fmt.Errorf("its log says nothing of it:\n%s", &p.stderr)
	})
	return http, metrics
}
