package test

import (
	"fmt"
	"strings"
	"testing"
)

// A read model is rebuilt and rolled back under load, by an operator command beside the servers. No registration is
// refused or lost, and whoever registers finds the user in the list at once, with the position of the answer.
func TestRebuildUnderLoad(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]func(t *testing.T) (*deployment, *process, *client){
		"serve": func(t *testing.T) (*deployment, *process, *client) {
			d, _ := newRunningServer(t)
			p, c := d.startServe("--with", "publisher,projections")
			return d, p, c
		},
		"dev": func(t *testing.T) (*deployment, *process, *client) {
			d := newDeployment(t, "RATE_LIMITS=off") // one client stands for many
			p, c := d.startDev()
			d.takeAdmin(p)
			return d, p, c
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, p, c := begin(t)
			d.t = t
			admin := c.login(t, d.admin)
			load := startLoad(c, "load", 8)
			load.await(t, 60*int64(*dose))
			for round := range 3 {
				out := d.command("projections", "rebuild", "users")
				if !strings.Contains(out, "is live at position") || !strings.Contains(out, "no differences") {
					t.Errorf("projections rebuild prints\n%s", out)
				}
				r := c.mustRegister(t, fmt.Sprintf("reader%d@example.org", round))
				if u := c.users(t, admin, r.position)[r.ID]; u.Email != r.Email {
					t.Errorf("after rebuild %d the list has %+v, want %+v", round, u, r.user)
				}
				load.await(t, 20*int64(*dose))
			}
			d.command("projections", "rollback", "users")
			load.await(t, 20*int64(*dose))
			registrations := load.end()
			if len(load.refused) > 0 || load.broken > 0 {
				t.Errorf("answers that were not 201: %v, not answered: %d", load.refused, load.broken)
			}
			log := d.history()
			wantRegistered(t, log, registrations)
			var rebuilt []string
			for _, e := range log {
				if strings.HasPrefix(e.Type, "projection.") {
					rebuilt = append(rebuilt, e.Type)
				}
			}
			if got := strings.Join(rebuilt, " "); got != "projection.rebuilt projection.rebuilt projection.rebuilt projection.rolled_back" {
				t.Errorf("recorded are %s", got)
			}
			d.wantPublished(log)
			d.wantReadModel(c, log)
			p.stop(t)
		})
	}
}
