package subscription_test

import (
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/internal/devstack"
	"usher.example/subscription"
)

// withPlaces is a stack whose broker has users: an operator, and verifiers with so many places, as deploy/nats/nats.conf has them.
func withPlaces(t *testing.T, verifiers map[string]int) *stack {
	t.Helper()
	users := []*server.User{{Username: "operator", Password: "operator"}}
	for name, places := range verifiers {
		const api = "$JS.API.CONSUMER."
		var may []string
		for consumer, filter := range subscription.RevocationConsumers(name, places) {
			may = append(may, api+"CREATE.USHER."+consumer+"."+filter, api+"INFO.USHER."+consumer, api+"DELETE.USHER."+consumer,
				api+"MSG.NEXT.USHER."+consumer)
		}
		users = append(users, &server.User{Username: name, Password: name, Permissions: &server.Permissions{
			Publish:   &server.SubjectPermission{Allow: may},
			Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX." + name + ".>"}},
		}})
	}
	s := &stack{output: &devstack.Output{}}
	s.broker = devstack.NATS(t, func(o *devstack.NATSOptions) { o.Configure = func(o *server.Options) { o.Users = users } })
	s.js = connect(t, s.broker, nats.UserInfo("operator", "operator"))
	s.createStream(t, jetstream.StreamConfig{})
	t.Cleanup(func() {
		if t.Failed() {
			t.Log("log output:\n" + s.output.String())
		}
	})
	return s
}

// verifier is a process that follows the feed as a user.
type verifier struct {
	*subscription.RevocationFeed
	told *told
	conn *nats.Conn
	stop func()
}

