package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"usher.example/eventstore"
	"usher.example/internal/devstack"
	"usher.example/schema"
)

// asUsher makes this test program be usher: the settings are a process's environment, so tests that run side by side
// need processes.
const asUsher = "USHER_TEST_RUN"

func TestMain(m *testing.M) {
	if os.Getenv(asUsher) != "" {
		main()
	}
	os.Exit(devstack.Main(m))
}

// outcome is what a run of usher came to.
type outcome struct {
	code           int
	stdout, stderr string
	took           time.Duration
}

// usher runs a command line to its end, in a directory and with an environment of its own.
func usher(t *testing.T, dir string, env []string, args ...string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, testProgram(t), args...)
	cmd.Dir = dir
	cmd.Env = append([]string{asUsher + "=1", "PATH=" + os.Getenv("PATH"), "HOME=" + dir}, env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	begin := time.Now()
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &exit) || ctx.Err() != nil) {
		t.Fatalf("usher %s: %v\n%s", strings.Join(args, " "), err, &stderr)
	}
	return outcome{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String(), time.Since(begin)}
}

func testProgram(t *testing.T) string {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return program
}

// wantDone fails unless the command did what it was asked to.
func (o outcome) wantDone(t *testing.T) outcome {
	t.Helper()
	if o.code != exitDone {
		t.Fatalf("exit code %d, want 0; stderr:\n%s", o.code, o.stderr)
	}
	return o
}

// wantRefused fails unless the command ended with exit code 1 and one line on stderr that has the words.
func (o outcome) wantRefused(t *testing.T, words ...string) {
	t.Helper()
	if o.code != exitFailed {
		t.Errorf("exit code %d, want %d", o.code, exitFailed)
	}
	if !strings.HasPrefix(o.stderr, "usher: ") || strings.Count(o.stderr, "\n") != 1 {
		t.Errorf("stderr is not one line:\n%s", o.stderr)
	}
	for _, word := range words {
		if !strings.Contains(o.stderr, word) {
			t.Errorf("stderr lacks %q:\n%s", word, o.stderr)
		}
	}
}

// migratedPostgres is the DSN of a database that has the schema of this binary.
func migratedPostgres(t *testing.T) string {
	t.Helper()
	return devstack.Database(t, "usher", func(ctx context.Context, dsn string) error {
		m, err := schema.Postgres(dsn)
		if err != nil {
			return err
		}
		_, err = m.Up(ctx)
		return errors.Join(err, m.Close())
	})
}

func emptyPostgres(t *testing.T) string {
	t.Helper()
	return devstack.Database(t, "empty", nil)
}

// settingsFor are the settings of a deployment on a database.
func settingsFor(dsn string) []string {
	_, master := eventstore.NewMasterKey()
	return []string{"DATABASE_URL=" + dsn, "MASTER_KEY=" + master, "HTTP_ADDR=127.0.0.1:0", "METRICS_ADDR=127.0.0.1:0", "PUBLIC_URL=http://127.0.0.1:8080",
		"BCRYPT_ROUNDS=4"}
}

