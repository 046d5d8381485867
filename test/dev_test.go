package test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestDev(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	first, c := d.startDev()
	d.takeAdmin(first)
	welcome := first.stdout.String()
	for _, try := range []string{"curl -s " + c.base + "/v1/auth/register", "/v1/auth/login",
		program + " events tail --dir data", "Ctrl-C"} {
		if !strings.Contains(welcome, try) {
			t.Errorf("usher dev does not say to try %q:\n%s", try, welcome)
		}
	}
	at := map[string]string{}
	raw, err := os.ReadFile(filepath.Join(d.dir, "data", "addresses.json"))
	if err != nil || json.Unmarshal(raw, &at) != nil || len(at) != 5 || at["http"] == "" || at["nats"] == "" || at["metrics"] == "" || at["nats_user"] == "" || at["nats_password"] == "" {
		t.Errorf("addresses.json is %s (%v), want the keys http, nats, nats_user, nats_password and metrics", raw, err)
	}
	if err := d.client(at["metrics"]).status(http.StatusOK, "/metrics"); err != nil {
		t.Error(err)
	}
	d.walkThrough(c)

	tail := d.start("events", "tail", "--json", "--dir", "data")
	linus := c.mustRegister(t, "linus@example.org")
	eventually(t, "events tail shows a registration", func() error {
		if text := tail.stdout.String(); !strings.Contains(text, linus.ID) {
			return fmt.Errorf("it shows\n%s%s", text, &tail.stderr)
		}
		return nil
	})
	tail.stop(t)

	begin := time.Now()
	first.stop(t)
	t.Logf("stopped %v after the interrupt", time.Since(begin).Round(time.Millisecond))
	log := d.history() // the commands work while nothing runs

	begin = time.Now()
	second, c := d.startDev()
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("the second start took %v", took)
	} else {
		t.Logf("ready %v after the second start", took.Round(time.Millisecond))
	}
	c.login(t, credentials{"ada@example.org", userPassword})
	if r := c.mustRegister(t, "grace@example.org"); r.position <= int64(len(log)) {
		t.Errorf("after the second start a registration is at %d, the log was at %d before", r.position, len(log))
	}
	after := d.history()
	for i, e := range log {
		if after[i] != e {
			t.Fatalf("position %d was %+v and is %+v after a restart", i+1, e, after[i])
		}
	}
	d.wantPublished(after)
	d.wantReadModel(c, after)
	second.stop(t)
	if strings.Contains(second.stdout.String(), "administrator") {
		t.Errorf("the second start made an administrator:\n%s", &second.stdout)
	}
}

// walkThrough is what the README shows: register, log in, see the event arrive, query the read model; and what
// operators look at meanwhile.
func (d *deployment) walkThrough(c *client) {
	t := d.t
	t.Helper()
	subscribers := d.subscribe()
	ada := c.mustRegister(t, "ada@example.org")
	subscribers.wantEvent(t, ada)

	token := c.login(t, credentials{"ada@example.org", userPassword})
	name, value := bearer(token)
	me := into[user](t, c.want(t, http.StatusOK, "GET", "/v1/me", nil, name, value))
	if me.ID != ada.ID || me.Email != "ada@example.org" {
		t.Errorf("GET /v1/me = %+v, want %+v", me, ada.user)
	}
	forbidden := c.want(t, http.StatusForbidden, "GET", "/v1/users", nil, name, value)
	wantProblem(t, forbidden, http.StatusForbidden, "forbidden")
	wrong := c.want(t, http.StatusUnauthorized, "POST", "/v1/auth/login", map[string]string{"email": ada.Email, "password": userPassword + "?"})
	wantProblem(t, wrong, http.StatusUnauthorized, "invalid_credentials")

	listed := c.users(t, c.login(t, d.admin), ada.position)
	if len(listed) != 2 || listed[ada.ID].Email != ada.Email {
		t.Errorf("GET /v1/users = %v, want the administrator and ada", listed)
	}

	var log []event
	eventually(t, "the login that failed is in the log, where it comes after the answer", func() error {
		if log = d.history(); !slices.ContainsFunc(log, func(e event) bool { return e.Type == "user.login_failed" }) {
			return fmt.Errorf("the log has %d events", len(log))
		}
		return nil
	})
	wantRegistered(t, log, []registration{ada})
	tail := parseEvents(t, d.command("events", "tail", "--no-follow", "--last", "2", "--json"))
	if len(tail) != 2 || tail[1].Position != int64(len(log)) {
		t.Errorf("events tail --last 2 = %+v, the log has %d", tail, len(log))
	}
	shown := parseEvents(t, d.command("events", "show", ada.ID, "--json"))
	if len(shown) != 1 || shown[0].Position != ada.position {
		t.Errorf("events show = %+v, want the one event at %d", shown, ada.position)
	}
	if text := d.command("users", "list"); !strings.Contains(text, ada.Email) || !strings.Contains(text, ada.ID) {
		t.Errorf("users list lacks ada:\n%s", text)
	}
	if text := d.command("users", "show", ada.ID); !strings.Contains(text, ada.Email) {
		t.Errorf("users show lacks ada:\n%s", text)
	}
	eventually(t, "outbox status and projections list say that all is well", func() error { return d.caughtUp(int64(len(log))) })
	d.wantPublished(log)
}

func TestDevTwice(t *testing.T) {
	t.Parallel()
	admin := credentials{"root@example.org", "the administrator's passphrase"}
	d := newDeployment(t, "ADMIN_EMAIL="+admin.email, "ADMIN_PASSWORD="+admin.password)
	d.keepSecret(admin.password) // which is known already: it is not printed
	first, c := d.startDev()
	_, stderr, err := d.try(append([]string{"dev"}, devFlags...)...)
	if err == nil || !strings.Contains(stderr, "usher: usher dev already runs in data; stop it, or take another --dir") {
		t.Errorf("a second usher dev in the directory: %v\n%s", err, stderr)
	}
	c.login(t, admin)
	first.stop(t)
}
