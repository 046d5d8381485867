package test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"usher.example/internal/devstack"
)

// shown is a command line of the README, and what it is shown to print.
type shown struct {
	command string
	output  []string
}

// shownIn are the command lines of a section of the README, in their order.
func shownIn(t *testing.T, readme, section string) (list []shown) {
	t.Helper()
	_, text, found := strings.Cut(readme, "\n## "+section+"\n")
	if !found {
		t.Fatalf("the README has no section %q", section)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	for _, block := range regexp.MustCompile("(?ms)^```console\n(.*?)^```").FindAllStringSubmatch(text, -1) {
		began := false // a block without a command shows what one before it goes on to print
		for line := range strings.Lines(strings.ReplaceAll(block[1], "\\\n", "")) {
			line = strings.TrimSuffix(line, "\n")
			if command, is := strings.CutPrefix(line, "$ "); is {
				list, began = append(list, shown{command: command}), true
			} else if began {
				list[len(list)-1].output = append(list[len(list)-1].output, line)
			}
		}
	}
	return list
}

// notRun are the beginnings of command lines that the test does not run: usher runs already, at other ports; nats is a program of
// others, and what it would print is looked at with the messages themselves; the rest needs servers that other tests have.
var notRun = []string{"make dev", "nats ", "export ", "usher migrate up", "usher serve"}

// made are the values that are others in every run: ids, times, secrets, keys, codes.
var made = regexp.MustCompile(`whsec_(…|[A-Za-z0-9+/=]+)|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z|[a-z2-7]{5}(-[a-z2-7]{5}){3}|([A-Z2-7]{4}-){5}[A-Z2-7]{4}|` +
	`[A-Z2-7]{26,32}|[A-Za-z0-9_-]{43}|all \d+ checks|at position \d+`)

// walk runs what the README shows, and remembers which value of this run stands for which of the README.
type walk struct {
	t      *testing.T
	stdin  io.Writer
	stdout *output
	values map[string]string
	secret string // of one-time passwords, the last that was made
}

const endOfCommand = "--- the command has ended ---"

// run runs a command line in the shell, and answers with the lines that it prints.
func (w *walk) run(command string) []string {
	w.t.Helper()
	for shown, value := range w.values {
		command = strings.ReplaceAll(command, shown, value)
	}
	before := len(w.stdout.String())
	fmt.Fprintf(w.stdin, "%s\necho '%s'\n", command, endOfCommand)
	var text string
	eventually(w.t, command, func() error {
		var ended bool
		if text, _, ended = strings.Cut(w.stdout.String()[before:], endOfCommand); !ended {
			return fmt.Errorf("it goes on, and says\n%s", text)
		}
		return nil
	})
	return strings.Split(strings.TrimSuffix(strings.ReplaceAll(text, "\r", ""), "\n"), "\n")
}

// same says whether lines are what is shown, but for what is made, and then notes what was made.
func (w *walk) same(want, got []string) bool {
	values := map[string]string{}
	for len(want) > 0 && want[0] != "…" {
		if len(got) == 0 || made.ReplaceAllString(want[0], "◇") != made.ReplaceAllString(strings.TrimRight(got[0], " "), "◇") {
			return false
		}
		is := made.FindAllString(got[0], -1)
		for i, value := range made.FindAllString(want[0], -1) {
			values[value] = is[i]
		}
		want, got = want[1:], got[1:]
	}
	if len(want) == 0 {
		if len(got) > 0 {
			return false
		}
	} else {
		rest := false // after any number of lines
		for skip := 0; skip <= len(got) && !rest; skip++ {
			rest = w.same(want[1:], got[skip:])
		}
		if !rest {
			return false
		}
	}
	for shown, value := range values {
		w.values[shown] = value
	}
	return true
}

var oneTime = regexp.MustCompile(`"(code|totp)": "\d{6}"`)

// The README shows what happens: each of its lines is run, in one shell, beside a usher dev of its own.
func TestREADME(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile(filepath.Join("..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	readme := string(raw)
	if tools := regexp.MustCompile(`\bjq -|curl[^\n]* --json`).FindString(readme); tools != "" {
		t.Errorf("the README uses %q, which not everybody has", tools)
	}
	d := newDeployment(t)
	dev, c := d.startDev()
	d.takeAdmin(dev)
	if err := os.Symlink("data", filepath.Join(d.dir, ".usher")); err != nil { // where the commands look for it
		t.Fatal(err)
	}

	stdin, toShell, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer toShell.Close()
	shell := exec.Command("bash")
	shell.Dir, shell.Env = d.dir, append(d.env, "PATH="+filepath.Dir(program)+string(os.PathListSeparator)+os.Getenv("PATH"))
	w := &walk{t: t, stdin: toShell, stdout: new(output), values: map[string]string{"127.0.0.1:8080": strings.TrimPrefix(c.base, "http://")}}
	shell.Stdin, shell.Stdout, shell.Stderr = stdin, w.stdout, w.stdout
	if err := devstack.Spawn(shell); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = shell.Process.Kill(), shell.Wait() }()

	commands := slices.Concat(shownIn(t, readme, "Try it"), shownIn(t, readme, "Run it"), shownIn(t, readme, "Forget somebody"))
	shownPassword := regexp.MustCompile(`(?m)^  admin@usher\.localhost  (\S+)$`).FindStringSubmatch(readme)
	if shownPassword == nil {
		t.Fatal("the README does not show the first administrator")
	}
	w.values[shownPassword[1]] = d.admin.password
	steps := 0
	for _, s := range commands {
		if slices.ContainsFunc(notRun, func(prefix string) bool { return strings.HasPrefix(s.command, prefix) }) {
			continue
		}
		command := s.command
		if strings.Contains(command, "/v1/auth/verify-email") { // the code is from a mail, which the log of usher dev shows
			w.values[made.FindString(command)] = mailedCode(t, dev)
		}
		if last := len(s.output) - 1; strings.HasPrefix(command, "usher users erase") && strings.HasSuffix(s.output[0], " yes") {
			// On a terminal somebody types yes, which is shown.
			command, s.output = command+" --yes", s.output[last:]
		}
		command = oneTime.ReplaceAllStringFunc(command, func(field string) string {
			// One-time passwords of two steps are good at a time, and each is good once.
			code, err := totp.GenerateCode(w.secret, time.Now().Add(time.Duration(steps-1)*30*time.Second))
			if err != nil {
				t.Fatal(err)
			}
			steps++
			return field[:len(field)-7] + code + `"`
		})
		got := w.run(command)
		if len(s.output) == 0 {
			s.output = []string{""}
		}
		for begin := time.Now(); !w.same(s.output, got); got = w.run(command) {
			if !strings.HasPrefix(command, "usher ") || strings.Contains(command, " add ") || strings.Contains(command, " erase ") || time.Since(begin) > patience { // a read model has it in a moment
				t.Fatalf("$ %s\nprints\n%s\nand the README shows\n%s", command, strings.Join(got, "\n"), strings.Join(s.output, "\n"))
			}
		}
		if strings.HasSuffix(command, "| field secret") {
			w.secret = got[0]
		}
	}
	if steps != 2 {
		t.Errorf("%d one-time passwords were needed, want 2", steps)
	}
}

// mailedCode is the code of the first mail that a usher dev shows in its log.
func mailedCode(t *testing.T, dev *process) (code string) {
	t.Helper()
	link := regexp.MustCompile(`/account/verify\?code=([A-Z2-7]+)`)
	eventually(t, "the mail is shown", func() error {
		found := link.FindStringSubmatch(dev.stderr.String())
		if found == nil {
			return fmt.Errorf("the log is\n%s", &dev.stderr)
		}
		code = found[1]
		return nil
	})
	return code
}
