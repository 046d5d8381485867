package test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/internal/devstack"
)

// dose makes the tests longer that kill processes over and over, and that erase many users: -dose 10 does ten times as much.
var dose = flag.Int("dose", 1, "how long the tests of scaling out, crashes and erasure take, in multiples of the default")

// fleet is a deployment of two processes of each kind on three NATS servers.
type fleet struct {
	*deployment
	*frontend
	random    *rand.Rand
	kinds     []*kind
	brokers   []*devstack.NATSChild
	broker    int // that was killed last
	adminWith string
}

// kind is a kind of processes, of which each can do what the other does.
type kind struct {
	args    []string
	members [2]*process
	down    int // member that was killed last
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{
		frontend: &frontend{t: t, took: map[string][]time.Duration{}},
		brokers:  devstack.NATSProcesses(t, 3),
		kinds: []*kind{
			{args: []string{"serve"}}, {args: []string{"publish", "--continuous"}}, {args: []string{"project"}}, {args: []string{"webhooks", "run"}},
		},
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	f.random = rand.New(rand.NewPCG(seed, 0))
	var urls []string
	for _, b := range f.brokers {
		urls = append(urls, b.URL())
	}
	f.deployment = newServeDeployment(t, database(t), strings.Join(urls, ","))
	f.env = append(f.env, "NATS_REPLICAS=3", "WEBHOOK_ALLOW=127.0.0.0/8", "OUTBOX_WEBHOOK_MAX_RETRIES=100", "OUTBOX_RETRY_DELAY_SECONDS=1",
		// Between a refresh and its repetition nothing may count but their number.
		"JWT_REFRESH_REUSE_GRACE_SECONDS=300")
	for _, k := range f.kinds {
		for i := range k.members {
			f.run(k, i)
			f.ready(k, i)
		}
	}
	f.adminWith = f.apis[0].Load().login(t, f.admin)
	return f
}

// run starts a member of a kind.
func (f *fleet) run(k *kind, i int) { k.members[i] = f.start(k.args...) }

// ready waits until a member does its work, and sends it requests if it answers any.
func (f *fleet) ready(k *kind, i int) {
	addr, metrics := k.members[i].listening(f.deployment.t)
	if addr == "" { // it has no API
		addr = metrics
	}
	c := f.client(addr)
	c.waitReady()
	if k.args[0] == "serve" {
		f.apis[i].Store(c)
	}
}

// killOne kills one of the members of a kind.
func (f *fleet) killOne(k *kind) {
	k.down = f.random.IntN(len(k.members))
	k.members[k.down].kill()
}

// killBroker kills one of the NATS servers.
func (f *fleet) killBroker() {
	f.broker = f.random.IntN(len(f.brokers))
	f.brokers[f.broker].Kill()
}

// revive starts what was killed, and waits until it could stand in for the others.
func (f *fleet) revive() {
	t := f.deployment.t
	t.Helper()
	if err := f.brokers[f.broker].Restart(); err != nil {
		t.Fatal(err)
	}
	for _, i := range f.random.Perm(len(f.kinds)) {
		f.run(f.kinds[i], f.kinds[i].down)
	}
	for _, k := range f.kinds {
		f.ready(k, k.down)
	}
	f.wantReplicas()
}

// wantReplicas waits until every NATS server has what the JetStream stream has.
func (f *fleet) wantReplicas() {
	t := f.deployment.t
	t.Helper()
	js, err := jetstream.New(f.connect())
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the stream is on every server", func() error {
		stream, err := js.Stream(t.Context(), "USHER")
		if err != nil {
			return err
		}
		info := stream.CachedInfo()
		if info.Cluster == nil || info.Cluster.Leader == "" || len(info.Cluster.Replicas) != len(f.brokers)-1 {
			return fmt.Errorf("the cluster of the stream is %+v", info.Cluster)
		}
		for _, peer := range info.Cluster.Replicas {
			if !peer.Current || peer.Offline {
				return fmt.Errorf("%s is behind", peer.Name)
			}
		}
		return nil
	})
}

// follow waits until the relay and every read model have what the log has now.
func (f *fleet) follow() {
	t := f.deployment.t
	t.Helper()
	name, value := bearer(f.adminWith)
	read := func(path string, v any) error {
		a, err := f.ask(request{kind: "operators", method: "GET", path: path, headers: []string{name, value}, want: []int{http.StatusOK}})
		if err != nil {
			return err
		}
		return json.Unmarshal(a.body, v)
	}
	var outbox struct{ Head, Published int64 }
	if err := read("/v1/outbox", &outbox); err != nil {
		t.Fatal(err)
	}
	head := outbox.Head
	eventually(t, fmt.Sprintf("relay and read models have position %d", head), func() error {
		var models struct {
			Items []struct {
				Name, State string
				Position    int64
			}
		}
		if err := errors.Join(read("/v1/outbox", &outbox), read("/v1/projections", &models)); err != nil {
			return err
		}
		if outbox.Published < head {
			return fmt.Errorf("%d is published", outbox.Published)
		}
		for _, m := range models.Items {
			if m.Position < head {
				return fmt.Errorf("%s is %s at %d", m.Name, m.State, m.Position)
			}
		}
		return nil
	})
}

