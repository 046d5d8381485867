package test

import (
	"fmt"
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

// shown is a command line of the README, and what it is shown to print. Without a command it is what the one that goes on prints
// meanwhile.
type shown struct {
	command string
	output  []string
}

// section is a part of the README, with its command lines in their order.
type section struct {
	heading string
	shown   []shown
}

var (
	headings = regexp.MustCompile(`(?m)^## (.+)$`)
	fenced   = regexp.MustCompile("(?ms)^ *```([a-z]*)\n(.*?)^ *```$")
	prompt   = regexp.MustCompile(`(?m)^\s*[$#%>] \S.*`)
)

// readREADME reads the command lines of a README. It fails for one that would be passed over.
func readREADME(text string) (sections []section, err error) {
	at := headings.FindAllStringSubmatchIndex(text, -1)
	for i, heading := range at {
		end := len(text)
		if i+1 < len(at) {
			end = at[i+1][0]
		}
		s := section{heading: text[heading[2]:heading[3]]}
		body := text[heading[1]:end]
		for _, block := range fenced.FindAllStringSubmatch(body, -1) {
			if block[1] != "console" {
				return nil, fmt.Errorf("%s has a block that is no console:\n%s", s.heading, block[2])
			}
			if !strings.HasPrefix(block[2], "$ ") {
				if len(s.shown) == 0 {
					return nil, fmt.Errorf("%s begins with what no command prints:\n%s", s.heading, block[2])
				}
				s.shown = append(s.shown, shown{})
			}
			for line := range strings.Lines(block[2]) {
				line = strings.TrimSuffix(line, "\n")
				if command, is := strings.CutPrefix(line, "$ "); is {
					s.shown = append(s.shown, shown{command: command})
					continue
				}
				last := &s.shown[len(s.shown)-1]
				last.output = append(last.output, line)
			}
		}
		if line := prompt.FindString(fenced.ReplaceAllString(body, "")); line != "" && !strings.HasPrefix(line, "### ") {
			return nil, fmt.Errorf("%s shows %q outside of a block", s.heading, line)
		}
		sections = append(sections, s)
	}
	return sections, nil
}

// goesOn are the command lines that go on until Ctrl-C, each in a terminal of its own.
var goesOn = []string{"make dev", "go run ./examples/listen -nats nats://127.0.0.1:4222", "METRICS_ADDR=127.0.0.1:9190 usher serve --with publisher,projections,webhooks",
	"METRICS_ADDR=127.0.0.1:9190 usher serve", "usher publish --continuous", "usher project", "usher webhooks run"}

// made are the values that are others in every run: ids, times, secrets, keys, codes, addresses, shards.
var made = regexp.MustCompile(`whsec_(…|[A-Za-z0-9+/=]+)|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z|[a-z2-7]{5}(-[a-z2-7]{5}){3}|([A-Z2-7]{4}-){5}[A-Z2-7]{4}|` +
	`[A-Z2-7]{26,32}|[A-Za-z0-9_-]{43}|at position \d+|127\.0\.0\.1:\d+|usher\.v1\.[0-9a-f]{2}\.`)

// walk runs what the README shows, and remembers which value of this run stands for which of the README.
type walk struct {
	t         *testing.T
	env       []string
	dir       string // where `usher` runs, and the data of `make dev`
	shell     *shell // of the section
	terminals []*terminal
	values    map[string]string
	secret    string // of one-time passwords, the last that was made
	steps     int    // one-time passwords that were used
}

// here is a command line with what this run has in the place of what is shown.
func (w *walk) here(command string) string {
	for shown, value := range w.values {
		command = strings.ReplaceAll(command, shown, value)
	}
	return command
}

// printed are the lines of a text, with the directory of this run left out.
func (w *walk) printed(text string) []string {
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\r", ""), w.dir+"/", "")
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
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

// start begins a command that goes on, and waits for what it is shown to print first. A server that runs already is ended before,
// since it listens where this one does.
func (w *walk) start(s shown) {
	w.t.Helper()
	if strings.Contains(s.command, "usher serve") {
		for _, other := range w.terminals {
			if strings.Contains(other.name, "usher serve") {
				other.interrupt(w.t)
			}
		}
		w.values["127.0.0.1:9190"] = anyPort // what it listens at is learnt from what it prints
	}
	w.wait(w.open(s.command), s.output)
}

// open runs a command in a terminal of its own, which knows what the shell exports.
func (w *walk) open(command string) *terminal {
	w.t.Helper()
	exported := strings.Join(w.shell.run(w.t, "export -p"), "\n")
	terminal := openTerminal(w.t, command, exported+"\n"+w.here(command), w.shell.dir, w.env)
	w.terminals = append(w.terminals, terminal)
	return terminal
}

// anyPort is where a server listens that is to take a free port.
const anyPort = "127.0.0.1:0"

// answer runs a command that asks, and types the answer that is shown.
func (w *walk) answer(s shown) {
	w.t.Helper()
	terminal := w.open(s.command)
	eventually(w.t, s.command+" asks", func() error {
		if text := terminal.String(); !strings.HasSuffix(text, question) {
			return fmt.Errorf("it says\n%s", text)
		}
		return nil
	})
	terminal.typed(w.t, "yes\n")
	terminal.wantEnded(w.t, 0)
	if got := w.printed(terminal.String()); !w.same(s.output, got) {
		w.t.Errorf("$ %s\nprints\n%s\nand the README shows\n%s", s.command, strings.Join(got, "\n"), strings.Join(s.output, "\n"))
	}
}

// question is the end of what a command asks that destroys something.
const question = "Type yes to go on: "

// wait waits until a terminal shows what it is to.
func (w *walk) wait(terminal *terminal, output []string) {
	w.t.Helper()
	eventually(w.t, terminal.name+" shows what the README does", func() error {
		text := terminal.String()
		if !w.same(append(slices.Clone(output), "…"), w.printed(text)) {
			return fmt.Errorf("it shows\n%s\nand the README\n%s", text, strings.Join(output, "\n"))
		}
		return nil
	})
}

var oneTime = regexp.MustCompile(`"(code|totp)": "\d{6}"`)

// do runs a command to its end, and fails the test unless it prints what is shown.
func (w *walk) do(s shown) {
	w.t.Helper()
	command := s.command
	if strings.Contains(command, "/v1/auth/verify-email") { // the code is from a mail, which the log of usher dev shows
		w.values[made.FindString(command)] = mailedCode(w.t, w.terminals[0])
	}
	command = oneTime.ReplaceAllStringFunc(command, func(field string) string {
		// One-time passwords of two steps are good at a time, and each is good once.
		code, err := totp.GenerateCode(w.secret, time.Now().Add(time.Duration(w.steps-1)*30*time.Second))
		if err != nil {
			w.t.Fatal(err)
		}
		w.steps++
		return field[:len(field)-7] + code + `"`
	})
	command = w.here(command)
	got := w.printed(strings.Join(w.shell.run(w.t, command), "\n"))
	if len(s.output) == 0 {
		s.output = []string{""}
	}
	for begin := time.Now(); !w.same(s.output, got); got = w.printed(strings.Join(w.shell.run(w.t, command), "\n")) {
		if !strings.HasPrefix(command, "usher ") || strings.Contains(command, " add ") || time.Since(begin) > patience { // a read model has it in a moment
			w.t.Fatalf("$ %s\nprints\n%s\nand the README shows\n%s", command, strings.Join(got, "\n"), strings.Join(s.output, "\n"))
		}
	}
	if strings.HasSuffix(command, "| field secret") {
		w.secret = got[0]
	}
}

// The README shows what happens: each of its command lines is run as it stands there, in the directory that it is in. There is no line
// that is not.
func TestREADME(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	readme := string(raw)
	if tools := regexp.MustCompile(`\bjq -|curl[^\n]* --json`).FindString(readme); tools != "" {
		t.Errorf("the README uses %q, which not everybody has", tools)
	}
	sections, err := readREADME(readme)
	if err != nil {
		t.Fatal(err)
	}
	// What `go run` makes is kept: the first time takes as long as the machine needs.
	for _, args := range [][]string{{"./cmd/usher", "version"}, {"./examples/listen", "-help"}} {
		cmd := exec.Command("go", append([]string{"run"}, args...)...)
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go run %v: %v\n%s", args, err, out)
		}
	}

	d := newDeployment(t)
	w := &walk{t: t, dir: d.dir, values: map[string]string{}}
	w.env = append(readersEnv(), "BCRYPT_ROUNDS=4", "GOPROXY=off", "PATH="+d.bin()+string(os.PathListSeparator)+os.Getenv("PATH"),
		"ARGS=--dir "+filepath.Join(d.dir, ".usher")+" --http 127.0.0.1:0 --nats 127.0.0.1:0 --metrics 127.0.0.1:0")
	if err := os.Symlink(".usher", filepath.Join(d.dir, "data")); err != nil { // where it is looked at in the end
		t.Fatal(err)
	}
	ran := 0
	for _, section := range sections {
		if len(section.shown) == 0 {
			continue
		}
		w.shell = openShell(t, root, w.env)
		switch section.heading {
		case "Run it":
			w.values["postgres://usher:…@db:5432/usher"] = "'" + devstack.Database(t, "empty", nil) + "'"
			w.values["nats://nats:4222"] = devstack.NATSProcess(t, t.TempDir(), 0).URL()
			w.values["127.0.0.1:8180"] = anyPort
		case "Subscribe to it":
			w.shell.run(t, "cd "+moduleBeside(t, root))
		}
		for _, s := range section.shown {
			switch {
			case s.command == "":
				w.wait(w.terminals[len(w.terminals)-1], append([]string{"…"}, s.output...))
				continue
			case slices.Contains(goesOn, s.command):
				w.start(s)
			case len(s.output) > 0 && strings.HasSuffix(s.output[0], question+"yes"):
				w.answer(s)
			default:
				w.do(s)
			}
			ran++
		}
	}
	for _, terminal := range w.terminals {
		terminal.interrupt(t)
		d.printed[terminal.name] = strings.ReplaceAll(terminal.String(), w.values[shownPassword(t, readme)], "")
	}
	d.keepSecret(w.values[shownPassword(t, readme)])
	// The subject that is shown, and that of this run, end in the user's id.
	subject := regexp.MustCompile(`usher\.v1\.([0-9a-f]{2})\.`)
	about := regexp.MustCompile(`ce-subject: (\S+)`).FindStringSubmatch(readme)
	for shown, is := range w.values {
		if m := subject.FindStringSubmatch(shown); m != nil && (!strings.HasSuffix(about[1], m[1]) || is != "usher.v1."+w.values[about[1]][34:]+".") {
			t.Errorf("%s and %s are not the subjects of %s and %s", shown, is, about[1], w.values[about[1]])
		}
	}
	if ran != strings.Count(readme, "\n$ ") || w.steps != 2 {
		t.Errorf("%d of %d lines were run, with %d one-time passwords, want 2", ran, strings.Count(readme, "\n$ "), w.steps)
	}
}

// readersEnv is what of this environment the reader of a README has: no settings of usher, and nothing of a make that runs this.
func readersEnv() []string {
	return slices.DeleteFunc(os.Environ(), func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		return !strings.HasPrefix(name, "GO") && !slices.Contains([]string{"HOME", "PATH", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"}, name)
	})
}

// shownPassword is that of the first administrator.
func shownPassword(t *testing.T, readme string) string {
	t.Helper()
	found := regexp.MustCompile(`(?m)^  admin@usher\.localhost  (\S+)$`).FindStringSubmatch(readme)
	if found == nil {
		t.Fatal("the README does not show the first administrator")
	}
	return found[1]
}

// bin makes a directory with a usher in it that runs where the data of the deployment is.
func (d *deployment) bin() string {
	d.t.Helper()
	dir := d.t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "usher"), []byte("#!/bin/sh\ncd '"+d.dir+"' && exec '"+program+"' \"$@\"\n"), 0o700); err != nil {
		d.t.Fatal(err)
	}
	return dir
}

