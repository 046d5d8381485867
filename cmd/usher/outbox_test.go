package main

import (
	"encoding/json"
	"strings"
	"testing"
)

// A stream that is well stays as it is, unless somebody insists; then the command tells what was done.
func TestOutboxReset(t *testing.T) {
	t.Parallel()
	dir := runningDev(t)
	registerAt(t, dir, "ada@example.org")
	reset := func(args ...string) outcome {
		t.Helper()
		return usher(t, dir, nil, append([]string{"outbox", "reset", "--dir", dir}, args...)...)
	}
	for _, args := range [][]string{nil, {"--yes"}} {
		reset(args...).wantRefused(t, "has not halted", "--force")
	}
	if o := reset("--force"); o.code != exitUse || !strings.Contains(o.stderr, "This will delete the JetStream stream USHER with all that is in it (messages: ") || !strings.Contains(o.stderr, "--yes") {
		t.Errorf("unasked: exit code %d\n%s", o.code, o.stderr)
	}
	var done struct{ Messages, Published, Head int64 }
	if err := json.Unmarshal([]byte(reset("--force", "--yes", "--json").wantDone(t).stdout), &done); err != nil {
		t.Fatal(err)
	}
	if done.Messages < 2 || done.Published < done.Messages || done.Head < done.Messages {
		t.Errorf("it tells %+v", done)
	}
	if text := reset("--force", "--yes").wantDone(t).stdout; !strings.Contains(text, "published the log again, up to position ") {
		t.Errorf("it tells %q", text)
	}
}
