package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"usher.example/eventstore"
	"usher.example/eventstore/sqlite"
	"usher.example/internal/devstack"
)

// checked runs `usher check --json` and answers with the exit code and the status of each check, as "component/check".
func checked(t *testing.T, env []string, args ...string) (code int, status map[string]health, details string) {
	t.Helper()
	o := usher(t, t.TempDir(), env, append([]string{"check", "--json"}, args...)...)
	var out struct {
		Status health
		Checks []finding
	}
	if err := json.Unmarshal([]byte(o.stdout), &out); err != nil {
		t.Fatalf("usher check --json: %v\n%s\n%s", err, o.stdout, o.stderr)
	}
	status = map[string]health{}
	for _, f := range out.Checks {
		status[f.Component+"/"+f.Check] = f.Status
		details += f.Detail + "\n"
	}
	if (out.Status == failed) != (o.code == exitFailed) {
		t.Errorf("status %s with exit code %d", out.Status, o.code)
	}
	return o.code, status, details
}

// runningDev is the directory of an `usher dev` that runs until the test ends.
func runningDev(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command(testProgram(t), "dev", "--dir", dir,
		"--http", "127.0.0.1:0", "--nats", "127.0.0.1:0", "--metrics", "127.0.0.1:0")
	cmd.Env = []string{asUsher + "=1", "BCRYPT_ROUNDS=4"}
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := devstack.Spawn(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt) // it may have ended
		if err := cmd.Wait(); err != nil {
			t.Errorf("usher dev: %v\n%s", err, &stderr)
		}
	})
	return dir
}

func TestCheckOfARunningDeployment(t *testing.T) {
	t.Parallel()
	dir := runningDev(t)
	well := func() bool {
		code, status, _ := checked(t, nil, "--dir", dir)
		for _, name := range []string{"database/connection", "database/log", "auth/signing key", "outbox/relay", "broker/stream", "projections/users"} {
			if status[name] != healthy {
				return false
			}
		}
		return code == exitDone
	}
	for deadline := time.Now().Add(time.Minute); !well(); {
		if time.Now().After(deadline) {
			_, status, details := checked(t, nil, "--dir", dir)
			t.Fatalf("it does not get well: %v\n%s", status, details)
		}
	}
	if _, only, _ := checked(t, nil, "--dir", dir, "--component", "outbox"); len(only) != 2 || only["outbox/relay"] != healthy {
		t.Errorf("--component outbox looks at %v", only)
	}
	if o := usher(t, dir, nil, "check", "--dir", dir).wantDone(t); !strings.HasPrefix(o.stdout, "all ") {
		t.Errorf("it prints %q, want one line", o.stdout)
	}
	if o := usher(t, dir, nil, "check", "--dir", dir, "--verbose").wantDone(t); !strings.Contains(o.stdout, "latency_ms=") {
		t.Errorf("--verbose shows no figures:\n%s", o.stdout)
	}
}

func TestCheckOfAStoppedDeployment(t *testing.T) {
	t.Parallel()
	dir := devDirectory(t)
	code, status, details := checked(t, nil, "--dir", dir)
	if code != exitFailed || status["outbox/relay"] != failed || status["projections/users"] != failed || status["database/log"] != healthy {
		t.Errorf("exit code %d, %v", code, status)
	}
	for _, words := range []string{"usher publish --continuous", "usher project", "NATS can't be reached"} {
		if !strings.Contains(details, words) {
			t.Errorf("%q is not among the details:\n%s", words, details)
		}
	}
}

// An event that is gone is found, and so are a relay that has halted and an erasure that is not finished.
func TestCheckFindsDamage(t *testing.T) {
	t.Parallel()
	dir := devDirectory(t)
	s, err := sqlite.Open(t.Context(), filepath.Join(dir, databaseFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{"DELETE FROM events WHERE position = 2", "UPDATE relay SET state = 'halted', error = 'the stream is ahead'",
		"INSERT INTO erasures (subject, actor, requested_at) VALUES ('0198c0de-0000-7000-8000-000000000000', 'operator', '2026-01-01 00:00:00.000000')"} {
		if n, err := s.Exec(t.Context(), statement); n != 1 || err != nil {
			t.Fatal(statement, n, err)
		}
	}
	s.Close()
	_, status, details := checked(t, nil, "--dir", dir)
	if status["database/log"] != failed || status["outbox/relay"] != failed || status["database/erasures"] != failed || !strings.Contains(details, "the stream is ahead") {
		t.Errorf("%v\n%s", status, details)
	}
}

func TestCheckOnPostgres(t *testing.T) {
	t.Parallel()
	dsn := migratedPostgres(t)
	env := settingsFor(dsn)
	code, status, details := checked(t, slices.DeleteFunc(slices.Clone(env), func(s string) bool { return strings.HasPrefix(s, "PUBLIC_URL=") }))
	if code != exitFailed || status["database/partitions"] != healthy || status["database/clock"] != healthy ||
		status["database/privileges"] != warning || status["broker/connection"] != warning || status["auth/public URL"] != warning {
		t.Errorf("exit code %d, %v\n%s", code, status, details)
	}
	_, other := eventstore.NewMasterKey()
	code, status, details = checked(t, append(env, "MASTER_KEY="+other))
	if code != exitFailed || status["database/open"] != failed || !strings.Contains(details, "MASTER_KEY") {
		t.Errorf("with another master key: exit code %d, %v\n%s", code, status, details)
	}
	if o := usher(t, t.TempDir(), env, "check", "--component", "kitchen"); o.code != exitUse {
		t.Errorf("exit code %d for a component that does not exist, want %d", o.code, exitUse)
	}
}
