package subscription_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/api"
	"usher.example/eventstore"
	"usher.example/eventstore/cloudevent"
	"usher.example/eventstore/sqlite"
	"usher.example/identity"
	"usher.example/internal/devstack"
	"usher.example/schema"
	"usher.example/subscription"
)

// userCopy is a service's copy of all users: their names. In a real service it is a table, and handle one transaction of
// its database that changes the table and stores the checkpoint.
type userCopy struct {
	mu         sync.Mutex
	names      map[uuid.UUID]string
	checkpoint int64
	reached    map[int64]func() // what to do once the copy has a position
}

func (c *userCopy) read(context.Context) (int64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.checkpoint, nil
}

func (c *userCopy) handle(_ context.Context, events []eventstore.Event) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range events {
		user := e.Stream.Subject
		switch {
		case e.Type == eventstore.TypeErased:
			delete(c.names, user)
		case e.Forgotten:
			// The user is erased by now, and so are the personal fields. user.erased comes later.
		case e.Type == identity.TypeUserRegistered:
			p, err := identity.Decode[identity.Registered](e)
			if err != nil {
				return err
			}
			c.names[user] = p.Personal.Name
		case e.Type == identity.TypeUserProfileUpdated:
			p, err := identity.Decode[identity.ProfileUpdated](e)
			if err != nil {
				return err
			}
			if p.Personal.Name != nil {
				c.names[user] = *p.Personal.Name
			}
		} // user.imported is another beginning; whatever else there is leaves the name as it is
		c.checkpoint = e.Position
		if then := c.reached[e.Position]; then != nil {
			then()
		}
	}
	return nil
}

func (c *userCopy) print(when string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var names []string
	for _, name := range c.names {
		names = append(names, name)
	}
	slices.Sort(names)
	fmt.Printf("%s: %v at %d\n", when, names, c.checkpoint)
}

// A service keeps a copy of all users. It begins with what the feed has, goes on with the stream where the feed ended, and
// reads from the feed what the stream does not have any more: because it is about somebody who was erased, or because the
// service was stopped for longer than the stream keeps events.
func ExampleFeed() {
	usher := startExample()
	defer usher.stop()
	usher.register("Ann")
	usher.register("Ben")
	usher.register("Cid")
	usher.erase("Cid")

	conn, err := nats.Connect(usher.natsURL)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		log.Fatal(err)
	}
	// The service has credentials of its own, from: usher clients add my-service --scope "events:read users:read"
	feed := &subscription.Feed{URL: usher.url, Client: &subscription.ClientCredentials{ID: usher.client, Secret: usher.secret}}
	users := &userCopy{names: map[uuid.UUID]string{}, reached: map[int64]func(){}}

	// First the feed, up to the end of the log. A service that is stopped meanwhile goes on from its checkpoint.
	ctx := context.Background()
	for {
		events, err := feed.ReadAll(ctx, users.checkpoint, 1000)
		if err != nil {
			log.Fatal(err)
		}
		if len(events) == 0 {
			break
		}
		if err := users.handle(ctx, events); err != nil {
			log.Fatal(err)
		}
	}
	users.print("copied") // the service may answer from now on

	// Then the stream, from the checkpoint on: positions leave no room for a gap between the two.
	follow := func(until int64) {
		ctx, cancel := context.WithCancel(ctx)
		users.reached[until] = cancel // so that the example ends
		s := subscription.Subscription{
			JetStream: js, Name: "my-service", Checkpoint: users.read, Handle: users.handle,
			Source:   feed,
			Personal: true, // what STREAM_PERSONAL=omit leaves out is read from the feed as well
		}
		if err := s.Run(ctx); err != nil {
			log.Fatal(err)
		}
	}
	usher.register("Dan")
	follow(usher.rename("Ann", "Anna"))
	users.print("followed")

	// The service is stopped for long. Somebody is erased, and the stream drops its beginning, which the service has not seen.
	usher.register("Eve")
	usher.erase("Ben")
	usher.dropStart()
	follow(usher.register("Fay"))
	users.print("followed after a long time")
	// Output:
	// copied: [Ann Ben] at 4
	// followed: [Anna Ben Dan] at 6
	// followed after a long time: [Anna Dan Eve Fay] at 9
}

// exampleUsher is a log with a stream and a feed, as a deployment has them.
type exampleUsher struct {
	url, natsURL, client string
	secret               subscription.Secret
	log                  *eventstore.Log
	js                   jetstream.JetStream
	users                map[string]uuid.UUID
	stop                 func()
}

