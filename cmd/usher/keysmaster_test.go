package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"usher.example/eventstore"
	"usher.example/eventstore/postgres"
)

// The whole way that deploy/keys.md describes, with the key in each of the places that it may be in.
func TestRotateMasterKey(t *testing.T) {
	t.Parallel()
	dsn, dir := migratedPostgres(t), t.TempDir()
	oldKey, old := eventstore.NewMasterKey()
	_, fresh := eventstore.NewMasterKey()
	file := filepath.Join(dir, "key")
	if err := os.WriteFile(file, []byte(fresh+"\n"+old+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	with := func(setting string) []string {
		var env []string
		for _, s := range settingsFor(dsn) {
			if !strings.HasPrefix(s, "MASTER_KEY=") {
				env = append(env, s)
			}
		}
		return append(env, setting)
	}
	oldOnly, both, freshOnly := with("MASTER_KEY="+old), with("MASTER_KEY_FILE="+file), with("MASTER_KEY_COMMAND=echo "+fresh)
	run := func(env []string, args ...string) string {
		t.Helper()
		o := usher(t, dir, env, args...)
		if o.code != 0 {
			t.Fatalf("usher %v: %d\n%s%s", args, o.code, o.stdout, o.stderr)
		}
		return o.stdout
	}
	run(oldOnly, "users", "create", "ada@example.org", "--name", "Ada")
	usher(t, dir, oldOnly, "keys", "master", "rotate").wantRefused(t, "takes two keys")
	if _, status, details := checked(t, both); status["database/master key"] != warning || !strings.Contains(details, "keys master rotate") {
		t.Errorf("with a new key: %v\n%s", status["database/master key"], details)
	}

	if out := run(both, "keys", "master", "rotate"); !strings.Contains(out, "1 sealed anew") {
		t.Errorf("rotate: %s", out)
	}
	if out := run(both, "keys", "master", "rotate"); !strings.Contains(out, "nothing to do") {
		t.Errorf("rotate again: %s", out)
	}
	for _, env := range [][]string{both, freshOnly} {
		if out := run(env, "users", "show", "ada@example.org"); !strings.Contains(out, "Ada") {
			t.Errorf("users show:\n%s", out)
		}
	}
	usher(t, dir, oldOnly, "users", "show", "ada@example.org").wantRefused(t, "MASTER_KEY is not the key of this database")
	if _, status, details := checked(t, both); status["database/master key"] != warning || !strings.Contains(details, "take it out") {
		t.Errorf("with both keys: %v\n%s", status["database/master key"], details)
	}
	if _, status, _ := checked(t, freshOnly); status["database/master key"] != healthy {
		t.Errorf("with the new key: %v", status["database/master key"])
	}
	// A process that was never given the new key says so.
	store, err := postgres.Open(t.Context(), dsn, postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	r := &report{component: "database"}
	checkMasterKey(t.Context(), &deployment{store: store, masterKeys: []eventstore.MasterKey{oldKey}}, r)
	if len(r.findings) != 1 || r.findings[0].Status != failed {
		t.Errorf("with the old key: %+v", r.findings)
	}
	var keys []masterKeyView
	if err := json.Unmarshal([]byte(run(freshOnly, "keys", "master", "list", "--json")), &keys); err != nil {
		t.Fatal(err)
	}
	if len(keys) != 2 || keys[0].State != "current" || !keys[0].Given || keys[1].State != "retired" || keys[1].Given {
		t.Errorf("list: %+v", keys)
	}
}

// A directory of usher dev is never left with a file of keys that opens nothing.
func TestRotateMasterKeyOfADirectory(t *testing.T) {
	t.Parallel()
	data := devDirectory(t)
	file := filepath.Join(data, masterKeyFile)
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	old := strings.TrimSpace(string(raw))
	_, fresh := eventstore.NewMasterKey()
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(env []string, args ...string) outcome {
		t.Helper()
		return usher(t, t.TempDir(), env, append(args, "--dir", data)...)
	}
	if o := run(nil, "users", "create", "ada@example.org", "--name", "Ada"); o.code != 0 {
		t.Fatalf("users create: %d\n%s", o.code, o.stderr)
	}
	run([]string{"MASTER_KEY=" + fresh + "," + old}, "keys", "master", "rotate").wantRefused(t, "master.key lacks the new key")
	if o := run(nil, "users", "show", "ada@example.org"); !strings.Contains(o.stdout, "Ada") {
		t.Fatalf("after it was refused: %d\n%s", o.code, o.stderr)
	}
	write(fresh + "\n" + old + "\n")
	if o := run(nil, "keys", "master", "rotate"); o.code != 0 {
		t.Fatalf("with both keys in the file: %d\n%s", o.code, o.stderr)
	}
	write(fresh)
	if o := run(nil, "users", "show", "ada@example.org"); !strings.Contains(o.stdout, "Ada") {
		t.Errorf("with the new key: %d\n%s", o.code, o.stderr)
	}
}

func TestMasterKeyCommandFails(t *testing.T) {
	t.Parallel()
	dsn, dir := migratedPostgres(t), t.TempDir()
	_, key := eventstore.NewMasterKey()
	env := []string{"DATABASE_URL=" + dsn}
	for setting, want := range map[string][]string{
		"MASTER_KEY_COMMAND=false":                        {"MASTER_KEY_COMMAND", "exit status 1"},
		"MASTER_KEY_COMMAND=no-such-program-of-anybody":   {"MASTER_KEY_COMMAND", "not found"},
		"MASTER_KEY_COMMAND=echo rather-not-a-key-at-all": {"MASTER_KEY_COMMAND", "32 bytes"},
		"MASTER_KEY_FILE=" + dir + "/none":                {"MASTER_KEY_FILE", "readable file"},
	} {
		usher(t, dir, append(env, setting), "users", "list").wantRefused(t, want...)
	}
	usher(t, dir, append(env, "MASTER_KEY="+key, "MASTER_KEY_COMMAND=echo "+key), "users", "list").wantRefused(t, "set one of them")
}
