package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"usher.example/eventstore/sqlite"
	"usher.example/identity/password"
	"usher.example/internal/devstack"
)

func TestUsersImportAndExport(t *testing.T) {
	t.Parallel()
	dir := devDirectory(t)
	hash, err := password.New("a long passphrase", password.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	users := func(args ...string) outcome {
		t.Helper()
		return usher(t, dir, []string{"BCRYPT_ROUNDS=4"}, append([]string{"users", "--dir", dir}, args...)...)
	}
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	var lines strings.Builder
	for i := range 500 {
		fmt.Fprintf(&lines, `{"email":"user%d@example.org","name":"User %d","password_hash":%q,"email_verified":true,"roles":["writer"],"attributes":{"n":%d},"created_at":"2019-03-01T10:00:00Z"}`+"\n", i, i, string(hash), i)
	}
	bad := `{"email":"nobody"}` + "\n" + `{"email":"a@example.org","password_hash":"md5$5ecret"}` + "\n" + `{"email":"` + devAdmin + `"}` + "\n" + `{"mail":"x"}` + "\n"
	file := write("users.jsonl", lines.String()+bad)
	type summary struct {
		Imported int
		Updated  int
		Already  int `json:"already_imported"`
		Refused  int
	}
	imported := func(want summary, args ...string) outcome {
		t.Helper()
		o := users(append([]string{"import", "--json"}, args...)...)
		var got summary
		if err := json.Unmarshal([]byte(o.stdout), &got); err != nil || got != want || (o.code == exitDone) != (want.Refused == 0) {
			t.Errorf("import %v: exit code %d, %+v, %v, want %+v\n%s", args, o.code, got, err, want, o.stderr)
		}
		for _, secret := range []string{"5ecret", string(hash)} {
			if strings.Contains(o.stdout+o.stderr, secret) {
				t.Errorf("import %v tells a hash", args)
			}
		}
		return o
	}

	imported(summary{500, 0, 0, 4}, "--dry-run", file)
	o := imported(summary{500, 0, 0, 4}, file)
	for _, says := range []string{`{"line":501,"reason":"the address has no @"}`, `"line":502,"reason":"the password hash is of no scheme`, `"line":503,"reason":"the address is taken`,
		`"line":504,"reason":"there is no field \"mail\"`, `"detail":"4 lines were refused"`} {
		if !strings.Contains(o.stderr, says) {
			t.Errorf("stderr lacks %q:\n%s", says, o.stderr)
		}
	}
	report := filepath.Join(dir, "report.jsonl")
	imported(summary{0, 0, 500, 4}, "--report", report, file)
	raw, err := os.ReadFile(report)
	if err != nil || strings.Count(string(raw), "\n") != 4 || !strings.HasPrefix(string(raw), `{"line":501,"reason":"the address has no @"}`) {
		t.Errorf("report: %v\n%s", err, raw)
	}
	users("import", "--report", report, file).wantRefused(t, "report.jsonl is there already, and was left as it is; --force")
	if o := users("import", "--report", file, "--force", file); o.code != exitUse || !strings.Contains(o.stderr, "names the file that is imported") {
		t.Errorf("a report in the place of what is imported: exit code %d\n%s", o.code, o.stderr)
	}
	imported(summary{0, 0, 500, 4}, "--report", report, "--force", file)
	imported(summary{1, 0, 500, 0}, write("more.jsonl", lines.String()+`{"email":"last@example.org"}`))
	imported(summary{1, 0, 0, 1}, write("users.csv", "email,roles,password_hash\ncsv@example.org,admin writer,\""+string(hash)+"\"\nbroken,,\n"))
	// Of lines with one address the first counts, in every run, and a dry one says so too.
	var pairs strings.Builder
	for i := range 300 {
		fmt.Fprintf(&pairs, "pair%d@example.org,first,\"%s\"\nPAIR%d@example.org,second,\n", i, string(hash), i)
	}
	twice := write("twice.csv", "email,name,password_hash\n"+pairs.String())
	for _, args := range [][]string{{"--dry-run", twice}, {twice}} {
		if o := imported(summary{300, 0, 0, 300}, args...); !strings.Contains(o.stderr, `{"line":3,"reason":"the address is that of line 2, which counts"}`) {
			t.Errorf("of two lines with one address it says\n%.300s", o.stderr)
		}
	}
	if u := users("show", "pair7@example.org").wantDone(t).stdout; !strings.Contains(u, `"name": "first"`) {
		t.Errorf("the second line won:\n%s", u)
	}
	// What differs from an earlier import takes effect; the rest of a file with an open quote is read.
	changed := write("changed.csv", "email,name,status\npair1@example.org,first,locked\npair2@example.org,\"first,active\npair3@example.org,first,disabled\n")
	for _, args := range [][]string{{"--dry-run", changed}, {changed}} {
		if o := imported(summary{0, 2, 0, 1}, args...); !strings.Contains(o.stderr, `{"line":3,"last_line":4,"reason":"open quote"}`) {
			t.Errorf("of an open quote it says\n%s", o.stderr)
		}
	}
	if u := users("show", "pair1@example.org").wantDone(t).stdout; !strings.Contains(u, `"status": "locked"`) {
		t.Errorf("another status did not take effect:\n%s", u)
	}
	if o := users("import", changed); !strings.Contains(o.stderr, "lines 3 to 4: open quote\n") || !strings.Contains(o.stdout, "imported 0 users, updated 0; 2 were imported already\n") {
		t.Errorf("once more it says\n%s%s", o.stdout, o.stderr)
	}
	if text, _, err := usherWith(t, dir, "email\nstdin@example.org\n", "users", "import", "-", "--dir", dir); err != nil || text != "imported 1 user, updated 0; 0 were imported already\n" {
		t.Errorf("from standard input: %v\n%s", err, text)
	}

	if o := users("import", file); !strings.Contains(o.stderr, "line 501: the address has no @\n") || !strings.Contains(o.stdout, "imported 0 users, updated 0; 500 were imported already\n") {
		t.Errorf("without --json:\n%s%s", o.stdout, o.stderr)
	}
	users("import", filepath.Join(dir, "missing")).wantRefused(t, "no such file")
	users("import", write("wrong.csv", "mail\nx\n")).wantRefused(t, `there is no field "mail"`)
	if o := users("import", file, "--format", "xml"); o.code != exitUse {
		t.Errorf("--format xml: exit code %d", o.code)
	}

	// What the read model does not have yet is not left out silently; `usher dev` has to run for it to have it.
	users("export").wantRefused(t, "the read model is behind")
}

// What was exported from one deployment is imported into another, with the passwords.
func TestExportedUsersAreImportedElsewhere(t *testing.T) {
	t.Parallel()
	from, to := runningDev(t), devDirectory(t)
	registerAt(t, from, "ada@example.org")
	usher(t, from, nil, "users", "lock", "ada@example.org", "--dir", from).wantDone(t)
	for _, format := range []string{"jsonl", "csv"} {
		file := filepath.Join(from, "users."+format)
		out := usher(t, from, nil, "users", "export", "--dir", from, "--format", format).wantDone(t).stdout
		if !strings.Contains(out, "ada@example.org") || !strings.Contains(out, "locked") || strings.Contains(out, "$") {
			t.Errorf("exported without hashes:\n%s", out)
		}
		usher(t, from, nil, "users", "export", "--dir", from, "--format", format, "--with-hashes", "--output", file).wantDone(t)
		raw, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(raw), "$") {
			t.Fatalf("exported with hashes: %v\n%s", err, raw)
		}
		// A file that is there is not written over, unless that is wanted.
		usher(t, from, nil, "users", "export", "--dir", from, "--format", format, "--output", file).wantRefused(t, "is there already, and was left as it is; --force writes over it")
		if is, err := os.ReadFile(file); err != nil || string(is) != string(raw) {
			t.Errorf("a file that was there was changed: %v\n%s", err, is)
		}
		usher(t, from, nil, "users", "export", "--dir", from, "--format", format, "--with-hashes", "--output", file, "--force").wantDone(t)
		if is, err := os.ReadFile(file); err != nil || string(is) != string(raw) {
			t.Errorf("with --force it is: %v\n%s", err, is)
		}
		if o := usher(t, from, nil, "users", "export", "--dir", from, "--format", format, "--output", "/dev/stdout").wantDone(t); !strings.HasPrefix(o.stdout, out) {
			t.Errorf("to a pipe:\n%s", o.stdout)
		}
		o := usher(t, to, nil, "users", "import", file, "--dir", to)
		// Both deployments have an administrator of the same address.
		if o.code != exitFailed || !strings.Contains(o.stderr, "the address is taken") || strings.Contains(o.stderr, "$") {
			t.Errorf("import: exit code %d\n%s%s", o.code, o.stdout, o.stderr)
		}
	}
	shown := usher(t, to, nil, "users", "show", "ada@example.org", "--dir", to).wantDone(t).stdout
	if !strings.Contains(shown, `"status": "locked"`) || !strings.Contains(shown, `"version": 2`) {
		t.Errorf("imported:\n%s", shown)
	}
	all := usher(t, to, nil, "users", "show", "ada@example.org", "--everything", "--dir", to).wantDone(t).stdout
	var has struct {
		Import *struct{}
		Events []struct {
			Type     string
			Metadata struct{ Actor string }
		}
	}
	if err := json.Unmarshal([]byte(all), &has); err != nil || has.Import == nil || len(has.Events) != 2 || has.Events[0].Type != "user.imported" || strings.Contains(all, "$") {
		t.Errorf("everything: %v\n%s", err, all)
	}
	usher(t, to, nil, "users", "show", "nobody@example.org", "--everything", "--dir", to).wantRefused(t, "there is no such user")
	if o := usher(t, to, nil, "users", "show", "ada@example.org", "--everything", "--at", "1", "--dir", to); o.code != exitUse {
		t.Errorf("--everything --at: exit code %d\n%s", o.code, o.stderr)
	}
}