func startExample() *exampleUsher {
	ctx := context.Background()
	dir, remove := exampleDir()
	path := filepath.Join(dir, "usher.db")
	must := func(err error) {
		if err != nil {
			log.Fatal(err)
		}
	}
	m, err := schema.SQLite(path)
	must(err)
	_, err = m.Up(ctx)
	must(err)
	must(m.Close())
	store, err := sqlite.Open(ctx, path)
	must(err)
	master, _ := eventstore.NewMasterKey()
	u := &exampleUsher{client: "0198c0de-0000-7000-8000-000000000001", secret: "usher_secret_…", log: eventstore.New(store, master, eventstore.Options{}), users: map[string]uuid.UUID{}}
	broker, err := devstack.StartNATS(devstack.NATSOptions{StoreDir: filepath.Join(dir, "nats")})
	must(err)
	conn, err := broker.Connect()
	must(err)
	u.js, err = jetstream.New(conn)
	must(err)
	_, err = u.js.CreateStream(ctx, jetstream.StreamConfig{Name: subscription.Stream, Subjects: []string{cloudevent.SubjectPrefix + ">"}})
	must(err)
	server := httptest.NewServer(http.HandlerFunc(u.answer))
	u.url, u.natsURL = server.URL, broker.URL()
	u.stop = func() {
		server.Close()
		conn.Close()
		broker.Shutdown()
		store.Close()
		remove()
	}
	return u
}

// answer answers POST /oauth2/token and GET /v1/events as usher does.
func (u *exampleUsher) answer(w http.ResponseWriter, r *http.Request) {
	id, secret, _ := r.BasicAuth()
	if secret, _ = url.QueryUnescape(secret); r.URL.Path == "/oauth2/token" && id == u.client && secret == string(u.secret) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"access_token": "an access token", "token_type": "Bearer", "expires_in": 1800}`)) // a client that went away
		return
	}
	if r.URL.Path != "/v1/events" || r.Header.Get("Authorization") != "Bearer an access token" {
		http.Error(w, "", http.StatusUnauthorized)
		return
	}
	after, _ := strconv.ParseInt(r.URL.Query().Get("after"), 10, 64)
	limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
	events, err := u.log.ReadAll(r.Context(), after, limit)
	if err != nil {
		log.Fatal(err)
	}
	items := []api.EventView{}
	for _, e := range events {
		items = append(items, api.ViewEvent(e))
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"items": items}) // a client that went away
}

// happen appends to the stream of a user and publishes as the relay does.
func (u *exampleUsher) happen(user string, a eventstore.Append, p identity.Payload) int64 {
	ctx := context.Background()
	a.Stream, a.Events = eventstore.UserStream(u.users[user]), []eventstore.NewEvent{identity.NewEvent(p)}
	result, err := u.log.Append(ctx, a)
	if err != nil {
		log.Fatal(err)
	}
	events, err := u.log.ReadAll(ctx, result.Position-1, 1)
	if err != nil {
		log.Fatal(err)
	}
	header, body := cloudevent.Encode(events[0], cloudevent.Options{Source: "urn:usher:example"})
	if _, err := u.js.PublishMsg(ctx, &nats.Msg{Subject: cloudevent.Subject(events[0]), Header: header, Data: body}); err != nil {
		log.Fatal(err)
	}
	return result.Position
}

func (u *exampleUsher) register(name string) int64 {
	u.users[name] = uuid.Must(uuid.NewV7())
	var p identity.Registered
	p.Personal.Name, p.Personal.Email = name, name+"@example.org"
	return u.happen(name, eventstore.Append{Expected: eventstore.NoStream, CreateKey: true}, p)
}

func (u *exampleUsher) rename(name, to string) int64 {
	var p identity.ProfileUpdated
	p.Personal.Name = &to
	return u.happen(name, eventstore.Append{Expected: eventstore.AnyVersion}, p)
}

// erase takes the user's messages out of the stream before it says so, as the relay does.
func (u *exampleUsher) erase(name string) int64 {
	ctx := context.Background()
	events, err := u.log.ReadStream(ctx, u.users[name], 0, 1000)
	if err != nil {
		log.Fatal(err)
	}
	for _, e := range events {
		if err := u.stream().SecureDeleteMsg(ctx, uint64(e.Position)); err != nil {
			log.Fatal(err)
		}
	}
	return u.happen(name, eventstore.Append{Expected: eventstore.AnyVersion}, identity.Erased{})
}

// dropStart takes every message out of the stream, as limits of age and size do with the oldest.
func (u *exampleUsher) dropStart() {
	if err := u.stream().Purge(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func (u *exampleUsher) stream() jetstream.Stream {
	stream, err := u.js.Stream(context.Background(), subscription.Stream)
	if err != nil {
		log.Fatal(err)
	}
	return stream
}
