package test

import (
	"slices"
	"strings"
	"testing"
)

// aspect is what of a deployment a difference is about.
type aspect int

const (
	line     aspect = iota // of .env, which the operator writes
	changed                // a setting of usher that the files give
	left                   // a setting of `usher serve` that the files leave to its default
	roles                  // a setting of apply.sh
	text                   // a part of any setting, argument or line of nats.conf
	argument               // what follows a flag of nats-server that the files give
	added                  // a flag of nats-server, which the files don't give
	image                  // of a container
	command                // by which the files call a program
	probe                  // of whether a process is well
)

// A difference is in what tests run a deployment otherwise than the files of deploy/ have it.
type difference struct {
	aspect aspect
	of     string // a name, or the text itself
	here   string // what it is here: {…} is a place that the installation knows. An image is not run where it is ""
	only   string // compose, kubernetes or systemd; each of them without it
	why    string
}

// differences are all there are: whatever is not among them is run as it stands.
var differences = []difference{
	{line, "ADMIN_EMAIL", "root@example.org", "", "the operator chooses it"},
	{line, "ADMIN_PASSWORD", "the administrator's passphrase", "", "the operator chooses it"},
	{line, "TRUSTED_PROXIES", "192.0.2.10/32", "compose", "the operator knows it; looked at is whether the API is given it"},
	{line, "SMTP_URL", "smtp://mail:1025", "kubernetes", "the operator knows it, and compose has a mail catcher"},
	{line, "SMTP_URL", "smtp://mail:1025", "systemd", "as on Kubernetes"},
	{line, "SMTP_TLS", "off", "kubernetes", "the mail catcher has no TLS"},
	{line, "SMTP_TLS", "off", "systemd", "as on Kubernetes"},

	{left, "HTTP_ADDR", "127.0.0.1:0", "", "processes of many tests share the ports of one machine"},
	{left, "METRICS_ADDR", "127.0.0.1:0", "systemd", "as HTTP_ADDR"},
	{changed, "METRICS_ADDR", "127.0.0.1:0", "compose", "each container has ports of its own"},
	{changed, "METRICS_ADDR", "127.0.0.1:0", "kubernetes", "each pod has ports of its own"},
	{changed, "NATS_REPLICAS", "1", "kubernetes", "one NATS server is started, not three"},
	{probe, "METRICS_ADDR", "{process}", "compose", "the process was given a free port"},
	{probe, "host and port", "{process}", "compose", "the server was given a free port"},
	{probe, "host and port", "{process}", "kubernetes", "the process was given a free port; which it would have is looked at"},

	{text, "@postgres:5432/", "@{postgres host}:{postgres port}/", "compose", "containers have names"},
	{text, "@postgres:5432/", "@{postgres host}:{postgres port}/", "kubernetes", "services have names"},
	{text, "@localhost:5432/", "@{postgres host}:{postgres port}/", "systemd", "servers of many tests share the ports of one machine"},
	{text, "@nats:4222", "@{nats}", "compose", "containers have names"},
	{text, "@nats:4222", "@{nats}", "kubernetes", "services have names"},
	{text, "@localhost:4222", "@{nats}", "systemd", "servers of many tests share the ports of one machine"},
	{text, "smtp://mail:1025", "{mail}", "", "containers have names"},
	{text, "/ledger/", "{dir}/ledger/", "compose", "containers have volumes"},
	{text, "/ledger/", "{dir}/ledger/", "kubernetes", "pods have volumes"},
	{text, "/var/lib/usher/", "{dir}/ledger/", "systemd", "StateDirectory= makes it"},

	{text, "/roles/", "../deploy/postgres/", "compose", "containers have volumes"},
	{text, "/etc/usher/", "{etc}/", "systemd", "it is the machine's"},
	{command, "/usher", "{program}", "compose", "there is no container engine"},
	{command, "/usr/local/bin/usher", "{program}", "systemd", "the program that the tests build is not installed"},

	{roles, "PGHOST", "{postgres host}", "", "containers have names, and elsewhere the operator knows it"},
	{roles, "PGPORT", "{postgres port}", "", "servers of many tests share the ports of one machine"},
	{roles, "PATH", "{postgres programs}:{path}", "", "psql is in the container"},

	{text, "store_dir: /data", "store_dir: {nats folder}", "", "containers have volumes"},
	{text, "/etc/nats/", "{nats folder}/", "", "containers have volumes"},
	{argument, "-m", "-1", "compose", "servers of many tests share the ports of one machine"},
	{added, "-a", "127.0.0.1", "", "nobody else has to reach it"},
	{added, "-p", "-1", "", "servers of many tests share the ports of one machine"},
	{added, "--ports_file_dir", "{nats folder}", "", "that is where it tells its ports"},

	{image, "usher", "usher", "compose", "there is no container engine: the program is run that the tests build"},
	{image, "postgres", "postgres", "compose", "the PostgreSQL of this machine; versions.sh runs others"},
	{image, "nats", "nats", "compose", "nats-server as go.mod has it, which is what compose.yaml's has to be"},
	{image, "axllent/mailpit", "mail", "compose", "a mail server of the tests, which keeps what it is handed"},
	{image, "prom/prometheus", "", "compose", "it only watches, and promtool checks its files"},
	{image, "grafana/grafana", "", "compose", "it only watches"},
}

// differing are the differences of an aspect that an installation has.
func (s *installation) differing(a aspect) (list []difference) {
	for _, d := range differences {
		if d.aspect == a && (d.only == "" || d.only == s.kind) {
			list = append(list, d)
		}
	}
	return list
}

// different is what a thing is here, if that differs.
func (s *installation) different(a aspect, of string) (here string, is bool) {
	for _, d := range s.differing(a) {
		if d.of == of {
			return s.met(d), true
		}
	}
	return "", false
}

// met notes that a difference made one, and answers with what is here.
func (s *installation) met(d difference) string {
	s.mets = append(s.mets, d)
	var places []string
	for place, is := range s.places {
		places = append(places, "{"+place+"}", is)
	}
	here := strings.NewReplacer(places...).Replace(d.here)
	if strings.Contains(here, "{") {
		s.t.Fatalf("%s is to be %s here, which is not known yet", d.of, here)
	}
	return here
}

// moved is a setting, an argument or a file as it is here.
func (s *installation) moved(value string) string {
	var pairs []string
	for _, d := range s.differing(text) {
		if strings.Contains(value, d.of) {
			pairs = append(pairs, d.of, s.met(d))
		}
	}
	return strings.NewReplacer(pairs...).Replace(value)
}

// allMet fails the test for a difference that made none: what it is about is no longer in the files.
func (s *installation) allMet(t *testing.T) {
	t.Helper()
	for _, d := range differences {
		if (d.only == "" || d.only == s.kind) && !slices.Contains(s.mets, d) {
			t.Errorf("%s has no %s, so it can't differ; take it out of the differences if that is right", s.kind, d.of)
		}
	}
}
