package test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"testing"

	"usher.example/internal/devstack"
)

const natsModule = "github.com/nats-io/nats-server/v2"

// natsServer is the nats-server binary, of the version that go.mod has.
var natsServer = sync.OnceValues(func() (string, error) {
	path := filepath.Join(filepath.Dir(program), "nats-server")
	if out, err := exec.Command("go", "build", "-o", path, natsModule).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build nats-server: %w\n%s", err, out)
	}
	return path, nil
})

// startNATS starts nats-server as deploy/ does, with the flags and the environment that are given it, until the test ends, and
// waits until it takes connections. It answers with its URL.
func (s *installation) startNATS(env []string, flags ...string) string {
	t := s.t
	t.Helper()
	server, err := natsServer()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s.places["nats folder"] = dir
	raw, err := os.ReadFile(filepath.Join("..", "deploy", "nats", "nats.conf"))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "nats.conf"), []byte(s.moved(string(raw))), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	var args []string
	for i, given := range flags {
		here := s.moved(given)
		if i > 0 {
			if other, is := s.different(argument, flags[i-1]); is {
				here = other
			}
		}
		args = append(args, here)
	}
	for _, d := range s.differing(added) {
		args = append(args, d.of, s.met(d))
	}
	cmd := exec.Command(server, args...)
	cmd.Env = env
	var log output
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := devstack.Spawn(cmd); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if t.Failed() {
			t.Logf("nats-server says:\n%s", &log)
		}
	})
	var ports struct{ NATS, Monitoring []string }
	eventually(t, "nats-server tells where it listens", func() error {
		select {
		case <-ended:
			t.Fatalf("nats-server ended:\n%s", &log)
		default:
		}
		raw, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("nats-server_%d.ports", cmd.Process.Pid)))
		if err != nil {
			return err
		}
		return json.Unmarshal(raw, &ports)
	})
	if len(ports.Monitoring) > 0 {
		s.monitors = ports.Monitoring[0]
	}
	return ports.NATS[0]
}

// natsImage is an image of NATS with its tag, in compose.yaml or a manifest.
var natsImage = regexp.MustCompile(`(?m)\bimage:\s*["']?nats(?::([^\s"',}]*))?`)

// Whatever runs nats-server in deploy/ runs the version that the tests run, or the newest patch of that minor version.
func TestNATSVersion(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile(filepath.Join("..", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^\s*` + regexp.QuoteMeta(natsModule) + ` v((\d+\.\d+)\.\d+)$`).FindSubmatch(raw)
	if found == nil {
		t.Fatal("go.mod has no version of nats-server that was released")
	}
	patch, minor := string(found[1]), string(found[2])
	files, err := filepath.Glob(filepath.Join("..", "deploy", "kubernetes", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	images := 0
	for _, file := range append(files, filepath.Join("..", "compose.yaml")) {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, image := range natsImage.FindAllStringSubmatch(string(raw), -1) {
			images++
			if tag := image[1]; !slices.Contains([]string{patch, patch + "-alpine", minor, minor + "-alpine"}, tag) {
				t.Errorf("%s runs NATS %q, and go.mod has %s", file, tag, patch)
			}
		}
	}
	if images == 0 {
		t.Error("nothing runs NATS, or it is not found here")
	}
}
