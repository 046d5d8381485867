package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestExportGoesOn(t *testing.T) {
	t.Parallel()
	dir := devDirectory(t)
	whole := usher(t, dir, nil, "events", "export", "--dir", dir).wantDone(t).stdout
	lines := strings.SplitAfter(whole, "\n")
	if len(lines) < 4 {
		t.Fatalf("exported\n%s", whole)
	}
	path := filepath.Join(t.TempDir(), "events.jsonl")
	for name, begun := range map[string]string{
		"nothing yet": "", "a line": lines[0], "two lines": lines[0] + lines[1], "cut short": lines[0] + lines[1][:20], "all": whole,
		"cut short in the first": lines[0][:10],
	} {
		if err := os.WriteFile(path, []byte(begun), 0o600); err != nil {
			t.Fatal(err)
		}
		usher(t, dir, nil, "events", "export", "--dir", dir, "--output", path).wantDone(t)
		if got, err := os.ReadFile(path); err != nil || string(got) != whole {
			t.Errorf("%s: the file has\n%s, %v, want\n%s", name, got, err, whole)
		}
	}
	if err := os.WriteFile(path, []byte("a diary\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	usher(t, dir, nil, "events", "export", "--dir", dir, "--output", path).wantRefused(t, "it is no export")
	if got, err := os.ReadFile(path); err != nil || string(got) != "a diary\n" {
		t.Errorf("a file that is no export was changed to %q, %v", got, err)
	}
	if o := usher(t, dir, nil, "events", "export", "--dir", dir, "--from", "yesterday"); o.code != exitUse {
		t.Errorf("--from yesterday: exit code %d, want %d", o.code, exitUse)
	}

	// By time: the second event was recorded with the first.
	var second struct {
		Position int64
		Time     time.Time
	}
	if err := json.Unmarshal([]byte(lines[1]), &second); err != nil {
		t.Fatal(err)
	}
	at := second.Time.Format(time.RFC3339Nano)
	if got := usher(t, dir, nil, "events", "export", "--dir", dir, "--from", at).wantDone(t).stdout; got != whole {
		t.Errorf("exported from %s\n%s, want\n%s", at, got, whole)
	}
	if got := usher(t, dir, nil, "events", "tail", "--no-follow", "--json", "--dir", dir, "--from", "2").wantDone(t).stdout; !strings.HasPrefix(got, lines[1]) {
		t.Errorf("tail --from 2 prints\n%s", got)
	}
}

func TestVerifyCommand(t *testing.T) {
	t.Parallel()
	dir := runningDev(t)
	var last outcome
	for deadline := time.Now().Add(time.Minute); last.code != exitDone || last.stdout == ""; {
		if last = usher(t, dir, nil, "events", "verify", "--json", "--dir", dir); time.Now().After(deadline) {
			t.Fatalf("usher events verify: %+v", last)
		}
	}
	var report struct{ Last, Head, Messages int64 }
	if err := json.NewDecoder(bytes.NewReader([]byte(last.stdout))).Decode(&report); err != nil || report.Messages < 3 || report.Last != report.Head {
		t.Errorf("usher events verify --json: %v\n%s", err, last.stdout)
	}
	if o := usher(t, dir, nil, "events", "verify", "--dir", dir).wantDone(t); !strings.Contains(o.stdout, "SHA-256") {
		t.Errorf("usher events verify prints\n%s", o.stdout)
	}
}