func (s *stack) verifier(t *testing.T, user string, places int) verifier {
	t.Helper()
	address := strings.Replace(s.broker.URL(), "nats://", "nats://"+user+":"+user+"@", 1)
	conn, err := subscription.Connect(address, "verifier", nats.ReconnectWait(20*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	v := verifier{told: &told{}, conn: conn}
	v.RevocationFeed = &subscription.RevocationFeed{JetStream: js, Lifetime: time.Hour, Places: places, EndSession: v.told.endSession,
		EndUser: v.told.endUser, EndConsent: v.told.endConsent, Logger: slog.New(slog.NewTextHandler(s.output, nil))}
	v.stop = devstack.Background(t, v.Run)
	return v
}

// consumers are those that there are, by their names.
func (s *stack) consumers(t *testing.T) map[string]*jetstream.ConsumerInfo {
	t.Helper()
	all := make(map[string]*jetstream.ConsumerInfo)
	list := s.stream(t).ListConsumers(t.Context())
	for info := range list.Info() {
		all[info.Name] = info
	}
	if list.Err() != nil {
		t.Fatal(list.Err())
	}
	return all
}

func names[V any](consumers map[string]V) (list []string) {
	for name := range consumers {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

// As many processes as there are places begin at once: each gets one, and hears of everything. One more waits until one of them ends.
func TestRevocationFeedsHavePlaces(t *testing.T) {
	t.Parallel()
	s := withPlaces(t, map[string]int{"verifier": subscription.Places})
	processes := make([]verifier, subscription.Places)
	for i := range processes {
		processes[i] = s.verifier(t, "verifier", 0)
	}
	for _, p := range processes {
		wantReady(t, p.RevocationFeed)
	}
	want := make(map[string]string)
	for name, filter := range subscription.RevocationConsumers("verifier", subscription.Places) {
		want[name] = filter
	}
	if diff := cmp.Diff(names(want), names(s.consumers(t))); diff != "" {
		t.Errorf("consumers (-want +got):\n%s", diff)
	}
	late := s.verifier(t, "verifier", 0)
	devstack.Eventually(t, "it says that no place is free", func() bool { return strings.Contains(s.output.String(), "no place is free") })
	if said := s.output.String(); !strings.Contains(said, "--places N") || !strings.Contains(said, "user verifier has 8") {
		t.Errorf("it does not say what to do:\n%s", said)
	}
	session := s.endSession(t, 0)
	for _, p := range processes {
		devstack.Eventually(t, "the session is told of", func() bool { return p.told.session(session) })
	}
	select {
	case <-late.Ready():
		t.Error("the feed without a place is ready")
	default:
	}

	processes[0].stop()
	wantReady(t, late.RevocationFeed)
	devstack.Eventually(t, "the session is told of", func() bool { return late.told.session(session) })
	for _, p := range append(processes[1:], late) {
		p.stop()
	}
	if left := s.consumers(t); len(left) > 0 {
		t.Errorf("feeds that ended left %v", names(left))
	}
}

// A process whose connection breaks takes the place that it has, of which there is no other.
func TestRevocationFeedKeepsItsPlace(t *testing.T) {
	t.Parallel()
	s := withPlaces(t, map[string]int{"gateway": 1})
	p := s.verifier(t, "gateway", 1)
	wantReady(t, p.RevocationFeed)
	before := s.consumers(t)
	for name, info := range before {
		if limit := info.Config.InactiveThreshold; limit <= 0 || limit > time.Minute {
			t.Errorf("the place %s of a process that was killed is free after %v", name, limit)
		}
	}
	// again wants the feed to have made its consumers anew, in the same places, and to hear of what happens.
	again := func(after string) {
		t.Helper()
		meanwhile := s.endSession(t, 0)
		devstack.Eventually(t, "what happens is told of after "+after, func() bool { return p.told.session(meanwhile) })
		devstack.Eventually(t, "the feed has begun anew after "+after, func() bool {
			for name, info := range s.consumers(t) {
				if was := before[name]; was == nil || !info.Created.After(was.Created) {
					return false
				}
			}
			return true
		})
		devstack.Eventually(t, "the feed is current after "+after, func() bool { return p.Age() < feedSecond })
		now := s.consumers(t)
		if diff := cmp.Diff(names(before), names(now)); diff != "" {
			t.Errorf("consumers after %s (-want +got):\n%s", after, diff)
		}
		before = now
	}
	if err := p.conn.ForceReconnect(); err != nil {
		t.Fatal(err)
	}
	again("a break")
	if err := s.broker.Restart(); err != nil {
		t.Fatal(err)
	}
	devstack.Eventually(t, "the connection is back", func() bool { return s.js.Conn().IsConnected() && s.js.Conn().Stats().Reconnects > 0 })
	again("a restart of the broker")
	if said := s.output.String(); strings.Contains(said, "no place") {
		t.Errorf("it looked for another place:\n%s", said)
	}

	// It was away for so long that the server forgot it, and another has the place now: that one stays.
	other := withoutItsPlace(t, s, before)
	for name := range before {
		if err := s.js.DeleteConsumer(t.Context(), subscription.Stream, name); err != nil {
			t.Fatal(err)
		}
		other(name)
	}
	devstack.Eventually(t, "it says that no place is free", func() bool { return strings.Contains(s.output.String(), "no place is free") })
	p.stop()
	for name, info := range s.consumers(t) {
		if !strings.HasPrefix(info.Config.Description, "other") {
			t.Errorf("the place %s of another was taken", name)
		}
	}
}

// withoutItsPlace has another take the places of a process.
func withoutItsPlace(t *testing.T, s *stack, places map[string]*jetstream.ConsumerInfo) func(name string) {
	return func(name string) {
		devstack.Eventually(t, "another has the place", func() bool {
			c := places[name].Config
			_, err := s.js.CreateConsumer(t.Context(), subscription.Stream, jetstream.ConsumerConfig{
				Name: name, Description: "other", FilterSubject: c.FilterSubject, AckPolicy: c.AckPolicy, InactiveThreshold: time.Hour})
			if err != nil {
				_ = s.js.DeleteConsumer(t.Context(), subscription.Stream, name)
			}
			return err == nil
		})
	}
}

// A user with fewer places than the service believes is told so, and the places of other users are out of reach.
func TestRevocationFeedOfAnotherUser(t *testing.T) {
	t.Parallel()
	s := withPlaces(t, map[string]int{"gateway": 1, "search": 1})
	gateway := s.verifier(t, "gateway", 1)
	wantReady(t, gateway.RevocationFeed)
	s.verifier(t, "gateway", 2)
	devstack.Eventually(t, "it is told that it may not", func() bool {
		said := s.output.String()
		return strings.Contains(said, "Permissions Violation") && strings.Contains(said, "RevocationFeed.Places")
	})
	search := s.verifier(t, "search", 1)
	wantReady(t, search.RevocationFeed)
	for name, filter := range subscription.RevocationConsumers("gateway", 1) {
		for _, subject := range []string{"INFO.USHER." + name, "DELETE.USHER." + name, "MSG.NEXT.USHER." + name, "CREATE.USHER." + name + "." + filter} {
			if err := search.conn.Publish("$JS.API.CONSUMER."+subject, nil); err != nil {
				t.Fatal(err)
			}
			devstack.Eventually(t, "search may not publish "+subject, func() bool {
				err := search.conn.LastError()
				return err != nil && strings.Contains(err.Error(), subject)
			})
		}
	}
	session := s.endSession(t, 0)
	for _, v := range []verifier{gateway, search} {
		devstack.Eventually(t, "the session is told of", func() bool { return v.told.session(session) })
	}
}
