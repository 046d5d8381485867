package publisher

import (
	"net/url"
	"strconv"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"usher.example/eventstore/cloudevent"
	"usher.example/internal/devstack"
)

// A consumer may read from a replica that lacks the newest messages. That is no damage, and the scrub waits until it has them.
//
// How far a follower of a cluster is behind can't be set, so the replica is a server of its own, which has the stream up to a
// point, and to which the leader hands all that is asked of consumers, as it does in a cluster.
func TestScrubWaitsForAReplica(t *testing.T) {
	t.Parallel()
	const behind, all = 200, 300
	s := newSite(t)
	leader, replica := replicated(t)
	toLeader, toReplica := connection(t, leader), connection(t, replica)
	same := func(c *Config) { c.Holder = "the same each time" }
	s.appendEvents(t, behind)
	if err := s.relay(t, toReplica, same).Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.appendEvents(t, all-behind)
	if err := s.relay(t, toLeader, same).Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := lastSequence(t, toReplica); got != behind {
		t.Fatalf("the replica has %d messages, want %d", got, behind)
	}
	if err := leader.Server().GlobalAccount().AddMapping("$JS.API.CONSUMER.>", "$JS."+replicaDomain+".API.CONSUMER.>"); err != nil {
		t.Fatal(err)
	}
	// The leader is asked what it has once the replica has no more.
	asked, err := connection(t, leader).SubscribeSync("$JS.API.STREAM.MSG.GET." + DefaultStream)
	if err != nil {
		t.Fatal(err)
	}
	caughtUp := make(chan error, 1)
	go func() {
		_, err := asked.NextMsgWithContext(t.Context())
		if err == nil {
			err = s.relay(t, toReplica, same).Flush(t.Context())
		}
		caughtUp <- err
	}()

	report, err := s.relay(t, toLeader).Scrub(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if report.Damaged() || report.Checked != all {
		t.Fatalf("Scrub() = %+v, want %d messages and no damage", report, all)
	}
	if err := <-caughtUp; err != nil {
		t.Fatal(err)
	}
}

const replicaDomain = "replica"

// replicated starts two servers with streams of their own, of which one can ask the other's JetStream API.
func replicated(t *testing.T) (leader, replica *devstack.NATSServer) {
	t.Helper()
	leader = devstack.NATS(t, func(o *devstack.NATSOptions) {
		o.Configure = func(o *server.Options) { o.LeafNode.Host, o.LeafNode.Port = "127.0.0.1", server.RANDOM_PORT }
	})
	varz, err := leader.Server().Varz(nil)
	if err != nil {
		t.Fatal(err)
	}
	replica = devstack.NATS(t, func(o *devstack.NATSOptions) {
		o.Configure = func(o *server.Options) {
			o.JetStreamDomain = replicaDomain
			events := []string{cloudevent.SubjectPrefix + ">"} // each stream gets its own
			o.LeafNode.Remotes = []*server.RemoteLeafOpts{{
				URLs:        []*url.URL{{Scheme: "nats-leaf", Host: "127.0.0.1:" + strconv.Itoa(varz.LeafNode.Port)}},
				DenyImports: events, DenyExports: events,
			}}
		}
	})
	devstack.Eventually(t, "the servers are connected", func() bool { return leader.Server().NumLeafNodes() == 1 && replica.Server().NumLeafNodes() == 1 })
	return leader, replica
}
