package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"usher.example/projections"
)

// statusOf reads the status of a projection as `projections list --json` prints it.
func statusOf(t *testing.T, dir, name string) projections.Status {
	t.Helper()
	var list []projections.Status
	text := usher(t, dir, nil, "projections", "list", "--json", "--dir", dir).wantDone(t).stdout
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("there is no %s in\n%s", name, text)
	return projections.Status{}
}

// Every command works on a deployment that nothing runs on.
func TestProjectionsOfAStoppedDeployment(t *testing.T) {
	t.Parallel()
	dir := devDirectory(t)
	run := func(args ...string) outcome {
		t.Helper()
		return usher(t, dir, nil, append(append([]string{"projections"}, args...), "--dir", dir)...)
	}
	o := run("rebuild", "users").wantDone(t)
	if !strings.Contains(o.stdout, "users: generation 2 is live at position") || !strings.Contains(o.stdout, "no differences") ||
		!strings.Contains(o.stderr, "loading: ") || strings.Contains(o.stderr, "\x1b") {
		t.Errorf("stdout:\n%s\nstderr:\n%s\nwant what was done, and plain lines of progress", o.stdout, o.stderr)
	}
	if text := usher(t, dir, nil, "events", "tail", "--no-follow", "--dir", dir).wantDone(t).stdout; !strings.Contains(text, "projection.rebuilt") {
		t.Errorf("the log lacks the rebuild:\n%s", text)
	}
	if text := usher(t, dir, nil, "users", "list", "--dir", dir).wantDone(t).stdout; !strings.Contains(text, devAdmin) {
		t.Errorf("the rebuilt read model lacks the administrator:\n%s", text)
	}
	var rebuilt projections.Rebuilt
	if err := json.Unmarshal([]byte(run("rebuild", "users", "--json").wantDone(t).stdout), &rebuilt); err != nil || rebuilt.Generation != 3 {
		t.Errorf("rebuild --json = %+v, %v, want generation 3", rebuilt, err)
	}
	if s := statusOf(t, dir, "users"); s.Generation != 3 || s.Standby == nil || s.Standby.Generation != 2 {
		t.Errorf("status = %+v, want generation 3, and 2 as the standby", s)
	}
	if o := run("drop-standby", "users"); o.code != exitUse || !strings.Contains(o.stderr, "Drop generation 2 of users? ") || !strings.Contains(o.stderr, "--yes") {
		t.Errorf("drop-standby unasked: exit code %d\n%s", o.code, o.stderr)
	}
	for _, test := range []struct{ args, says string }{
		{"rollback users", "users: generation 2 is live"},
		{"drop-standby users --yes", "users: dropped"},
		{"pause users", "users: paused"},
		{"list", "paused"},
		{"resume users", "users: resumed"},
		{"pause users --json", `"state": "paused"`},
		{"resume users --json", `"state": "stopped"`},
	} {
		if text := run(strings.Fields(test.args)...).wantDone(t).stdout; !strings.Contains(text, test.says) {
			t.Errorf("projections %s prints\n%s\nwant %q", test.args, text, test.says)
		}
	}
	run("rollback", "users").wantRefused(t, "there is no standby generation")
	run("drop-standby", "users").wantRefused(t, "there is no standby generation")
	run("cancel", "users").wantRefused(t, "there is no rebuild")
	run("retry", "users").wantRefused(t, "not parked", "usher projections list")
	run("skip", "users").wantRefused(t, "not parked")
	run("skip", "users", "--user", "01980000-0000-7000-8000-000000000001", "--position", "1", "--yes").wantRefused(t, "not parked")
	for _, command := range []string{"rebuild", "cancel", "rollback", "drop-standby", "pause", "resume", "retry", "skip"} {
		run(command, "orders").wantRefused(t, "unknown projection", "users")
	}
	for _, args := range []string{"rebuild", "skip users --position 1", "skip users --user ada --position 1", "retry users --user ada", "pause users extra"} {
		if o := run(strings.Fields(args)...); o.code != exitUse {
			t.Errorf("projections %s: exit code %d, want %d; stderr:\n%s", args, o.code, exitUse, o.stderr)
		}
	}
}

func TestProgress(t *testing.T) {
	t.Parallel()
	eta := int64(90)
	at := projections.Rebuild{State: projections.RebuildLoading, Position: 2500, Target: 10_000, Rate: 83, ETA: &eta}
	var plain bytes.Buffer
	l := showProgress(&plain, false)
	l.tell(at)
	l.tell(at) // so soon that it says nothing
	at.State, at.Elsewhere = projections.RebuildComparing, true
	l.tell(at)
	l.end()
	if want := "loading: 2500 of 10000, 83 events/s, 1m30s left\ncomparing: 2500 of 10000 (in another process)\n"; plain.String() != want {
		t.Errorf("lines:\n%s\nwant\n%s", &plain, want)
	}
	var terminal bytes.Buffer
	b := newRebuildBar(&terminal)
	b.tell(at)
	b.end()
	if !strings.Contains(terminal.String(), "comparing") || !strings.Contains(terminal.String(), "25%") {
		t.Errorf("the bar is %q, want what is done and 25%%", &terminal)
	}
	if !strings.HasSuffix(terminal.String(), "\n") {
		t.Errorf("the bar does not end its line: %q", &terminal)
	}
	// A line above the bar has nothing of the bar in it, and what follows an end of the bar that was not drawn since is no empty line.
	b = newRebuildBar(&terminal)
	terminal.Reset()
	b.tell(at)
	if err := b.screen.above(&terminal, "line 3: refused"); err != nil {
		t.Fatal(err)
	}
	b.end()
	if !strings.HasSuffix(terminal.String(), "\r\x1b[2Kline 3: refused\n") {
		t.Errorf("a line above the bar: %q", &terminal)
	}
}
