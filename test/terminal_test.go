package test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"

	"usher.example/internal/devstack"
)

// terminal is a terminal with a command that goes on in it.
type terminal struct {
	output

	name  string
	cmd   *exec.Cmd
	keys  *os.File
	ended chan struct{}
}

// openTerminal runs a script of bash in a terminal of its own, until it is interrupted. It is killed when the test ends, if it
// still runs then.
func openTerminal(t *testing.T, name, script, dir string, env []string) *terminal {
	t.Helper()
	w := &terminal{name: name, cmd: exec.Command("bash", "-c", script), ended: make(chan struct{})}
	w.cmd.Dir, w.cmd.Env = dir, env
	var err error
	if w.keys, err = pty.Start(w.cmd); err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = io.Copy(w, w.keys) // until nothing has it open any more, which is an error on Linux
		_ = w.cmd.Wait()          // the exit code tells
		close(w.ended)
	}()
	t.Cleanup(func() {
		_ = w.keys.Close() // hangs up
		_ = w.cmd.Process.Kill()
		<-w.ended
		if t.Failed() {
			t.Logf("the terminal of %s:\n%s", name, lastLines(w.String()))
		}
	})
	return w
}

// interrupt types Ctrl-C, and fails the test unless the command ends in good order then.
func (w *terminal) interrupt(t *testing.T) {
	t.Helper()
	select {
	case <-w.ended:
	default:
		w.typed(t, "\x03")
	}
	code := 0
	if strings.HasPrefix(w.name, "go run ") { // which calls an interrupt a failure, however its program ends
		code = 1
	}
	w.wantEnded(t, code)
}

// typed types something.
func (w *terminal) typed(t *testing.T, keys string) {
	t.Helper()
	if _, err := w.keys.WriteString(keys); err != nil {
		t.Fatalf("%s: %v", w.name, err)
	}
}

// wantEnded waits for the command to end, with an exit code.
func (w *terminal) wantEnded(t *testing.T, want int) {
	t.Helper()
	select {
	case <-w.ended:
	case <-time.After(patience):
		t.Fatalf("%s did not end within %v:\n%s", w.name, patience, w)
	}
	if code := w.cmd.ProcessState.ExitCode(); code != want {
		t.Errorf("%s ended with exit code %d:\n%s", w.name, code, w)
	}
}

// shell is a shell that somebody types commands into.
type shell struct {
	dir    string
	stdin  *os.File
	stdout *output
}

func openShell(t *testing.T, dir string, env []string) *shell {
	t.Helper()
	stdin, typed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s := &shell{dir: dir, stdin: typed, stdout: new(output)}
	cmd := exec.Command("bash")
	cmd.Dir, cmd.Env = dir, env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, s.stdout, s.stdout
	if err := devstack.Spawn(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _, _, _ = typed.Close(), stdin.Close(), cmd.Process.Kill(), cmd.Wait() })
	return s
}

const endOfCommand = "--- the command has ended ---"

// run runs a command line, and answers with the lines that it prints.
func (s *shell) run(t *testing.T, command string) []string {
	t.Helper()
	before := len(s.stdout.String())
	fmt.Fprintf(s.stdin, "%s\necho '%s'\n", command, endOfCommand)
	var text string
	eventually(t, command, func() error {
		var ended bool
		if text, _, ended = strings.Cut(s.stdout.String()[before:], endOfCommand); !ended {
			return fmt.Errorf("it goes on, and says\n%s", text)
		}
		return nil
	})
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}
