package test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/internal/devstack"
	"usher.example/subscription"
)

// failovers makes the tests of a database that gives way to its standby longer: -failovers 20.
var failovers = flag.Int("failovers", 1, "how often a database gives way to its standby, or loses its newest commits")

// follower is a service that keeps a copy of the events, and takes back what it is told did not happen.
type follower struct {
	copyOf
	restored int
}

// followEvents runs a follower until the test ends.
func (d *deployment) followEvents() *follower {
	f := &follower{}
	conn, err := nats.Connect(d.natsURL, nats.MaxReconnects(-1))
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		d.t.Fatal(err)
	}
	devstack.Background(d.t, func(ctx context.Context) error {
		for {
			s := subscription.Subscription{JetStream: js, Name: "billing", Checkpoint: f.checkpoint, Handle: f.handle}
			err := s.Run(ctx)
			var restored *subscription.RestoredError
			if !errors.As(err, &restored) {
				return err
			}
			f.mu.Lock()
			f.events = f.events[:restored.After]
			f.restored++
			f.mu.Unlock()
		}
	})
	return f
}

// ids are those of the copy.
func (f *follower) ids() []uuid.UUID {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.events)
}

// wantAgreement waits until log, stream, read models and a follower have the same, and fails the test if they do not.
func (d *deployment) wantAgreement(c *client, f *follower) []event {
	d.t.Helper()
	var log []event
	eventually(d.t, "the follower has what the log has", func() error {
		log = d.history()
		if err := d.caughtUp(int64(len(log))); err != nil {
			return err
		}
		ids := f.ids()
		if len(ids) != len(log) {
			return fmt.Errorf("it has %d events of %d", len(ids), len(log))
		}
		for i, e := range log {
			if ids[i].String() != e.ID {
				return fmt.Errorf("at %d it has %v, the log has %s", e.Position, ids[i], e.ID)
			}
		}
		return nil
	})
	d.wantPublished(log)
	d.wantReadModel(c, log)
	for _, model := range []string{"users", "sessions", "activity", "stats"} {
		out, stderr, err := d.try("projections", "rebuild", model)
		if err != nil || strings.Contains(out+stderr, "missing") || strings.Contains(out+stderr, "were not what the log amounts to") {
			d.t.Errorf("rebuild of %s: %v\n%s%s", model, err, out, stderr)
		}
	}
	return d.history()
}

// standbys starts standbys, and stops them when the test ends: after what is registered to be cleaned up later.
func standbys(t *testing.T) func(primary *devstack.Postgres, port int) *devstack.Postgres {
	var list []*devstack.Postgres
	t.Cleanup(func() {
		for _, s := range list {
			if err := s.Stop(); err != nil {
				t.Log(err)
			}
		}
	})
	return func(primary *devstack.Postgres, port int) *devstack.Postgres {
		t.Helper()
		s, err := primary.StartStandby(t.Context(), "standby", port)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, s)
		return s
	}
}

// A primary dies under load, and its standby is promoted at once. Where it had not got the newest events, which were published, the
// relay follows, and everybody ends up with what the log has.
func TestFailover(t *testing.T) {
	t.Parallel()
	for name, synchronous := range map[string]bool{"asynchronous": false, "synchronous": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			primary := devstack.OwnPostgres(t, devstack.PostgresOptions{Settings: map[string]string{"wal_level": "replica"}})
			if err := migrate(t.Context(), primary.DSN("postgres")); err != nil {
				t.Fatal(err)
			}
			start := standbys(t)
			standby := start(primary, 0)
			dsn := fmt.Sprintf("postgres://postgres@%s,%s/postgres?sslmode=disable&target_session_attrs=read-write", primary.Host(), standby.Host())
			d := newServeDeployment(t, dsn, devstack.NATSProcess(t, t.TempDir(), 0).URL())
			d.env = append(d.env, "OUTBOX_ON_RESTORE=follow")
			_, c := d.startServe("--with", "publisher,projections")
			f := d.followEvents()
			c.mustRegister(t, "first@example.org")
			var answered []registration
			for round := range *failovers {
				load := startLoad(c, fmt.Sprintf("round%d", round), 3)
				if synchronous {
					for name, value := range map[string]string{"synchronous_standby_names": "standby", "synchronous_commit": "remote_apply"} {
						if err := primary.Set(t.Context(), name, value); err != nil {
							t.Fatal(err)
						}
					}
				}
				load.await(t, 5+rand.Int64N(30))
				if !synchronous {
					if err := standby.Cut(t.Context()); err != nil {
						t.Fatal(err)
					}
					load.await(t, 3+rand.Int64N(10)) // which are lost
				}
				if err := errors.Join(primary.Kill(), standby.Promote(t.Context())); err != nil {
					t.Fatal(err)
				}
				load.await(t, 5+rand.Int64N(30))
				answered = append(answered, load.end()...)
				log := d.wantAgreement(c, f)
				if synchronous {
					wantRegistered(t, log, answered)
				}
				if round < *failovers-1 {
					primary, standby = standby, start(standby, primary.Port())
				}
			}
			if got := f.restored; !synchronous && got == 0 || synchronous && got > 0 {
				t.Errorf("the follower was told %d times that the log was restored", got)
			}
		})
	}
}

