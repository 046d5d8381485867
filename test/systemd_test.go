package test

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// unit is as much of a unit as a process is made of.
type unit struct {
	args []string
	env  map[string]string
}

// unitOf reads a unit of deploy/systemd, with its drop-ins, for an instance of it; etc is where /etc/usher is.
func unitOf(t *testing.T, name, instance, etc string) unit {
	t.Helper()
	folder := filepath.Join("..", "deploy", "systemd")
	files := []string{filepath.Join(folder, name+".service")}
	if instance != "" {
		dropIns, err := filepath.Glob(filepath.Join(folder, name+instance+".service.d", "*.conf"))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, dropIns...)
	}
	u := unit{env: map[string]string{}}
	command, read := "", []string{}
	for _, file := range files {
		for _, line := range fileLines(t, file) {
			key, value, _ := strings.Cut(strings.ReplaceAll(line, "%i", instance), "=")
			switch key {
			case "ExecStart":
				command = value
			case "Environment":
				name, value, _ := strings.Cut(value, "=")
				u.env[name] = value
			case "EnvironmentFile":
				read = append(read, value)
			}
		}
	}
	for _, file := range read { // they win, the last most
		path := filepath.Join(etc, strings.TrimPrefix(strings.TrimPrefix(file, "-"), "/etc/usher/"))
		for _, line := range fileLines(t, path) {
			name, value, _ := strings.Cut(line, "=")
			u.env[name] = value
		}
	}
	program, rest, _ := strings.Cut(command, " ")
	if program != "/usr/local/bin/usher" {
		t.Errorf("%s runs %s", name, program)
	}
	u.args = strings.Fields(strings.ReplaceAll(rest, "$USHER_ARGS", u.env["USHER_ARGS"]))
	return u
}

func fileLines(t *testing.T, path string) (lines []string) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "[") {
			lines = append(lines, line)
		}
	}
	return lines
}

// The units of deploy/systemd, run as processes with their commands and the environments of their files, come up, and the check is
// content.
func TestSystemd(t *testing.T) {
	t.Parallel()
	s := newInstallation(t)
	s.servers(s.values["POSTGRES_PASSWORD"], s.natsEnv(), natsFlags...)
	etc := filepath.Join(t.TempDir(), "usher")
	s.secretsSh("--systemd", etc)
	files, err := os.ReadDir(etc)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if info, err := f.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has the mode %v, %v, want 0600", f.Name(), info.Mode(), err)
		}
	}
	admin := map[string]string{"ADMIN_EMAIL": s.admin.email, "ADMIN_PASSWORD": s.admin.password}

	s.rolesByHand()
	run := func(name string) {
		u := unitOf(t, name, "", etc)
		s.as(u.env)
		s.command(u.args...)
	}
	run("usher-migrate")
	s.rolesByHand()
	for _, kind := range []string{"serve", "publish", "project", "webhooks"} {
		u := unitOf(t, "usher@", kind, etc)
		maps.Copy(u.env, admin)
		s.serve(u.env, u.args...)
	}
	run("usher-purge")
	u := unitOf(t, "usher-check", "", etc)
	s.works(u.env, u.args...)
}
