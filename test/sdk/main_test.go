// Package sdk_test makes clients of the API document, as people do who use usher, and has them call a server, whose access tokens other
// people's verifiers take. The clients are not kept: run.sh makes them anew.
package sdk_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

const (
	adminEmail    = "admin@example.org"
	adminPassword = "the passphrase of an administrator"
	userPassword  = "a long passphrase of nobody"
)

// base is where the server is.
var base string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "usher-sdk-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	stop, err := start(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer stop()
	return m.Run()
}

// start builds usher and runs it for development, on ports that are free, in a folder.
func start(dir string) (stop func(), err error) {
	binary := filepath.Join(dir, "usher")
	if out, err := exec.Command("go", "build", "-C", "../..", "-o", binary, "./cmd/usher").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build usher: %w\n%s", err, out)
	}
	ctx, cancel := context.WithCancel(context.Background())
	output, err := os.Create(filepath.Join(dir, "output"))
	if err != nil {
		cancel()
		return nil, err
	}
	data := filepath.Join(dir, "data")
	usher := exec.CommandContext(ctx, binary, "dev", "--dir", data, "--http", "127.0.0.1:0", "--nats", "127.0.0.1:0", "--metrics", "127.0.0.1:0")
	usher.Dir, usher.Stdout, usher.Stderr = dir, output, output
	usher.Env = []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH"), "BCRYPT_ROUNDS=4", "ADMIN_EMAIL=" + adminEmail, "ADMIN_PASSWORD=" + adminPassword}
	usher.Cancel = func() error { return usher.Process.Signal(os.Interrupt) }
	usher.WaitDelay = 30 * time.Second
	if err := usher.Start(); err != nil {
		cancel()
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- usher.Wait() }()
	stop = func() { cancel(); <-ended; output.Close() }
	deadline := time.After(2 * time.Minute)
	for {
		var at struct {
			HTTP string `json:"http"`
		}
		raw, err := os.ReadFile(filepath.Join(data, "addresses.json"))
		if err == nil && json.Unmarshal(raw, &at) == nil && at.HTTP != "" {
			base = "http://" + at.HTTP
			return stop, nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case err := <-ended:
			ended <- err
			said, _ := os.ReadFile(output.Name())
			return nil, fmt.Errorf("usher dev ended: %w\n%s", errors.Join(err, errors.New("before it was ready")), said)
		case <-deadline:
			stop()
			said, _ := os.ReadFile(output.Name())
			return nil, fmt.Errorf("usher dev is not ready after two minutes:\n%s", said)
		}
	}
}

// The clients and verifiers in TypeScript, which run.sh has put into SDK_PROGRAMS: each program ends with an error where a call is not
// answered as it should be, or a token not taken.
func TestTypeScript(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"openapi_typescript", "hey_api", "orval", "verifiers", "services"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			node := exec.CommandContext(t.Context(), "node", filepath.Join(os.Getenv("SDK_PROGRAMS"), name+".mjs"), base)
			node.Env = append(os.Environ(), "ADMIN_EMAIL="+adminEmail, "ADMIN_PASSWORD="+adminPassword)
			if out, err := node.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
