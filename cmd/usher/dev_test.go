package main

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"usher.example/identity/password"
	"usher.example/internal/devstack"
)

func TestNewPasswordPassesTheStrictPolicy(t *testing.T) {
	t.Parallel()
	policy, err := password.NewPolicy(password.PolicyConfig{Type: "strict"})
	if err != nil {
		t.Fatal(err)
	}
	for range 2000 { // one in 60 would have no digit by chance
		made := newPassword()
		if err := policy.Check(password.Password(made), password.Subject{Email: devAdmin}); err != nil {
			t.Fatalf("%s: %v", made, err)
		}
	}
}

// What the banner says to run can be run.
func TestCalledAs(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for _, test := range []struct{ executable, arg, want string }{
		{"/tmp/go-build123456/b001/exe/usher", "/tmp/go-build123456/b001/exe/usher", "go run ./cmd/usher"},
		{"/home/ada/.cache/go-build/14/14" + strings.Repeat("0a", 31) + "-d/usher", "/home/ada/.cache/go-build/14/…-d/usher", "go run ./cmd/usher"},
		{"/src/usher/bin/usher", "bin/usher", "bin/usher"},
		{"/opt/usher", "usher", "/opt/usher"}, // PATH was another one when it was found
	} {
		if got := calledAs(test.executable, test.arg); got != test.want {
			t.Errorf("calledAs(%s, %s) = %s, want %s", test.executable, test.arg, got, test.want)
		}
	}
	installed := filepath.Join(t.TempDir(), "usher")
	if err := os.WriteFile(installed, nil, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", filepath.Dir(installed))
	if got := calledAs(installed, "usher"); got != "usher" {
		t.Errorf("one that is in PATH is called as %s", got)
	}
}

// An interrupt ends `make dev` without a word of failure, and what fails by itself is told.
func TestMakeDevEndsWell(t *testing.T) {
	t.Parallel()
	bin := t.TempDir()
	started := filepath.Join(bin, "started")
	for _, test := range []struct{ program, want string }{
		// What the go command does: it waits for the program, and then calls the interrupt a failure.
		{"trap 'exit 1' INT; echo > " + started + "; while :; do sleep 0.01; done", ""},
		{"exit 1", "Error 1"},
	} {
		if err := os.WriteFile(filepath.Join(bin, "go"), []byte("#!/bin/sh\n"+test.program+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("make", "-C", filepath.Join("..", ".."), "dev")
		cmd.Env = append(os.Environ(), "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"))
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a terminal interrupts the whole group
		var said bytes.Buffer
		cmd.Stdout, cmd.Stderr = &said, &said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if test.want == "" {
			devstack.Eventually(t, "started", func() bool { _, err := os.Stat(started); return err == nil })
			if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGINT); err != nil {
				t.Error(err)
			}
		}
		_ = cmd.Wait() // make itself ends by the interrupt
		if failed := strings.Contains(said.String(), "Error"); failed != (test.want != "") {
			t.Errorf("make dev says %q, want %q", &said, test.want)
		}
	}
}

// For programs too it says where it is, and whom it made.
func TestDevTellsPrograms(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd := exec.Command(testProgram(t), "dev", "--json", "--dir", dir, "--http", "127.0.0.1:0", "--nats", "127.0.0.1:0", "--metrics", "127.0.0.1:0")
	cmd.Env, cmd.Dir = []string{asUsher + "=1", "BCRYPT_ROUNDS=4"}, dir
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := devstack.Spawn(cmd); err != nil {
		t.Fatal(err)
	}
	var about running
	if err := json.NewDecoder(out).Decode(&about); err != nil {
		t.Fatalf("usher dev --json: %v", err)
	}
	if about.Version == "" || about.HTTP == "" || about.NATS == "" || about.Metrics == "" || about.Data != dir || about.Admin == nil || about.Admin.Email != devAdmin {
		t.Errorf("it tells %+v", about)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	for line := range strings.Lines(said.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("the log has the line %s", line)
		}
	}
}

// Links lead to where the API answers, on whatever port that is, unless PUBLIC_URL says otherwise.
func TestDevAnswersAtItsPort(t *testing.T) {
	t.Parallel()
	addr := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 4711}
	tag, _ := reflect.TypeFor[config]().FieldByName("PublicURL")
	if got := tag.Tag.Get("default"); got != defaultPublicURL {
		t.Errorf("the default of PUBLIC_URL is %q, and defaultPublicURL %q", got, defaultPublicURL)
	}
	for _, test := range []struct{ public, issuer, wantPublic, wantIssuer string }{
		{defaultPublicURL, defaultPublicURL, "http://localhost:4711", "http://localhost:4711"},
		{defaultPublicURL, "https://issuer.example.org", "http://localhost:4711", "https://issuer.example.org"},
		{"https://users.example.org", "https://users.example.org", "https://users.example.org", "https://users.example.org"},
	} {
		c := config{PublicURL: test.public, JWTIssuer: test.issuer, AccountURL: test.issuer}
		if c.answerAt(addr); c.PublicURL != test.wantPublic || c.JWTIssuer != test.wantIssuer || c.AccountURL != test.wantIssuer {
			t.Errorf("PUBLIC_URL %s and issuer %s become %s, %s and %s", test.public, test.issuer, c.PublicURL, c.JWTIssuer, c.AccountURL)
		}
	}
}

// Where PUBLIC_URL is not set, whoever starts usher for others than this machine is told.
func TestWrongPublicURL(t *testing.T) {
	t.Parallel()
	for addr, wrong := range map[string]bool{
		":8080": true, "0.0.0.0:8080": true, "[::]:8080": true, "192.0.2.1:8080": true, "users.internal:8080": true, "127.0.0.1:8081": true, "127.0.0.1:0": true,
		"127.0.0.1:8080": false, "localhost:8080": false, "[::1]:8080": false,
	} {
		c := config{HTTPAddr: addr, PublicURL: defaultPublicURL, sources: map[string]string{"PUBLIC_URL": fromDefault}}
		if got := c.wrongPublicURL(); (got != "") != wrong || wrong && !strings.Contains(got, "PUBLIC_URL is not set") {
			t.Errorf("at %s: %q", addr, got)
		}
		c.sources["PUBLIC_URL"] = fromEnvironment
		if got := c.wrongPublicURL(); got != "" {
			t.Errorf("at %s, set: %q", addr, got)
		}
	}
}
