package test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"usher.example/eventstore"
	"usher.example/internal/devstack"
	"usher.example/schema"
)

// credentials are what somebody logs in with.
type credentials struct{ email, password string }

// deployment is a database, a broker and the processes that a test starts on them.
type deployment struct {
	t         *testing.T
	dir       string // where processes run, and the data of `usher dev`
	env       []string
	natsURL   string
	processes []*process
	admin     credentials

	mu      sync.Mutex
	secrets map[string]bool
	printed map[string]string // by operator commands
}

// newDeployment makes a deployment. When the test ends, so do the processes, none of them may have printed a secret, and
// every event in the log has to be as its schema says.
func newDeployment(t *testing.T, env ...string) *deployment {
	t.Helper()
	d := &deployment{t: t, dir: t.TempDir(), secrets: map[string]bool{}, printed: map[string]string{}}
	d.env = append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + d.dir, "LOG_FORMAT=json", "LOG_LEVEL=debug", "BCRYPT_ROUNDS=4",
	}, env...)
	t.Cleanup(func() {
		for _, p := range d.processes {
			p.kill()
		}
		d.checkSecrets()
		if !t.Failed() {
			d.checkEvents()
		}
		if t.Failed() {
			for _, p := range d.processes {
				t.Logf("%s:\n%s%s", p.name, lastLines(p.stdout.String()), lastLines(p.stderr.String()))
			}
		}
	})
	return d
}

func lastLines(text string) string {
	const most = 4000
	if len(text) > most {
		return "…" + text[len(text)-most:]
	}
	return text
}

// newServeDeployment makes a deployment on a Postgres database and a NATS server.
func newServeDeployment(t *testing.T, dsn, natsURL string) *deployment {
	t.Helper()
	_, master := eventstore.NewMasterKey()
	admin := credentials{"root@example.org", "the administrator's passphrase"}
	d := newDeployment(t, "DATABASE_URL="+dsn, "NATS_URL="+natsURL, "MASTER_KEY="+master,
		"RATE_LIMITS=off", // one client stands for many
		"ADMIN_EMAIL="+admin.email, "ADMIN_PASSWORD="+admin.password, "HTTP_ADDR=127.0.0.1:0", "METRICS_ADDR=127.0.0.1:0")
	d.natsURL, d.admin = natsURL, admin
	d.keepSecret(master)
	d.keepSecret(admin.password)
	return d
}

// database is the DSN of a migrated database on the shared server.
func database(t *testing.T) string {
	t.Helper()
	return devstack.Database(t, "usher", migrate)
}

func migrate(_ context.Context, dsn string) error {
	cmd := exec.Command(program, "migrate", "up")
	cmd.Env = append(os.Environ(), "DATABASE_URL="+dsn)
	if out, err := cmd.CombinedOutput(); err != nil {
		return errors.Join(err, errors.New(string(out)))
	}
	m, err := schema.Postgres(dsn)
	if err != nil {
		return err
	}
	return errors.Join(m.Check(context.Background()), m.Close())
}

// keepSecret notes what no process may print.
func (d *deployment) keepSecret(s string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.secrets[s] = true
}

// secretForms are the forms of hashes, tokens and private keys. The id of a key may look like the first part of a token.
var secretForms = regexp.MustCompile(`\$2[aby]\$|\$bcrypt|eyJ[A-Za-z0-9_-]{10,}\.|PRIVATE KEY`)

// checkSecrets fails the test if a process printed a secret.
func (d *deployment) checkSecrets() {
	if raw, err := os.ReadFile(filepath.Join(d.dir, "data", "master.key")); err == nil {
		d.keepSecret(strings.TrimSpace(string(raw)))
	}
	for _, p := range d.processes {
		// `usher dev` shows the administrator that it made, once: see takeAdmin.
		made := d.admin.email + "  " + d.admin.password
		d.printed[fmt.Sprintf("%s (process %d)", p.name, p.cmd.Process.Pid)] = strings.Replace(p.stdout.String(), made, "", 1) + p.stderr.String()
	}
	for name, text := range d.printed {
		for s := range d.secrets {
			if strings.Contains(text, s) {
				d.t.Errorf("%s printed the secret %q", name, s)
			}
		}
		if found := secretForms.FindString(text); found != "" {
			d.t.Errorf("%s printed what looks like a secret: %s…", name, found)
		}
	}
}

