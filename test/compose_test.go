package test

import (
	"fmt"
	"os"
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
	s := newInstallation(t)
	s.values["TRUSTED_PROXIES"] = "192.0.2.10/32"
	natsEnv := []string{}
	for name, value := range s.environment(services["nats"]) {
		natsEnv = append(natsEnv, name+"="+value)
	}
	s.servers(s.environment(services["postgres"])["POSTGRES_PASSWORD"], natsEnv, services["nats"].Command...)

	started := map[string]bool{"postgres": true, "nats": true}
	var start func(name string)
	start = func(name string) {
		if started[name] {
			return
		}
		started[name] = true
		c := services[name]
		for _, before := range sorted(c.DependsOn) {
			start(before)
		}
		env := s.environment(c)
		switch {
		case c.Build == nil && slices.Equal(c.Entrypoint, []string{"sh", "/roles/apply.sh"}):
			s.roles(env)
		case c.Build == nil:
			t.Fatalf("there is no way to run %s here", name)
		case name == "migrate":
			s.as(env)
			s.deployment.command(c.Command...)
		default:
			s.serve(env, c.Command...)
		}
	}
	for _, name := range sorted(services) {
		if c := services[name]; c.Build != nil && len(c.Profiles) == 0 {
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
