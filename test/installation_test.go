package test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/internal/devstack"
	"usher.example/internal/devstack/mailserver"
)

// installation is usher as the files of deploy/ set it up: their commands, their environments and their users, on a Postgres that asks for
// passwords and a nats-server that reads deploy/nats/nats.conf. What differs is what differences has.
type installation struct {
	*deployment
	t        *testing.T
	kind     string            // compose, kubernetes or systemd
	places   map[string]string // where things are here, of which differences speaks
	mets     []difference      // that made one
	values   map[string]string // that deploy/secrets.sh made
	file     string            // which they are in
	postgres *devstack.Postgres
	monitors string // the URL where nats-server is monitored, "" where its flags don't ask for that
	api      *client
	apiEnv   map[string]string
	mails    *mailserver.Server
}

// newInstallation makes the secrets, and writes what the operator would.
func newInstallation(t *testing.T, kind string) *installation {
	t.Helper()
	s := &installation{t: t, kind: kind, places: map[string]string{"path": os.Getenv("PATH"), "program": program}, values: map[string]string{}, file: filepath.Join(t.TempDir(), ".env")}
	s.secretsSh()
	for _, d := range s.differing(line) {
		s.write(d.of + "=" + s.met(d))
	}
	f, err := os.Open(s.file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%s has the mode %v, %v, want 0600", s.file, info.Mode(), err)
	}
	seen := map[string]string{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, value, is := strings.Cut(lines.Text(), "=")
		if !is || value == "" || strings.HasPrefix(name, "#") {
			continue
		}
		if other := seen[value]; other != "" {
			t.Errorf("%s and %s are the same secret", name, other)
		}
		seen[value] = name
		s.values[name] = value
	}
	return s
}

