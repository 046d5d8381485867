package test

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"usher.example/identity/mail"
)

// composed is a service of compose.yaml.
type composed struct {
	Image       string
	Build       any
	Command     []string
	Entrypoint  []string
	Environment map[string]any
	DependsOn   map[string]struct{ Condition string } `yaml:"depends_on"`
	Profiles    []string
	Healthcheck struct{ Test []string }
}

// name is the name of the service's image, without its tag.
func (c composed) name() string {
	name, _, _ := strings.Cut(c.Image, ":")
	return name
}

// asks is the URL that the health check of a service asks by its command, inside its container.
func (c composed) asks() (found *url.URL, err error) {
	for _, argument := range c.Healthcheck.Test {
		u, err := url.Parse(argument)
		if err != nil || u.Scheme != "http" {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("the health check %q asks two URLs", c.Healthcheck.Test)
		}
		found = u
	}
	if found == nil || !slices.Contains([]string{"127.0.0.1", "localhost"}, found.Hostname()) {
		return nil, fmt.Errorf("the health check %q asks no URL of its own container", c.Healthcheck.Test)
	}
	return found, nil
}

// monitors is the port at which a service that is a nats-server is monitored.
func (c composed) monitors() (string, error) {
	i := slices.Index(c.Command, "-m")
	if i < 0 || i+1 == len(c.Command) {
		return "", fmt.Errorf("the command %q has no -m, so there is no port to monitor nats-server at", c.Command)
	}
	return c.Command[i+1], nil
}

// composeVariable is what compose fills in: ${NAME}, ${NAME:-else} and ${NAME:?why it is needed}.
var composeVariable = regexp.MustCompile(`\$\{(\w+)(?::([-?])([^${}]*))?\}`)

// filled is a text with the variables of .env filled in.
func (s *installation) filled(text string) string {
	return composeVariable.ReplaceAllStringFunc(text, func(of string) string {
		m := composeVariable.FindStringSubmatch(of)
		value := s.values[m[1]]
		switch {
		case value == "" && m[2] == "?":
			s.t.Errorf("compose.yaml needs %s, which deploy/secrets.sh does not make", m[1])
		case value == "" && m[2] == "-":
			return m[3]
		}
		return value
	})
}

func (s *installation) environment(c composed) map[string]string {
	env := map[string]string{}
	for name, value := range c.Environment {
		env[name] = s.filled(fmt.Sprint(value))
	}
	return env
}

// composition reads the services of compose.yaml.
func composition(t *testing.T) map[string]composed {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Services map[string]composed }
	if err := yaml.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	return file.Services
}

