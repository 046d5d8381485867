package main

import (
	"encoding/json"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// usherWith runs a command line with a text on standard input.
func usherWith(t *testing.T, dir, stdin string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), testProgram(t), args...)
	cmd.Dir, cmd.Env, cmd.Stdin = dir, []string{asUsher + "=1", "BCRYPT_ROUNDS=4"}, strings.NewReader(stdin)
	var out, errors strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errors
	err = cmd.Run()
	return out.String(), errors.String(), err
}

func TestUsersAreAdministered(t *testing.T) {
	t.Parallel()
	dir := devDirectory(t)
	users := func(args ...string) outcome {
		t.Helper()
		return usher(t, dir, []string{"BCRYPT_ROUNDS=4"}, append([]string{"users", "--dir", dir}, args...)...)
	}
	type user struct {
		ID, Email, Name, Status string
		EmailVerified           bool `json:"email_verified"`
		Roles                   []string
		Attributes              map[string]any
		Position                int64
	}
	show := func(args ...string) (u user) {
		t.Helper()
		if err := json.Unmarshal([]byte(users(append([]string{"show"}, args...)...).wantDone(t).stdout), &u); err != nil {
			t.Fatal(err)
		}
		return u
	}

	out, said, err := usherWith(t, dir, "a long passphrase\nmore\n", "users", "create", "Ada@example.org", "--dir", dir, "--name", "Ada", "--role", "writer,editor",
		"--verified", "--attributes", `{"plan":"paid"}`, "--password-stdin", "--json")
	var made user
	if err != nil || json.Unmarshal([]byte(out), &made) != nil || strings.Contains(out+said, "passphrase") {
		t.Fatalf("create: %v\n%s%s", err, out, said)
	}
	if made.Email != "Ada@example.org" || !made.EmailVerified || strings.Join(made.Roles, " ") != "editor writer" || made.Attributes["plan"] != "paid" {
		t.Errorf("created %+v", made)
	}
	users("create", "ada@EXAMPLE.org").wantRefused(t, "the address is taken")
	users("create", "bob@example.org", "--role", "Admin!").wantRefused(t, "a role is a lower-case word")
	users("create", "bob@example.org", "--attributes", "[]").wantRefused(t, "not a JSON object")
	if _, out, err := usherWith(t, dir, "\n", "users", "create", "bob@example.org", "--dir", dir, "--password-stdin"); err == nil || !strings.Contains(out, "no password") {
		t.Errorf("an empty password: %v\n%s", err, out)
	}
	if _, out, err := usherWith(t, dir, "short\n", "users", "create", "bob@example.org", "--dir", dir, "--password-stdin"); err == nil || strings.Contains(out, "short\n") {
		t.Errorf("a weak password: %v\n%s", err, out)
	}

	for _, step := range []struct{ command, status, says string }{
		{"lock", "locked", "at position "}, {"lock", "locked", "is locked already; nothing was changed"}, {"disable", "disabled", "at position "},
		{"unlock", "disabled", "at position "}, {"unlock", "disabled", "is not locked; nothing was changed"},
		{"enable", "active", "at position "}, {"enable", "active", "is not disabled; nothing was changed"},
	} {
		text := users(step.command, "ada@example.org").wantDone(t).stdout
		if !strings.Contains(text, made.ID) || !strings.Contains(text, step.says) {
			t.Errorf("%s says %s", step.command, text)
		}
		if u := show(made.ID); u.Status != step.status {
			t.Errorf("after %s: %s, want %s", step.command, u.Status, step.status)
		}
	}
	users("roles", "add", made.ID, "admin").wantDone(t)
	users("roles", "remove", made.ID, "editor").wantDone(t)
	if u := show("ada@example.org"); strings.Join(u.Roles, " ") != "admin writer" {
		t.Errorf("roles %v", u.Roles)
	}
	users("roles", "add", made.ID, "Admin!").wantRefused(t, "a role is a lower-case word")

	// Another password, for who asks an operator, and the second factor of who lost it.
	if _, said, err := usherWith(t, dir, "quite another passphrase\n", "users", "set-password", "ada@example.org", "--dir", dir); err != nil || strings.Contains(said, "passphrase") {
		t.Errorf("set-password: %v\n%s", err, said)
	}
	if _, said, err := usherWith(t, dir, "short\n", "users", "set-password", made.ID, "--dir", dir); err == nil || !strings.Contains(said, "the password can't be used") {
		t.Errorf("a weak password: %v\n%s", err, said)
	}
	if text := usher(t, dir, nil, "events", "show", made.ID, "--dir", dir).wantDone(t).stdout; strings.Count(text, `user.password_changed    {"reason":"admin"}`) != 1 {
		t.Errorf("after set-password the events are\n%s", text)
	}
	if text := users("totp", "reset", made.ID).wantDone(t).stdout; !strings.Contains(text, "has no second factor; nothing was changed") {
		t.Errorf("totp reset says %s", text)
	}

	// The user as of then.
	if u := show(made.ID, "--at", strconv.FormatInt(made.Position, 10)); strings.Join(u.Roles, " ") != "editor writer" || u.Position != made.Position {
		t.Errorf("as of position %d: %+v", made.Position, u)
	}
	users("show", made.ID, "--at", "2020-01-01T00:00:00Z").wantRefused(t, "there is no such user")
	for _, at := range []string{"yesterday", "2999-01-01T00:00:00Z", "99999999", "-1"} {
		if o := users("show", made.ID, "--at", at); o.code != exitUse {
			t.Errorf("--at %s: exit code %d, want %d\n%s", at, o.code, exitUse, o.stderr)
		}
	}

	// There are two administrators now, and then one.
	users("disable", devAdmin).wantDone(t)
	users("lock", made.ID).wantRefused(t, "there has to be an administrator")
	users("roles", "remove", made.ID, "admin").wantRefused(t, "there has to be an administrator")
	users("lock", "nobody@example.org").wantRefused(t, "there is no such user")
	users("lock", "0198c0de-0000-7000-8000-000000000000").wantRefused(t, "there is no such user")
	var answer struct {
		ID       string
		Position int64
	}
	if err := json.Unmarshal([]byte(users("unlock", made.ID, "--json").wantDone(t).stdout), &answer); err != nil || answer.ID != made.ID || answer.Position == 0 {
		t.Errorf("unlock --json: %+v, %v", answer, err)
	}
}
