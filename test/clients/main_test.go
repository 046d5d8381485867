// Package clients_test has clients of OpenID Connect that other people wrote log users in, as people do who use usher: with their
// defaults, against `usher dev` with its own.
package clients_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	email    = "ada@example.org"
	password = "the passphrase of an administrator"
)

var (
	issuer string // where the server is, as it names itself
	binary string
	folder string // of its data
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "usher-clients-")
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

// start builds usher and runs it for development, on ports that are free.
func start(dir string) (stop func(), err error) {
	binary, folder = filepath.Join(dir, "usher"), filepath.Join(dir, "data")
	if out, err := exec.Command("go", "build", "-C", "../..", "-o", binary, "./cmd/usher").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build usher: %w\n%s", err, out)
	}
	ctx, cancel := context.WithCancel(context.Background())
	output, err := os.Create(filepath.Join(dir, "output"))
	if err != nil {
		cancel()
		return nil, err
	}
	usher := exec.CommandContext(ctx, binary, "dev", "--dir", folder, "--http", "127.0.0.1:0", "--nats", "127.0.0.1:0", "--metrics", "127.0.0.1:0")
	usher.Dir, usher.Stdout, usher.Stderr, usher.Env = dir, output, output, environment()
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
		raw, err := os.ReadFile(filepath.Join(folder, "addresses.json"))
		if err == nil && json.Unmarshal(raw, &at) == nil && at.HTTP != "" {
			_, port, err := net.SplitHostPort(at.HTTP)
			issuer = "http://localhost:" + port
			return stop, err
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

func environment() []string {
	return []string{"HOME=" + filepath.Dir(folder), "PATH=" + os.Getenv("PATH"), "BCRYPT_ROUNDS=4", "ADMIN_EMAIL=" + email, "ADMIN_PASSWORD=" + password}
}

// registration is what a client gets that is added.
type registration struct {
	ID     string `json:"client_id"`
	Secret string `json:"client_secret"`
}

// add makes a client as operators do.
func add(t *testing.T, name string, flags ...string) (r registration) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), binary, append([]string{"clients", "add", name, "--json", "--dir", folder}, flags...)...)
	cmd.Env = environment()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("add %s: %v\n%s", name, err, out)
	}
	if err := json.Unmarshal(out, &r); err != nil || r.ID == "" {
		t.Fatalf("add %s: %v\n%s", name, err, out)
	}
	return r
}

// person is somebody with a browser that has scripts off.
type person struct {
	t      *testing.T
	client *http.Client
}

func newPerson(t *testing.T) person {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return person{t, &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// visit opens an address, logs in where that is asked for, and goes on until it is at an address that begins in a way, which it answers
// with. It does not open that.
func (p person) visit(address, until string) *url.URL {
	p.t.Helper()
	for range 10 {
		if strings.HasPrefix(address, until) {
			u, err := url.Parse(address)
			if err != nil {
				p.t.Fatal(err)
			}
			return u
		}
		r := p.do("GET", address, nil)
		next := r.Header.Get("Location")
		if next == "" {
			_, next, _ = strings.Cut(r.Header.Get("Refresh"), "url=")
		}
		if next == "" && r.Request.URL.Path == "/login" {
			next = p.do("POST", address, url.Values{"email": {email}, "password": {password}}).Header.Get("Location")
		}
		if next == "" {
			p.t.Fatalf("%s leads nowhere: %s", address, r.Status)
		}
		to, err := r.Request.URL.Parse(next)
		if err != nil {
			p.t.Fatal(err)
		}
		address = to.String()
	}
	p.t.Fatalf("%s is not come to", until)
	return nil
}

func (p person) do(method, address string, form url.Values) *http.Response {
	p.t.Helper()
	r, err := http.NewRequestWithContext(p.t.Context(), method, address, strings.NewReader(form.Encode()))
	if err != nil {
		p.t.Fatal(err)
	}
	r.Header.Set("Accept", "text/html")
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	answer, err := p.client.Do(r)
	if err != nil {
		p.t.Fatal(err)
	}
	answer.Body.Close()
	return answer
}