// write adds lines to the file of settings.
func (s *installation) write(lines ...string) {
	s.t.Helper()
	f, err := os.OpenFile(s.file, os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(strings.Join(lines, "\n") + "\n")
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// secretsSh runs deploy/secrets.sh and answers with what it prints.
func (s *installation) secretsSh(flags ...string) string {
	s.t.Helper()
	out, err := exec.Command(filepath.Join("..", "deploy", "secrets.sh"), append(flags, s.file)...).Output()
	if err != nil {
		s.t.Fatalf("deploy/secrets.sh: %v", err)
	}
	return string(out)
}

// servers starts Postgres, with a database and a superuser who has a password, and NATS, with the environment and the flags that it is
// to have.
func (s *installation) servers(database, password string, natsEnv []string, natsFlags ...string) {
	t := s.t
	t.Helper()
	s.postgres = devstack.OwnPostgres(t, devstack.PostgresOptions{})
	super, err := pgx.Connect(t.Context(), s.postgres.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer super.Close(context.WithoutCancel(t.Context())) //nolint:errcheck // nothing follows
	var rules string
	if err := super.QueryRow(t.Context(), "SHOW hba_file").Scan(&rules); err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{"CREATE DATABASE " + database, "ALTER ROLE postgres PASSWORD '" + password + "'"} {
		if _, err := super.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(rules, []byte("host all all 127.0.0.1/32 scram-sha-256\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := super.Exec(t.Context(), "SELECT pg_reload_conf()"); err != nil {
		t.Fatal(err)
	}
	s.places["postgres host"], s.places["postgres port"], s.places["postgres programs"] = "127.0.0.1", fmt.Sprint(super.Config().Port), s.postgres.Bin()
	broker := s.startNATS(natsEnv, natsFlags...)
	s.mails = mailserver.Start(t, mailserver.Options{})
	s.deployment = newDeployment(t) // whose last look at the database comes before that is stopped
	s.natsURL, s.admin = broker, credentials{s.values["ADMIN_EMAIL"], s.values["ADMIN_PASSWORD"]}
	for name, value := range s.values {
		if strings.Contains(name, "PASSWORD") || strings.HasSuffix(name, "KEY") {
			s.keepSecret(value)
		}
	}
	if err := os.Mkdir(filepath.Join(s.dir, "ledger"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.places["nats"], s.places["mail"], s.places["dir"] = strings.TrimPrefix(broker, "nats://"), s.mails.URL(), s.dir
}

// natsEnv is the environment of a NATS server that nats.conf is enough for: every password is in it.
func (s *installation) natsEnv() (env []string) {
	for name, value := range s.values {
		if strings.HasPrefix(name, "NATS_") {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// roles runs deploy/postgres/apply.sh, by a command, with an environment.
func (s *installation) roles(env map[string]string, command ...string) {
	s.t.Helper()
	for i, argument := range command {
		command[i] = s.moved(argument)
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = s.psqlEnv(env)
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("deploy/postgres/apply.sh: %v\n%s", err, out)
	}
}

// psqlEnv is an environment for what is a client of Postgres.
func (s *installation) psqlEnv(env map[string]string) (list []string) {
	for name, value := range env {
		list = append(list, name+"="+value)
	}
	for _, d := range s.differing(roles) { // these win
		list = append(list, d.of+"="+s.met(d))
	}
	return list
}

// rolesByHand is roles as an operator runs it.
func (s *installation) rolesByHand() {
	env := map[string]string{"PGUSER": "postgres", "PGPASSWORD": s.values["POSTGRES_PASSWORD"], "PGDATABASE": "usher"}
	for name, value := range s.values {
		if strings.HasPrefix(name, "POSTGRES_") {
			env[name] = value
		}
	}
	s.roles(env, "sh", filepath.Join("..", "deploy", "postgres", "apply.sh"))
}

// as has the processes that are started from here on use an environment, and nothing else.
func (s *installation) as(env map[string]string) {
	s.env = []string{}
	for name, value := range env {
		here, is := s.different(changed, name)
		if !is {
			here = s.moved(value)
		}
		s.env = append(s.env, name+"="+here)
	}
}

// natsFlags are those that a nats-server needs which deploy/ does not start itself.
var natsFlags = []string{"-c", "/etc/nats/nats.conf"}

// serve starts a process that goes on.
func (s *installation) serve(env map[string]string, args ...string) *process {
	s.t.Helper()
	s.as(env)
	if args[0] != "serve" {
		return s.start(args...)
	}
	for _, d := range s.differing(left) {
		if value, is := env[d.of]; is {
			s.t.Errorf("%s=%s is given, and no default", d.of, value)
		}
		s.env = append(s.env, d.of+"="+s.met(d))
	}
	p := s.start(args...)
	http, _ := p.listening(s.t)
	s.api, s.apiEnv = s.client(http), env
	s.api.waitReady()
	return p
}

// inForce is what a setting that does not differ is in an environment, which may leave it to its default.
func (s *installation) inForce(env map[string]string, name string) string {
	s.t.Helper()
	cmd := exec.Command(program, "config", "--json")
	s.as(env)
	cmd.Dir, cmd.Env = s.dir, s.env
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("usher config: %v\n%s", err, &said)
	}
	var settings map[string]struct{ Value any }
	if err := json.Unmarshal(out, &settings); err != nil {
		s.t.Fatal(err)
	}
	return fmt.Sprint(settings[name].Value)
}

// portOf is the port of an address.
func portOf(address string) string { return address[strings.LastIndexByte(address, ':')+1:] }

// asked waits until a URL is answered well, as whoever asks whether a process is well wants it. What is asked is its path and its query,
// at the address of the process.
func (s *installation) asked(name, address string, u *url.URL) {
	s.t.Helper()
	s.places["process"] = address
	at := *u
	at.Scheme = "http"
	at.Host, _ = s.different(probe, "host and port")
	eventually(s.t, fmt.Sprintf("%s is well by %s", name, u), func() error {
		r, err := http.Get(at.String())
		if err != nil {
			return err
		}
		if err := r.Body.Close(); err != nil || r.StatusCode != http.StatusOK {
			return fmt.Errorf("%s, %v", r.Status, err)
		}
		return nil
	})
}

// works registers somebody, waits until that has reached a service with its NATS user, and until the check is content, which is
// run with an environment.
func (s *installation) works(env map[string]string, args ...string) {
	t := s.t
	t.Helper()
	ada := s.api.mustRegister(t, "ada@example.org")

	as := func(user string) string {
		return strings.Replace(s.natsURL, "nats://", "nats://"+user+":"+s.values["NATS_"+strings.ToUpper(user)+"_PASSWORD"]+"@", 1)
	}
	_, js, _ := connectAs(t, as, "billing")
	var consumer jetstream.Consumer
	eventually(t, "the service has its durable consumer", func() (err error) {
		consumer, err = js.CreateConsumer(t.Context(), "USHER", jetstream.ConsumerConfig{Durable: "billing", AckPolicy: jetstream.AckExplicitPolicy, FilterSubject: "usher.v1.*.user.registered"})
		return err
	})
	eventually(t, "the registration reaches the service", func() error {
		m, err := consumer.Next(jetstream.FetchMaxWait(time.Second))
		if err != nil {
			return err
		}
		if err := m.DoubleAck(t.Context()); err != nil {
			return err
		}
		if meta, err := m.Metadata(); err != nil || meta.Sequence.Stream != uint64(ada.position) {
			return fmt.Errorf("it got %s, want position %d", m.Headers(), ada.position)
		}
		return nil
	})
	if _, err := nats.Connect(strings.Replace(as("relay"), s.values["NATS_RELAY_PASSWORD"], s.values["NATS_API_PASSWORD"], 1)); err == nil {
		t.Error("one user's password is good for another")
	}

	s.as(env)
	eventually(t, "usher "+strings.Join(args, " ")+" is content", func() error {
		out, stderr, err := s.try(args...)
		if err != nil {
			return fmt.Errorf("%w\n%s%s", err, out, stderr)
		}
		return nil
	})
	s.allMet(t)
	t.Cleanup(func() { s.as(s.apiEnv) }) // who may read all that is looked at in the end
	for _, p := range s.processes {
		p.alive(t)
		for line := range strings.Lines(p.stderr.String()) {
			if strings.Contains(line, "permission denied") || strings.Contains(strings.ToLower(line), "permissions violation") {
				t.Errorf("%s lacks a right: %s", p.name, line)
			}
		}
	}
}

// sorted are the keys of a map, in order.
func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