// An import that is killed is simply done again: nobody is missing, and nobody is there twice. The one that is killed is
// given a part of the file only, so that it can't have been done.
func TestImportThatWasKilled(t *testing.T) {
	t.Parallel()
	const lines, given = 3000, 2000
	dir := devDirectory(t)
	file := filepath.Join(dir, "users.csv")
	text := []string{"email\n"}
	for i := range lines {
		text = append(text, fmt.Sprintf("user%d@example.org\n", i))
	}
	if err := os.WriteFile(file, []byte(strings.Join(text, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := sqlite.Open(t.Context(), filepath.Join(dir, databaseFile))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	head := func() int64 {
		t.Helper()
		head, err := s.Head(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return head
	}
	before := head()
	cmd := exec.Command(testProgram(t), "users", "import", "-", "--format", "csv", "--dir", dir)
	cmd.Dir, cmd.Env = dir, []string{asUsher + "=1"}
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := devstack.Spawn(cmd); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.WriteString(input, strings.Join(text[:given+1], "")) }() // until it is killed
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for begin := time.Now(); head() <= before; <-tick.C {
		if time.Since(begin) > 2*time.Minute {
			t.Error("nothing is imported")
			break
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("the import was done before it was killed")
	}
	there := head()
	var got struct {
		Imported int64
		Already  int64 `json:"already_imported"`
	}
	if err := json.Unmarshal([]byte(usher(t, dir, nil, "users", "import", file, "--json", "--dir", dir).wantDone(t).stdout), &got); err != nil {
		t.Fatal(err)
	}
	if got.Imported+got.Already != lines || got.Imported < lines-given || got.Already != there-before || head() != there+got.Imported {
		t.Errorf("%+v, and %d events more, want %d users in all, %d of them there already", got, head()-there, lines, there-before)
	}
}
