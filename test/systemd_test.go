package test

import (
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

// unitOf reads a unit of deploy/systemd, with its drop-ins, for an instance of it.
func (s *installation) unitOf(name, instance string) unit {
	t := s.t
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
	execStart, read := "", []string{}
	for _, file := range files {
		for _, line := range fileLines(t, file) {
			key, value, _ := strings.Cut(strings.ReplaceAll(line, "%i", instance), "=")
			switch key {
			case "ExecStart":
				execStart = value
			case "Environment":
				name, value, _ := strings.Cut(value, "=")
				u.env[name] = value
			case "EnvironmentFile":
				read = append(read, value)
			}
		}
	}
	for _, file := range read { // they win, the last most
		for _, line := range fileLines(t, s.moved(strings.TrimPrefix(file, "-"))) {
			name, value, _ := strings.Cut(line, "=")
			u.env[name] = value
		}
	}
	called, rest, _ := strings.Cut(execStart, " ")
	if here, is := s.different(command, called); !is || here != program {
		t.Errorf("%s runs %s", name, called)
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
	s := newInstallation(t, "systemd")
	s.servers("usher", s.values["POSTGRES_PASSWORD"], s.natsEnv(), natsFlags...)
	etc := filepath.Join(t.TempDir(), "usher")
	s.places["etc"] = etc
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

	s.rolesByHand()
	run := func(name string) {
		u := s.unitOf(name, "")
		s.as(u.env)
		s.command(u.args...)
	}
	run("usher-migrate")
	s.rolesByHand()
	for _, kind := range []string{"serve", "publish", "project", "webhooks"} {
		u := s.unitOf("usher@", kind)
		s.serve(u.env, u.args...)
	}
	run("usher-purge")
	u := s.unitOf("usher-check", "")
	s.works(u.env, u.args...)
}
