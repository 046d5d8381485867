package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What README says makes another module of the examples: they need nothing of usher that only usher may import, and do beside
// a running one what they say.
func TestExamplesInAnotherModule(t *testing.T) {
	t.Parallel()
	bin := buildExamples(t)
	d := newDeployment(t)
	dev, c := d.startDev()
	d.takeAdmin(dev)
	ada := c.mustRegister(t, "ada@example.org")

	verify := d.startProgram("verify", filepath.Join(bin, "verify"), []string{"HOME=" + d.dir}, "-issuer", strings.Replace(c.base, "127.0.0.1", "localhost", 1), "-nats", d.natsURL, "-listen", "127.0.0.1:0")
	service := d.client(listensAt(t, verify))
	token := c.login(t, credentials{"ada@example.org", userPassword})
	greeted := service.want(t, http.StatusOK, "GET", "/hello", nil, "Authorization", "Bearer "+token)
	if want := "hello " + ada.ID + ", administrator: false\n"; string(greeted.body) != want {
		t.Errorf("verify says %q, want %q", greeted.body, want)
	}
	service.want(t, http.StatusUnauthorized, "GET", "/hello", nil)
	service.want(t, http.StatusUnauthorized, "GET", "/hello", nil, "Authorization", "Bearer "+token+"x")
	c.want(t, http.StatusNoContent, "POST", "/v1/auth/logout", nil, "Authorization", "Bearer "+token)
	eventually(t, "verify refuses the token of a session that has ended", func() error {
		a, err := service.call("GET", "/hello", nil, "Authorization", "Bearer "+token)
		if err == nil && a.status != http.StatusUnauthorized {
			err = fmt.Errorf("status %d", a.status)
		}
		return err
	})
	verify.stop(t)

	for lacks, args := range map[string][]string{"copy: -client is missing": nil, "copy: USHER_CLIENT_SECRET is not set": {"-client", "x"}} {
		out, err := exec.Command(filepath.Join(bin, "copy"), args...).CombinedOutput()
		if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.HasPrefix(string(out), "copy: ") || !strings.Contains(string(out), lacks) {
			t.Errorf("copy %v: %v\n%s", args, err, out)
		}
	}
	file := filepath.Join(t.TempDir(), "users.json")
	var own struct {
		confidential
		Key string
	}
	const scopes = "events:read users:read"
	for _, args := range [][]string{{"add", "copy", "--scope", scopes}, {"key", "copy", "--scope", scopes}} {
		if err := json.Unmarshal([]byte(d.command(append(append([]string{"clients"}, args...), "--dir", "data", "--json")...)), &own); err != nil {
			t.Fatal(err)
		}
	}
	start := func(env string, args ...string) *process {
		return d.startProgram("copy", filepath.Join(bin, "copy"), []string{env}, append(args, "-usher", c.base, "-nats", d.natsURL, "-file", file)...)
	}
	startAsClient := func() *process { return start("USHER_CLIENT_SECRET="+own.Secret, "-client", own.ID) }
	wantCopy := func(p *process, want ...string) {
		t.Helper()
		eventually(t, "the copy has the users", func() error {
			p.alive(t)
			raw, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			var has struct {
				Users map[string]struct{ Email string }
			}
			if err := json.Unmarshal(raw, &has); err != nil {
				return err
			}
			var missing []string
			for _, email := range append(want, d.admin.email) {
				if !strings.Contains(string(raw), email) {
					missing = append(missing, email)
				}
			}
			if len(missing) > 0 || len(has.Users) != len(want)+1 {
				return fmt.Errorf("it lacks %v, and is\n%s", missing, raw)
			}
			return nil
		})
	}
	copying := startAsClient()
	wantCopy(copying, "ada@example.org")
	c.mustRegister(t, "bob@example.org")
	wantCopy(copying, "ada@example.org", "bob@example.org")
	copying.stop(t)
	c.mustRegister(t, "eve@example.org") // while it is stopped
	d.command("users", "erase", "ada@example.org", "--yes", "--dir", "data")
	copying = start("USHER_KEY=" + own.Key)
	wantCopy(copying, "bob@example.org", "eve@example.org")
	copying.stop(t)
	dev.stop(t)
}

// buildExamples builds the examples as a module elsewhere, which knows usher by a replace, with the modules that are here.
func buildExamples(t *testing.T) (bin string) {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := t.TempDir()
	if err := os.CopyFS(elsewhere, os.DirFS(filepath.Join(root, "examples"))); err != nil {
		t.Fatal(err)
	}
	sums, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(elsewhere, "go.sum"), sums, 0o600); err != nil {
		t.Fatal(err)
	}
	module := moduleOf(t, root)
	bin = filepath.Join(elsewhere, "bin")
	for _, args := range [][]string{
		{"mod", "init", "example.org/services"},
		{"mod", "edit", "-require", module + "@v0.0.0", "-replace", module + "=" + root},
		{"vet", "./..."},
		{"build", "-o", bin + "/", "./..."},
	} {
		cmd := exec.Command("go", args...)
		cmd.Dir, cmd.Env = elsewhere, append(os.Environ(), "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go %s, in another module: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	return bin
}

// moduleOf is the path of the module in a directory.
func moduleOf(t *testing.T, dir string) string {
	t.Helper()
	list := exec.Command("go", "list", "-m")
	list.Dir = dir
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// listensAt is where a program listens that logs it.
func listensAt(t *testing.T, p *process) (addr string) {
	t.Helper()
	line := regexp.MustCompile(`listening on (\S+)\n`)
	eventually(t, p.name+" listens", func() error {
		p.alive(t)
		found := line.FindStringSubmatch(p.stderr.String())
		if found == nil {
			return fmt.Errorf("it says\n%s", &p.stderr)
		}
		addr = found[1]
		return nil
	})
	return addr
}