// Two processes of each kind and three NATS servers; one of each is killed, round after round, while people use them.
// Nothing that was acknowledged is lost, nothing is there twice, everybody hears of everything in order, and whoever comes
// back is answered.
func TestScaledOut(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	e := newEndpoint(t)
	e.refuse = func(position int64, attempt int) bool { return position%29 == 0 && attempt == 1 }
	hook := f.addWebhook(e, "--from", "1")
	f.wantReplicas()
	f.enter("start")
	f.follow()

	f.enter("before")
	callers := startCallers(f.frontend, 6)
	callers.await(60)
	f.enter("during")
	for range *dose {
		for _, i := range f.random.Perm(len(f.kinds) + 1) {
			if i == len(f.kinds) {
				f.killBroker()
			} else {
				f.killOne(f.kinds[i])
			}
			callers.await(20)
		}
		f.follow() // those that are left do it
		f.revive()
		callers.await(20)
	}
	f.enter("after")
	callers.await(60)
	writes := callers.end()
	f.enter("checks")
	f.follow()

	log := f.history()
	wantWritten(t, log, writes, callers.uncertain)
	e.wantAll(t, log)
	if dead := f.command("webhooks", "deliveries", hook.ID, "--status", "dead", "--json"); strings.TrimSpace(dead) != "[]" {
		t.Errorf("dead letters: %s", dead)
	}
	f.wantUsers(log)
	// A read model that is made of the log once more is compared with the one that was made meanwhile.
	for _, name := range []string{"users", "sessions", "activity", "stats"} {
		if out := f.command("projections", "rebuild", name); !strings.Contains(out, "no differences") {
			t.Errorf("%s is not what the log says:\n%s", name, out)
		}
	}
	f.follow()
	f.command("events", "verify")

	for _, phase := range []string{"before", "during", "after"} {
		for _, kind := range []string{ofAccounts, ofReadModels} {
			t.Logf("%-11s %-6s %s", kind, phase, f.figures(phase, kind))
		}
	}
	t.Logf("%d writes were acknowledged, and %d logins may have been; the log has %d events; %d requests were not answered, %d were told to come back",
		len(writes), callers.uncertain, len(log), f.broken, f.busy)
	for _, k := range f.kinds {
		for _, p := range k.members {
			p.alive(t)
			p.stop(t)
		}
	}
}

// wantWritten fails unless everything that was acknowledged is in the log once, where it was said to be, and nothing else
// is but sessions of logins whose answer was lost.
func wantWritten(t *testing.T, log []event, writes []write, uncertain int) {
	t.Helper()
	type key struct{ event, stream string }
	want, got := map[key]int{}, map[key]int{}
	known := map[string]bool{} // sessions
	for _, w := range writes {
		want[key{w.event, w.stream}]++
		if w.event == "session.started" {
			known[w.stream] = true
		}
		if w.position == 0 {
			continue
		}
		if w.position > int64(len(log)) {
			t.Errorf("%s of %s was acknowledged at %d, and the log ends at %d", w.event, w.stream, w.position, len(log))
			continue
		}
		e := log[w.position-1]
		if e.Type != w.event || e.Stream != w.stream || w.name != "" && e.Data.Name != "" && e.Data.Name != w.name {
			t.Errorf("%s of %s was acknowledged at %d, where there is %s of %s %q", w.event, w.stream, w.position, e.Type, e.Stream, e.Data.Name)
		}
	}
	admin, unknown := log[0].Subject, 0
	for _, e := range log {
		switch e.Type {
		case "user.registered", "user.profile_updated", "user.erased":
			if e.Subject != admin {
				got[key{e.Type, e.Stream}]++
			}
		case "session.started":
			if known[e.Stream] {
				got[key{e.Type, e.Stream}]++
			} else if e.Subject != admin {
				unknown++
			}
		case "session.ended":
			// Erasing a user ends the sessions, which nobody asked for one by one.
			if want[key{e.Type, e.Stream}] > 0 {
				got[key{e.Type, e.Stream}]++
			}
		case "session.reuse_detected":
			t.Errorf("position %d: session %s was ended because its refresh token was used again", e.Position, e.Stream)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events in the log (-acknowledged +there):\n%s", diff)
	}
	if unknown > uncertain {
		t.Errorf("%d sessions that nobody knows of, and %d logins whose answer was lost", unknown, uncertain)
	}
}

// wantUsers fails unless the read model has every user of the log that was not erased, with the last name.
func (f *fleet) wantUsers(log []event) {
	t := f.deployment.t
	t.Helper()
	got := map[string]string{}
	for id, u := range f.apis[0].Load().users(t, f.adminWith, int64(len(log))) {
		got[id] = u.Name
	}
	if diff := cmp.Diff(namesOf(log), got); diff != "" {
		t.Errorf("users by name (-log +read model):\n%s", diff)
	}
}