// devDirectory is a directory that `usher dev` has run in, until the administrator was in the read model.
func devDirectory(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), testProgram(t), "dev", "--dir", dir,
		"--http", "127.0.0.1:0", "--nats", "127.0.0.1:0", "--metrics", "127.0.0.1:0")
	cmd.Env = []string{asUsher + "=1", "BCRYPT_ROUNDS=4"}
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := devstack.Spawn(cmd); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for begin := time.Now(); !strings.Contains(usher(t, dir, nil, "users", "list", "--dir", dir).stdout, devAdmin); <-tick.C {
		if time.Since(begin) > time.Minute {
			t.Fatal("usher dev did not put the administrator into the read model")
		}
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("usher dev after an interrupt: %v\n%s", err, &stderr)
	}
	return dir
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, test := range []struct {
		args string
		code int
		says string // on stderr, or on stdout after success
	}{
		{"", exitDone, "Usage:"},
		{"--help", exitDone, "Usage:"},
		{"serve --help", exitDone, "--with"},
		{"--version", exitDone, "usher version development"},
		{"users", exitDone, "Usage:"},
		{"config", exitDone, "BCRYPT_ROUNDS"},

		{"users list", exitFailed, "there is no deployment in .usher"},
		{"users list --dir elsewhere", exitFailed, "there is no deployment in elsewhere"},
		{"migrate status", exitFailed, "there is no deployment in .usher"},
		{"migrate up", exitFailed, "there is no deployment in .usher"},
		{"publish", exitFailed, "there is no deployment in .usher"},
		{"serve", exitFailed, "DATABASE_URL is not set"},

		{"sreve", exitUse, `there is no command "usher sreve"`},
		{"users lst", exitUse, `there is no command "usher users lst"; did you mean list?`},
		{"users roles grant ada@example.org admin", exitUse, `there is no command "usher users roles grant"; did you mean add?`},
		{"users roles revoke ada@example.org admin", exitUse, `did you mean remove?`},
		{"users grant ada@example.org admin", exitUse, `did you mean roles?`},
		{"users delete ada@example.org", exitUse, `did you mean erase?`},
		{"users roles promote", exitUse, `there is no command "usher users roles promote"; there are add, adopt, remove, rename, unadopted`},
		{"migrate", exitDone, "Usage:"},
		{"migrate sideways", exitUse, `there is no command "usher migrate sideways"`},
		{"--colour", exitUse, "unknown flag: --colour"},
		{"users list --colour", exitUse, "unknown flag: --colour"},
		{"users list --limit many", exitUse, `invalid argument "many"`},
		{"keys rotate --now --announce 10m", exitUse, "--announce does not go with --now"},
		{"clients add", exitUse, "NAME is missing; the usage is: usher clients add NAME [flags]"},
		{"keys rotate --announce 1m", exitUse, "--announce takes a duration from 5m0s"},
		{"users list extra", exitUse, `"extra" is an argument too many; the usage is: usher users list [flags]`},
		{"users show", exitUse, "ID|EMAIL is missing; the usage is: usher users show ID|EMAIL [flags]"},
		{"users show ada", exitUse, `"ada" is not a user; expected the id of a user or an email address`},
		{"users lock ada", exitUse, `"ada" is not a user`},
		{"users roles add ada@example.org", exitUse, "ROLE is missing"},
		{"users create", exitUse, "EMAIL is missing"},
		{"users create ada@example.org", exitFailed, "there is no deployment in .usher"},
		{"events show ada", exitUse, `"ada" is not a stream; expected the id of a stream or an email address`},
		{"serve --with relay", exitUse, "--with takes publisher, projections and webhooks"},
		{"project orders", exitUse, `there is no projection "orders"; there are users, sessions, activity, stats`},
		{"publish --batch-size -1", exitUse, "--batch-size takes a whole number from 1 to 10000"},
		{"webhooks add", exitUse, "URL is missing"},
		{"webhooks test x", exitUse, `"x" is not the id of a webhook; expected a UUID`},
		{"webhooks redrive 0198c0de-0000-7000-8000-000000000000 x", exitUse, `"x" is not the id of a delivery; expected a UUID`},
		{"webhooks list", exitFailed, "there is no deployment in .usher"},
		{"migrate zero --destroy-all-data", exitUse, "unknown flag"},
		{"dev --nats nowhere", exitUse, "--nats takes host:port"},
		{"dev --http 127.0.0.1:99999", exitUse, "--http takes host:port"},
		{"dev --dir d extra", exitUse, "usher dev"},
	} {
		t.Run(test.args, func(t *testing.T) {
			t.Parallel()
			o := usher(t, dir, []string{"HTTP_ADDR=127.0.0.1:0"}, strings.Fields(test.args)...)
			if o.code != test.code {
				t.Errorf("exit code %d, want %d", o.code, test.code)
			}
			said, silent := o.stderr, o.stdout
			if test.code == exitDone {
				said, silent = o.stdout, o.stderr
			}
			if !strings.Contains(said, test.says) || silent != "" {
				t.Errorf("stdout:\n%s\nstderr:\n%s\nwant %q", o.stdout, o.stderr, test.says)
			}
			if hint := strings.Contains(o.stderr, "\nSee `usher"); hint != (test.code == exitUse) {
				t.Errorf("points to the help: %v, with exit code %d", hint, o.code)
			}
			if test.code == exitDone {
				return
			}
			o = usher(t, dir, []string{"HTTP_ADDR=127.0.0.1:0"}, append(strings.Fields(test.args), "--json")...)
			var told failure
			if err := json.Unmarshal([]byte(o.stderr), &told); err != nil || told.ExitCode != test.code || len(told.Errors) == 0 || told.Errors[0].Code == "" {
				t.Errorf("with --json: exit code %d, %+v, %v\n%s", o.code, told, err, o.stderr)
			}
		})
	}
}

