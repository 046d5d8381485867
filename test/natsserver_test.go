package test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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
// waits until it says that it is healthy, by where deploy/ asks. It answers with its URL. What is another here than in a
// container is where it listens and where it stores.
func startNATS(t *testing.T, env []string, flags ...string) string {
	t.Helper()
	server, err := natsServer()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	raw, err := os.ReadFile(filepath.Join("..", "deploy", "nats", "nats.conf"))
	conf := strings.Replace(string(raw), "store_dir: /data\n", "store_dir: "+dir+"\n", 1)
	if err == nil && conf == string(raw) {
		t.Fatal("nats.conf does not store in /data, where compose.yaml has a volume")
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "nats.conf"), []byte(conf), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	args := []string{}
	for _, flag := range flags {
		args = append(args, strings.Replace(flag, "/etc/nats/", dir+"/", 1))
	}
	cmd := exec.Command(server, append(args, "-a", "127.0.0.1", "-p", "-1", "-m", "-1", "--ports_file_dir", dir)...)
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
	eventually(t, "nats-server is healthy", func() error {
		select {
		case <-ended:
			t.Fatalf("nats-server ended:\n%s", &log)
		default:
		}
		raw, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("nats-server_%d.ports", cmd.Process.Pid)))
		if err == nil {
			err = json.Unmarshal(raw, &ports)
		}
		if err != nil {
			return err
		}
		r, err := http.Get(ports.Monitoring[0] + "/healthz?js-enabled-only=true")
		if err != nil {
			return err
		}
		if err := r.Body.Close(); err != nil || r.StatusCode != http.StatusOK {
			return fmt.Errorf("%s, %v", r.Status, err)
		}
		return nil
	})
	return ports.NATS[0]
}

// compose.yaml runs the minor version of nats-server that the tests run.
func TestNATSVersion(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile(filepath.Join("..", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	image := strings.TrimSuffix(strings.TrimPrefix(composition(t)["nats"].Image, "nats:"), "-alpine")
	if !strings.Contains(string(raw), natsModule+" v"+image+".") {
		t.Errorf("compose.yaml runs NATS %s, and go.mod has another", image)
	}
}
