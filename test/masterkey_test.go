package test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"usher.example/eventstore"
)

// The master key is rotated by the owner of the tables, and everybody else's rights reach what is sealed under the new one.
func TestRotateMasterKeyAsTheOwner(t *testing.T) {
	t.Parallel()
	super := withRoles(t)
	_, old := eventstore.NewMasterKey()
	_, fresh := eventstore.NewMasterKey()
	usher := func(role, key string, args ...string) (string, error) {
		t.Helper()
		cmd := exec.Command(program, args...)
		cmd.Dir = t.TempDir()
		cmd.Env = append(os.Environ(), "DATABASE_URL="+loggedInAs(t, super, role), "MASTER_KEY="+key)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	must := func(role, key string, args ...string) string {
		t.Helper()
		out, err := usher(role, key, args...)
		if err != nil {
			t.Fatalf("usher %s as %s: %v\n%s", strings.Join(args, " "), role, err, out)
		}
		return out
	}
	must("usher_api", old, "users", "create", "ada@example.org", "--name", "Ada")
	for _, role := range []string{"usher_api", "usher_worker", "usher_monitor"} {
		if out, err := usher(role, fresh+","+old, "keys", "master", "rotate"); err == nil || !strings.Contains(out, "roles.sql") {
			t.Errorf("rotate as %s: %v\n%s", role, err, out)
		}
	}
	if out := must("usher_owner", fresh+","+old, "keys", "master", "rotate"); !strings.Contains(out, "1 sealed anew") {
		t.Errorf("rotate as usher_owner: %s", out)
	}
	for _, key := range []string{fresh, fresh + "," + old} {
		if out := must("usher_api", key, "users", "show", "ada@example.org"); !strings.Contains(out, "Ada") {
			t.Errorf("users show: %s", out)
		}
		if out := must("usher_api", key, "users", "show", "ada@example.org", "--everything"); !strings.Contains(out, `"events":[{"position":`) || !strings.HasSuffix(out, "]}\n") {
			t.Errorf("users show --everything: %s", out)
		}
	}
	must("usher_api", fresh, "users", "create", "bob@example.org", "--name", "Bob")
	must("usher_worker", fresh, "events", "tail", "--no-follow")
}
