package test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// purgeable are deployments with everything in one process.
var purgeable = map[string]func(t *testing.T) (*deployment, *process, *client){
	"postgres": func(t *testing.T) (*deployment, *process, *client) {
		d, _ := newRunningServer(t)
		d.env = append(d.env, "WEBHOOK_ALLOW=127.0.0.0/8", "OUTBOX_WEBHOOK_MAX_RETRIES=0")
		p, c := d.startServe("--with", "publisher,projections,webhooks")
		return d, p, c
	},
	"sqlite": func(t *testing.T) (*deployment, *process, *client) {
		d := newDeployment(t, "OUTBOX_WEBHOOK_MAX_RETRIES=0")
		p, c := d.startDev()
		d.takeAdmin(p)
		return d, p, c
	},
}

// `usher purge` removes what has become old beside the service, and nothing else.
func TestPurge(t *testing.T) {
	t.Parallel()
	for name, begin := range purgeable {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, p, c := begin(t)
			e := newEndpoint(t)
			hook := d.addWebhook(e, "--events", "user.registered")
			c.mustRegister(t, "ada@example.org")
			e.taken(t, 1)
			e.set(hook.Secret, http.StatusInternalServerError)
			c.mustRegister(t, "grace@example.org")
			statuses := func() (list []string) {
				t.Helper()
				var deliveries []struct{ Status string }
				if err := json.Unmarshal([]byte(d.command("webhooks", "deliveries", hook.ID, "--json")), &deliveries); err != nil {
					t.Fatal(err)
				}
				for _, delivery := range deliveries {
					list = append(list, delivery.Status)
				}
				return list
			}
			wantStatuses := func(want ...string) {
				t.Helper()
				eventually(t, fmt.Sprintf("the deliveries are %q", want), func() error {
					if diff := cmp.Diff(want, statuses()); diff != "" {
						return fmt.Errorf("(-want +got):\n%s", diff)
					}
					return nil
				})
			}
			wantStatuses("dead", "delivered")
			d.command("projections", "rebuild", "users")

			type purged struct {
				Delivered   int  `json:"delivered"`
				Dead        int  `json:"dead_letters"`
				Generations int  `json:"generations"`
				DryRun      bool `json:"dry_run"`
			}
			wantPurged := func(want purged, args ...string) {
				t.Helper()
				var got purged
				if err := json.Unmarshal([]byte(d.command(append([]string{"purge", "--json", "--yes"}, args...)...)), &got); err != nil {
					t.Fatal(err)
				}
				if got != want {
					t.Errorf("usher purge %q = %+v, want %+v", args, got, want)
				}
			}
			wantPurged(purged{}, "--older-than", "1h")
			d.age(t, 40*24*time.Hour)
			c.mustRegister(t, "linus@example.org")
			wantStatuses("dead", "dead", "delivered")
			wantPurged(purged{}, "--older-than", "41d")
			wantPurged(purged{Delivered: 1, Dead: 1, Generations: 1, DryRun: true}, "--dry-run")
			if out := d.command("purge", "--yes"); !strings.HasPrefix(out, "removed what is older than ") || !strings.Contains(out, "1 dead letter, 1 generation of") {
				t.Errorf("usher purge prints %q", out)
			}
			wantStatuses("dead")
			if out := d.command("projections", "list", "--json"); strings.Contains(out, "standby") {
				t.Errorf("the standby is still there:\n%s", out)
			}
			if _, stderr, err := d.try("purge", "--older-than", "30m"); err == nil || !strings.Contains(stderr, "days or hours") {
				t.Errorf("--older-than 30m: %v, %s", err, stderr)
			}

			e.set(hook.Secret, http.StatusOK)
			d.command("webhooks", "redrive", hook.ID)
			e.taken(t, 2)
			wantStatuses("delivered")
			p.alive(t)
			p.stop(t)
		})
	}
}

// age puts what has ended back in time.
func (d *deployment) age(t *testing.T, by time.Duration) {
	t.Helper()
	store, _, err := d.openStore(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	for _, statement := range []string{
		"UPDATE webhook_deliveries SET finished_at = $1 WHERE finished_at IS NOT NULL",
		"UPDATE projection_generations SET since = $1 WHERE role = 'standby'",
	} {
		if _, err := store.Exec(t.Context(), statement, time.Now().UTC().Add(-by)); err != nil {
			t.Fatal(err)
		}
	}
}