// devFlags put `usher dev` on the deployment's directory and on free ports.
var devFlags = []string{"--dir", "data", "--http", "127.0.0.1:0", "--nats", "127.0.0.1:0", "--metrics", "127.0.0.1:0"}

// addresses is what `usher dev` writes down.
type addresses struct {
	HTTP, NATS, Metrics string
	NATSUser            string `json:"nats_user"`
	NATSPassword        string `json:"nats_password"`
}

// startDev starts `usher dev` and waits until it is ready and has said so.
func (d *deployment) startDev() (*process, *client) {
	d.t.Helper()
	path := filepath.Join(d.dir, "data", "addresses.json")
	_ = os.Remove(path) // of an earlier start
	p := d.start(append([]string{"dev"}, devFlags...)...)
	var at addresses
	eventually(d.t, "usher dev is ready", func() error {
		p.alive(d.t)
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return json.Unmarshal(raw, &at)
	})
	d.natsURL = "nats://" + at.NATSUser + ":" + at.NATSPassword + "@" + at.NATS
	d.keepSecret(at.NATSPassword)
	eventually(d.t, "usher dev says that it is ready", func() error {
		if text := p.stdout.String(); !strings.Contains(text, "Ctrl-C stops it.\n") {
			return fmt.Errorf("it says\n%s", text)
		}
		return nil
	})
	c := d.client(at.HTTP)
	c.waitReady()
	return p, c
}

// startServe starts `usher serve` and waits until it is ready.
func (d *deployment) startServe(args ...string) (*process, *client) {
	d.t.Helper()
	p := d.start(append([]string{"serve"}, args...)...)
	http, _ := p.listening(d.t)
	c := d.client(http)
	c.waitReady()
	return p, c
}

// takeAdmin reads the administrator whom a first `usher dev` made.
func (d *deployment) takeAdmin(p *process) {
	d.t.Helper()
	line := regexp.MustCompile(`(admin@usher\.localhost)  ([a-z2-7-]{23})\n`)
	eventually(d.t, "the administrator is printed", func() error {
		found := line.FindStringSubmatch(p.stdout.String())
		if found == nil {
			return fmt.Errorf("it says\n%s", &p.stdout)
		}
		d.admin = credentials{found[1], found[2]}
		return nil
	})
	d.keepSecret(d.admin.password)
}

// command runs an operator command, which has to succeed, and answers with what it printed.
func (d *deployment) command(args ...string) string {
	d.t.Helper()
	out, stderr, err := d.try(args...)
	if err != nil {
		d.t.Fatalf("usher %s: %v\n%s", strings.Join(args, " "), err, stderr)
	}
	return out
}

func (d *deployment) try(args ...string) (stdout, stderr string, err error) {
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Env = d.dir, d.env
	if d.onSQLite() && args[0] != "dev" {
		cmd.Args = append(cmd.Args, "--dir", "data")
	}
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	err = cmd.Run()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.printed["usher "+strings.Join(args, " ")] += o.String() + e.String()
	return o.String(), e.String(), err
}

// onSQLite says whether the deployment is that of `usher dev`.
func (d *deployment) onSQLite() bool {
	return d.setting("DATABASE_URL") == ""
}

// caughtUp says whether relay and read models run and have reached a position, as the operator commands tell it.
func (d *deployment) caughtUp(position int64) error {
	d.t.Helper()
	var outbox struct {
		Head, Published int64
		State           string
	}
	var models []struct {
		Name, State, Error string
		Position           int64
	}
	outboxText, modelsText := d.command("outbox", "status", "--json"), d.command("projections", "list", "--json")
	if err := errors.Join(json.Unmarshal([]byte(outboxText), &outbox), json.Unmarshal([]byte(modelsText), &models)); err != nil {
		return err
	}
	if outbox.State != "running" || outbox.Published < position {
		return fmt.Errorf("outbox status: %s", outboxText)
	}
	for _, name := range []string{"activity", "sessions", "stats", "users"} {
		if len(models) == 0 || models[0].Name != name || models[0].State != "running" || models[0].Position < position {
			return fmt.Errorf("projections list, looking for %s: %s", name, modelsText)
		}
		models = models[1:]
	}
	return nil
}