// moduleBeside makes a module of somebody else's, with services, beside a checkout of usher.
func moduleBeside(t *testing.T, root string) (dir string) {
	t.Helper()
	parent := t.TempDir()
	dir = filepath.Join(parent, "services")
	err := os.CopyFS(dir, os.DirFS(filepath.Join(root, "examples")))
	if err == nil {
		err = os.Symlink(root, filepath.Join(parent, "usher"))
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "mod", "init", "example.org/services")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go mod init: %v\n%s", err, out)
	}
	return dir
}

// mailedCode is the code of the first mail that a usher dev shows in its log.
func mailedCode(t *testing.T, dev fmt.Stringer) (code string) {
	t.Helper()
	link := regexp.MustCompile(`/account/verify\?code=([A-Z2-7]+)`)
	eventually(t, "the mail is shown", func() error {
		found := link.FindStringSubmatch(dev.String())
		if found == nil {
			return fmt.Errorf("the log is\n%s", dev)
		}
		code = found[1]
		return nil
	})
	return code
}

// A line that would not be run is not passed over.
func TestReadREADME(t *testing.T) {
	t.Parallel()
	for text, wrong := range map[string]string{
		"## A\n```console\n$ one\n1\n\n$ two\n```\nand\n```console\n2\n```\n## B\n": "",
		"## A\n```sh\nusher serve\n```\n":                                           "no console",
		"## A\n```\nusher serve\n```\n":                                             "no console",
		"## A\n```console\nusher serve\n```\n":                                      "no command prints",
		"## A\n\n    $ usher serve\n":                                               "outside of a block",
	} {
		sections, err := readREADME(text)
		if wrong != "" {
			if err == nil || !strings.Contains(err.Error(), wrong) {
				t.Errorf("readREADME(%q) = %v, want %q", text, err, wrong)
			}
			continue
		}
		want := []shown{{"one", []string{"1", ""}}, {"two", nil}, {"", []string{"2"}}}
		if err != nil || len(sections) != 2 || fmt.Sprint(sections[0].shown) != fmt.Sprint(want) {
			t.Errorf("readREADME(%q) = %v, %v", text, sections, err)
		}
	}
}
