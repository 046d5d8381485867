package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
)

// addService runs the command on a copy of deploy/nats/nats.conf.
func addService(t *testing.T, file string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs strings.Builder
	code = run(t.Context(), append([]string{"deploy", "nats", "add-service", "--file", file}, args...), &out, &errs)
	return out.String(), errs.String(), code
}

func TestAddService(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("..", "..", natsConf))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "nats.conf")
	if err := os.WriteFile(file, raw, 0o640); err != nil {
		t.Fatal(err)
	}
	if out, stderr, code := addService(t, file, "search"); code != exitDone || !strings.Contains(out, "NATS_SEARCH_PASSWORD") {
		t.Fatalf("add-service: exit code %d\n%s%s", code, out, stderr)
	}
	if out, stderr, code := addService(t, file, "mailing-list", "--workers", "2"); code != exitDone {
		t.Fatalf("add-service: exit code %d\n%s%s", code, out, stderr)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the file's mode is %v, %v", info.Mode(), err)
	}

	for args, says := range map[string]string{
		"search":              "there is a user search already",
		"billing":             "there is a user billing already",
		"mailing-list-0":      "another user has the durable consumer mailing-list-0",
		"relay":               "usher has a NATS user or a durable consumer relay",
		"projection-users":    "usher has a NATS user",
		"Search":              "NAME takes",
		"a.b":                 "NAME takes",
		"more --workers 1000": "--workers takes",
	} {
		before, _ := os.ReadFile(file)
		_, stderr, code := addService(t, file, strings.Fields(args)...)
		after, _ := os.ReadFile(file)
		if code == exitDone || !strings.Contains(stderr, says) || string(after) != string(before) {
			t.Errorf("add-service %s: exit code %d, %s", args, code, stderr)
		}
	}

	// The server reads the file, with the passwords of the environment.
	for _, user := range []string{"RELAY", "API", "WORKER", "USHER", "OPERATOR", "VERIFIER", "BILLING", "SEARCH", "MAILING_LIST"} {
		t.Setenv("NATS_"+user+"_PASSWORD", "of-"+user)
	}
	options, err := server.ProcessConfigFile(file)
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(options.Users, func(u *server.User) bool { return u.Username == "mailing-list" })
	if at < 0 {
		t.Fatal("there is no user mailing-list")
	}
	u := options.Users[at]
	if u.Password != "of-MAILING_LIST" || !slices.Contains(u.Permissions.Publish.Allow, "$JS.API.CONSUMER.MSG.NEXT.USHER.mailing-list-1") {
		t.Errorf("the user is %+v, which may publish %v", u, u.Permissions.Publish.Allow)
	}
	for _, s := range u.Permissions.Publish.Allow {
		if !strings.Contains(s, ".mailing-list-") {
			t.Errorf("the service may publish %s", s)
		}
	}
	at = slices.IndexFunc(options.Users, func(u *server.User) bool { return u.Username == "verifier" })
	for _, durable := range []string{"search", "mailing-list-0", "billing", "mail"} {
		if !slices.Contains(options.Users[at].Permissions.Publish.Deny, "$JS.API.CONSUMER.CREATE.USHER."+durable+".>") {
			t.Errorf("the verifier may change the durable consumer %s", durable)
		}
	}
	for _, name := range projectionNames() {
		if !slices.Contains(options.Users[at].Permissions.Publish.Deny, "$JS.API.CONSUMER.CREATE.USHER.projection-"+name+".>") {
			t.Errorf("the verifier may change the durable consumer of the projection %s", name)
		}
	}
}

func TestAddServiceToAnotherFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "nats.conf")
	if _, stderr, code := addService(t, file, "search"); code != exitFailed || !strings.Contains(stderr, "--file says where it is") {
		t.Errorf("without the file: exit code %d, %s", code, stderr)
	}
	if err := os.WriteFile(file, []byte("port: 4222\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := addService(t, file, "search"); code != exitFailed || !strings.Contains(stderr, "# services: users") {
		t.Errorf("with a file of another kind: exit code %d, %s", code, stderr)
	}
}