// A server that answers before its commits are on the disk is killed under load, and comes back without the newest of them, as the
// same server on the same timeline.
func TestNewestCommitsLost(t *testing.T) {
	t.Parallel()
	server := devstack.OwnPostgres(t, devstack.PostgresOptions{Settings: map[string]string{"synchronous_commit": "off", "wal_writer_delay": "10s"}})
	if err := migrate(t.Context(), server.DSN("postgres")); err != nil {
		t.Fatal(err)
	}
	d := newServeDeployment(t, server.DSN("postgres"), devstack.NATSProcess(t, t.TempDir(), 0).URL())
	d.env = append(d.env, "OUTBOX_ON_RESTORE=follow")
	_, c := d.startServe("--with", "publisher,projections")
	f := d.followEvents()
	c.mustRegister(t, "first@example.org")
	for round := range *failovers {
		if err := server.Set(t.Context(), "application_name", fmt.Sprint(round)); err != nil { // which is on the disk, with all before it
			t.Fatal(err)
		}
		load := startLoad(c, fmt.Sprintf("round%d", round), 3)
		load.await(t, 5+rand.Int64N(30))
		if err := server.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := server.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		load.await(t, 5+rand.Int64N(30))
		load.end()
		d.wantAgreement(c, f)
	}
}

// A relay that is not told to follow halts, and says so, within a moment; the reset mends it.
func TestFailoverHalts(t *testing.T) {
	t.Parallel()
	primary := devstack.OwnPostgres(t, devstack.PostgresOptions{})
	if err := migrate(t.Context(), primary.DSN("postgres")); err != nil {
		t.Fatal(err)
	}
	standby := standbys(t)(primary, 0)
	d := newServeDeployment(t, fmt.Sprintf("postgres://postgres@%s,%s/postgres?sslmode=disable&target_session_attrs=read-write", primary.Host(), standby.Host()),
		devstack.NATSProcess(t, t.TempDir(), 0).URL())
	_, c := d.startServe("--with", "publisher,projections")
	_, other := d.startServe()
	shop := d.addClient("shop")
	f := d.followEvents()
	if out := d.command("check", "--component", "database"); !strings.Contains(out, "none of the standbys is synchronous") {
		t.Errorf("usher check does not warn of a standby that is asynchronous:\n%s", out)
	}
	for name, value := range map[string]string{"synchronous_standby_names": "standby", "synchronous_commit": "remote_apply"} {
		if err := primary.Set(t.Context(), name, value); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "usher check warns no more", func() error {
		if out := d.command("check", "--component", "database"); strings.Contains(out, "replication") {
			return errors.New(out)
		}
		return nil
	})
	if err := primary.Set(t.Context(), "synchronous_standby_names", ""); err != nil {
		t.Fatal(err)
	}
	before := c.mustRegister(t, "before@example.org")
	who := credentials{"before@example.org", userPassword}
	kept := c.login(t, who)
	eventually(t, "it is published", func() error { return d.caughtUp(before.position) })
	if err := standby.Cut(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.mustRegister(t, "lost@example.org")
	void := []string{c.login(t, who), c.login(t, credentials{"lost@example.org", userPassword})}
	lost := int64(len(d.history()))
	apis := []*client{c, other}
	for _, api := range apis {
		for _, token := range append(void, kept) {
			name, value := bearer(token)
			api.want(t, http.StatusOK, "GET", "/v1/me", nil, name, value)
		}
	}
	eventually(t, "it is published too", func() error { return d.caughtUp(lost) })
	if err := errors.Join(primary.Kill(), standby.Promote(t.Context())); err != nil {
		t.Fatal(err)
	}
	load := startLoad(c, "after", 1)
	load.await(t, 5)
	load.end()
	eventually(t, "usher check says that the relay has halted", func() error {
		out, _, err := d.try("check", "--component", "outbox")
		if err == nil || !strings.Contains(out, "the relay has halted") {
			return fmt.Errorf("%v: %s", err, out)
		}
		return nil
	})
	for _, api := range apis {
		for _, token := range void {
			name, value := bearer(token)
			eventually(t, "the token of a login that the standby does not have is refused", func() error {
				a, err := api.call("GET", "/v1/me", nil, name, value)
				if err == nil && a.status != http.StatusUnauthorized {
					err = fmt.Errorf("%d %s", a.status, a.body)
				}
				return err
			})
			if status, body := shop.ask(t, api, "/oauth2/introspect", token); status != http.StatusOK || strings.TrimSpace(body) != `{"active":false}` {
				t.Errorf("introspect: %d %s", status, body)
			}
		}
		name, value := bearer(kept)
		api.want(t, http.StatusOK, "GET", "/v1/me", nil, name, value)
		if status, body := shop.ask(t, api, "/oauth2/introspect", kept); status != http.StatusOK || !strings.Contains(body, `"active":true`) {
			t.Errorf("introspect: %d %s", status, body)
		}
	}
	if n := len(f.ids()); int64(n) > lost {
		t.Errorf("the follower has %d events, the last %d of them after what did not happen", n, int64(n)-lost)
	}
	d.command("outbox", "reset", "--yes")
	d.wantAgreement(c, f)
}
