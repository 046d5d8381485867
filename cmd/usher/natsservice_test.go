package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"

	"usher.example/subscription"
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
	if out, stderr, code := addService(t, file, "gateway", "--verifier", "--places", "2"); code != exitDone || !strings.Contains(out, "with Places: 2") {
		t.Fatalf("add-service: exit code %d\n%s%s", code, out, stderr)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the file's mode is %v, %v", info.Mode(), err)
	}

	for args, says := range map[string]string{
		"search":              "there is a user search already",
		"billing":             "there is a user billing already",
		"mailing-list-0":      "another user has the consumer mailing-list-0",
		"relay":               "usher has a NATS user or a durable consumer relay",
		"projection-users":    "usher has a NATS user",
		"Search":              "NAME takes",
		"a.b":                 "NAME takes",
		"more --workers 1000": "--workers takes",
		"more --places 3":     "--places is of a service with --verifier",

		"more --verifier --places 0":         "--places takes",
		"more --verifier --workers 2":        "none of the others can be",
		"projection --verifier":              "usher has durable consumers that are called as projection-session-ended-0 is",
		"verifier-session-ended --workers 1": "another user has the consumer verifier-session-ended-0",
	} {
		before, _ := os.ReadFile(file)
		_, stderr, code := addService(t, file, strings.Fields(args)...)
		after, _ := os.ReadFile(file)
		if code == exitDone || !strings.Contains(stderr, says) || string(after) != string(before) {
			t.Errorf("add-service %s: exit code %d, %s", args, code, stderr)
		}
	}

	// The server reads the file, with the passwords of the environment.
	for _, user := range []string{"RELAY", "API", "WORKER", "USHER", "OPERATOR", "VERIFIER", "BILLING", "SEARCH", "MAILING_LIST", "GATEWAY"} {
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
	// Verifiers make the consumers that a feed of their user makes, and do nothing else; that of the file has as many places as a feed
	// supposes.
	for user, places := range map[string]int{"verifier": subscription.Places, "gateway": 2} {
		var want []string
		for name, filter := range subscription.RevocationConsumers(user, places) {
			const api = "$JS.API.CONSUMER."
			want = append(want, api+"CREATE.USHER."+name+"."+filter, api+"INFO.USHER."+name, api+"DELETE.USHER."+name, api+"MSG.NEXT.USHER."+name)
		}
		at := slices.IndexFunc(options.Users, func(u *server.User) bool { return u.Username == user })
		if at < 0 {
			t.Fatalf("there is no user %s", user)
		}
		may := options.Users[at].Permissions
		if diff := cmp.Diff(want, may.Publish.Allow); diff != "" || len(may.Publish.Deny) > 0 {
			t.Errorf("%s may publish (-want +got):\n%s", user, diff)
		}
		if diff := cmp.Diff([]string{"_INBOX." + user + ".>"}, may.Subscribe.Allow); diff != "" {
			t.Errorf("%s may subscribe to (-want +got):\n%s", user, diff)
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