func TestListingsOfAStoppedDeployment(t *testing.T) {
	t.Parallel()
	dir := devDirectory(t)
	for _, test := range []struct {
		args string
		has  string
	}{
		{"users list", devAdmin},
		{"projections list", `"users"`},
		{"webhooks list", `[]`},
		{"outbox status", `"stopped"`},
		{"keys list", `"signing"`},
		{"clients list", `[]`},
		{"migrate status", `"applied_at"`},
		{"events tail --no-follow", "user.registered"},
		{"config", `"BCRYPT_ROUNDS"`},
	} {
		t.Run(test.args, func(t *testing.T) {
			t.Parallel()
			args := strings.Fields(test.args)
			if test.args != "config" {
				args = append(args, "--dir", dir)
			}
			if text := usher(t, dir, nil, args...).wantDone(t).stdout; text == "" || json.Valid([]byte(text)) {
				t.Errorf("without --json it is not a table:\n%s", text)
			}
			text := usher(t, dir, nil, append(args, "--json")...).wantDone(t).stdout
			decoder := json.NewDecoder(strings.NewReader(text)) // of events there are several values
			for decoder.More() {
				var v any
				if err := decoder.Decode(&v); err != nil {
					t.Fatalf("--json prints something else: %v\n%s", err, text)
				}
			}
			if !strings.Contains(text, test.has) {
				t.Errorf("%q is not in\n%s", test.has, text)
			}
		})
	}
	for _, args := range []string{"--limit 100000", "--limit -1", "--verified perhaps", "--created-after today", "--status gone", "--cursor invented"} {
		o := usher(t, dir, nil, append([]string{"users", "list", "--dir", dir}, strings.Fields(args)...)...)
		if o.code != exitUse {
			t.Errorf("users list %s: exit code %d, want %d; stderr:\n%s", args, o.code, exitUse, o.stderr)
		}
	}
	usher(t, dir, nil, "users", "show", "0198c0de-0000-7000-8000-000000000000", "--dir", dir).wantRefused(t, "there is no such user")
	usher(t, dir, nil, "events", "show", "0198c0de-0000-7000-8000-000000000000", "--dir", dir).wantRefused(t, "there is no such stream")
	for _, args := range []string{"http://93.184.215.14", "https://10.0.0.1", "https://93.184.215.14 --events user.vanished", "https://93.184.215.14 --from 99999"} {
		o := usher(t, dir, nil, append([]string{"webhooks", "add", "--dir", dir}, strings.Fields(args)...)...)
		if o.code != exitUse {
			t.Errorf("webhooks add %s: exit code %d, want %d; stderr:\n%s", args, o.code, exitUse, o.stderr)
		}
	}
	usher(t, dir, nil, "webhooks", "remove", "0198c0de-0000-7000-8000-000000000000", "--dir", dir).wantRefused(t, "there is no such webhook")
	usher(t, dir, nil, "publish", "--dir", dir).wantRefused(t, "NATS can't be reached", "usher dev")
	usher(t, dir, nil, "outbox", "reset", "--dir", dir).wantRefused(t, "NATS can't be reached")
	usher(t, dir, []string{"NATS_URL=nats://127.0.0.1:1"}, "users", "list", "--dir", dir).wantRefused(t, "NATS_URL is set and DATABASE_URL is not")
}

// What has nothing to do says so, and so does a list that nobody keeps up to date.
func TestWebhooksAreAdministered(t *testing.T) {
	t.Parallel()
	dir := devDirectory(t)
	hook := usher(t, dir, nil, "webhooks", "add", "http://127.0.0.1:1/hook", "--dir", dir, "--json").wantDone(t).stdout
	var made struct{ ID, Secret string }
	if err := json.Unmarshal([]byte(hook), &made); err != nil {
		t.Fatalf("webhooks add --json: %v\n%s", err, hook)
	}
	for _, step := range []struct{ command, says string }{
		{"enable", "is active already; nothing was changed"}, {"disable", "is disabled (operator)"}, {"disable", "is disabled (operator) already; nothing was changed"},
		{"enable", "is active"}, {"redrive", "there are no dead letters"},
	} {
		if text := usher(t, dir, nil, "webhooks", step.command, made.ID, "--dir", dir).wantDone(t).stdout; !strings.Contains(text, step.says) {
			t.Errorf("webhooks %s says %q, want %q", step.command, text, step.says)
		}
	}
	var rotated struct{ ID, Secret string }
	text := usher(t, dir, nil, "webhooks", "rotate", made.ID, "--dir", dir, "--json").wantDone(t).stdout
	if err := json.Unmarshal([]byte(text), &rotated); err != nil || rotated.ID != made.ID || !strings.HasPrefix(rotated.Secret, "whsec_") || rotated.Secret == made.Secret {
		t.Errorf("webhooks rotate: %v\n%s", err, text)
	}
	usher(t, dir, nil, "webhooks", "remove", made.ID, "--yes", "--dir", dir).wantDone(t)
	for _, command := range []string{"enable", "rotate"} {
		usher(t, dir, nil, "webhooks", command, made.ID, "--dir", dir).wantRefused(t, "there is no such webhook")
	}
	usher(t, dir, nil, "users", "create", "late@example.org", "--dir", dir).wantDone(t)
	if o := usher(t, dir, nil, "users", "list", "--dir", dir).wantDone(t); !strings.Contains(o.stderr, "events behind the log: no process keeps it up to date") {
		t.Errorf("users list beside a stopped dev says\n%s%s", o.stdout, o.stderr)
	}
}