// The services of compose.yaml, run as processes with the commands, the environments and the users that it gives them, come up,
// and the operator's check is content.
func TestCompose(t *testing.T) {
	t.Parallel()
	services := composition(t)
	s := newInstallation(t, "compose")
	natsEnv := []string{}
	for name, value := range s.environment(services["nats"]) {
		natsEnv = append(natsEnv, name+"="+value)
	}
	port, err := services["nats"].monitors()
	if err != nil {
		t.Fatal(err)
	}
	health, err := services["nats"].asks()
	if err != nil {
		t.Fatal(err)
	}
	if health.Port() != port {
		t.Fatalf("the health check of nats asks %s, and nats-server is monitored at port %s", health, port)
	}
	database := s.environment(services["postgres"])
	s.servers(database["POSTGRES_DB"], database["POSTGRES_PASSWORD"], natsEnv, services["nats"].Command...)
	s.asked("nats", strings.TrimPrefix(s.monitors, "http://"), health)
	s.ran(services["postgres"].Healthcheck.Test, s.psqlEnv(nil))

	ends := map[string]bool{} // before others begin
	for _, c := range services {
		for name, of := range c.DependsOn {
			ends[name] = ends[name] || of.Condition == "service_completed_successfully"
		}
	}
	started := map[string]bool{"postgres": true, "nats": true}
	var start func(name string)
	start = func(name string) {
		if started[name] {
			return
		}
		started[name] = true
		c := services[name]
		for _, before := range sorted(c.DependsOn) {
			if services[before].Healthcheck.Test == nil && c.DependsOn[before].Condition == "service_healthy" {
				t.Errorf("%s waits until %s is healthy, which has no health check", name, before)
			}
			start(before)
		}
		env := s.environment(c)
		here, known := s.different(image, c.name())
		switch {
		case !known:
			t.Fatalf("there is no way to run %s here, whose image is %s", name, c.Image)
		case here == "usher" && ends[name]:
			s.as(env)
			s.deployment.command(c.Command...)
		case here == "usher":
			_, metrics := s.serve(env, c.Command...).listening(t)
			if c.Healthcheck.Test != nil {
				s.places["process"] = metrics
				at, _ := s.different(probe, "METRICS_ADDR")
				s.ran(c.Healthcheck.Test, append(s.env, "METRICS_ADDR="+at))
			}
		case here == "postgres" && len(c.Entrypoint) > 0: // its clients
			s.roles(env, c.Entrypoint...)
		case here != "" && here != "mail": // which was started
			t.Fatalf("there is no way to run %s here, with the entry point %q", name, c.Entrypoint)
		}
	}
	for _, name := range []string{"postgres", "nats"} {
		if _, known := s.different(image, services[name].name()); !known {
			t.Errorf("%s has the image %s, which is not what is run here", name, services[name].Image)
		}
	}
	for _, name := range sorted(services) {
		if len(services[name].Profiles) == 0 {
			start(name)
		}
	}
	if got := s.environment(services["api"])["TRUSTED_PROXIES"]; got != "192.0.2.10/32" {
		t.Errorf("the API is given TRUSTED_PROXIES=%q", got)
	}
	purge := services["purge"]
	s.as(s.environment(purge))
	s.command(purge.Command...)
	operator := services["operator"]
	s.works(s.environment(operator), operator.Command...)
	if out := s.command("projections", "rebuild", "users"); !strings.Contains(out, "rebuilt") {
		t.Errorf("usher projections rebuild as the operator:\n%s", out)
	}
}

// ran runs the command of a health check, as the container would, until it finds all well.
func (s *installation) ran(test, env []string) {
	s.t.Helper()
	if len(test) < 2 || test[0] != "CMD" {
		s.t.Fatalf("there is no way to run the health check %q here", test)
	}
	called, is := s.different(command, test[1])
	if !is {
		called = test[1]
	}
	eventually(s.t, strings.Join(test, " "), func() error {
		cmd := exec.Command("env", append([]string{called}, test[2:]...)...) // it looks where PATH of env says
		cmd.Dir, cmd.Env = s.dir, env
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
		return nil
	})
}

// Only the mail catcher goes without TLS: a mail server of the operator's own is spoken to as usher does by itself, unless the
// operator says otherwise.
func TestComposeMail(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile(filepath.Join("..", "compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Services map[string]composed }
	if err := yaml.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	const own = "smtp://user:password@mail.example.org:587"
	for _, c := range []struct {
		set           map[string]string
		url, security string
	}{
		{nil, "smtp://mail:1025?starttls=off", ""},
		{map[string]string{"SMTP_URL": own}, own, ""},
		{map[string]string{"SMTP_URL": own, "SMTP_TLS": "optional"}, own, "optional"},
	} {
		s := &installation{t: t, values: map[string]string{}}
		for _, name := range composeVariable.FindAllStringSubmatch(string(raw), -1) {
			s.values[name[1]] = c.set[name[1]]
			if name[2] == "?" {
				s.values[name[1]] = "secret"
			}
		}
		for _, name := range []string{"api", "operator"} {
			env := s.environment(file.Services[name])
			if env["SMTP_URL"] != c.url || env["SMTP_TLS"] != c.security {
				t.Errorf("%s with %v has SMTP_URL=%s SMTP_TLS=%s, want %s and %q", name, c.set, env["SMTP_URL"], env["SMTP_TLS"], c.url, c.security)
			}
			if _, err := mail.ParseServer(env["SMTP_URL"], env["SMTP_TLS"]); err != nil {
				t.Errorf("%s with %v: %v", name, c.set, err)
			}
		}
	}
}
