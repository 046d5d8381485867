package main

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// registerAt registers a user with a running `usher dev` and answers with the user's id.
func registerAt(t *testing.T, dir, email string) string {
	t.Helper()
	var at addresses
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for begin := time.Now(); at.HTTP == ""; <-tick.C {
		if time.Since(begin) > time.Minute {
			t.Fatal("usher dev did not say where it listens")
		}
		at, _ = readAddresses(dir)
	}
	r, err := http.Post("http://"+at.HTTP+"/v1/auth/register", "application/json", strings.NewReader(`{"email":"`+email+`","password":"a long passphrase"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	var body struct{ User struct{ ID string } }
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil || body.User.ID == "" {
		t.Fatalf("registering answered %d: %v", r.StatusCode, err)
	}
	return body.User.ID
}

func TestUsersErase(t *testing.T) {
	t.Parallel()
	dir := runningDev(t)
	erase := func(args ...string) outcome {
		t.Helper()
		return usher(t, dir, nil, append([]string{"users", "erase", "--dir", dir}, args...)...)
	}
	ada := registerAt(t, dir, "ada@example.org")

	if o := erase("ada@example.org"); o.code != exitUse || !strings.Contains(o.stderr, "Erase user "+ada) ||
		!strings.Contains(o.stderr, "nothing was done") || !strings.Contains(o.stderr, "--yes") {
		t.Errorf("without an answer: exit code %d\n%s", o.code, o.stderr)
	}
	usher(t, dir, nil, "events", "show", ada, "--dir", dir).wantDone(t)
	cmd := exec.CommandContext(t.Context(), testProgram(t), "users", "erase", "--dir", dir, "Ada@example.org")
	cmd.Dir, cmd.Env, cmd.Stdin = dir, []string{asUsher + "=1"}, strings.NewReader("yes\n")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "erased "+ada+", at position ") {
		t.Errorf("answered with yes: %v\n%s", err, out)
	}
	erase("ada@example.org", "--yes").wantRefused(t, "there is no such user")

	var again struct {
		ID       string
		Position int64
	}
	if err := json.Unmarshal([]byte(erase(ada, "--yes", "--json").wantDone(t).stdout), &again); err != nil || again.ID != ada || again.Position == 0 {
		t.Errorf("again: %+v, %v", again, err)
	}
	erase("0198c0de-0000-7000-8000-000000000000", "--yes").wantRefused(t, "there is no such user")
	erase(devAdmin, "--yes").wantRefused(t, "there has to be an administrator")
	if o := erase("ada", "--yes"); o.code != exitUse || !strings.Contains(o.stderr, `"ada" is not a user`) {
		t.Errorf("neither an id nor an address: exit code %d\n%s", o.code, o.stderr)
	}
	ledger, err := os.ReadFile(filepath.Join(dir, ledgerFile))
	if err != nil || strings.Count(string(ledger), "\n") != 1 || !strings.Contains(string(ledger), ada) {
		t.Errorf("the ledger is %q, %v", ledger, err)
	}
}
