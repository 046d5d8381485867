// Command copy is a service that keeps a copy of usher's users in a file: their addresses and names. It begins with the whole
// log, follows the stream from there, and forgets whoever is erased. It may be stopped and started at any time, and misses
// nothing.
//
//	usher clients add copy --scope "events:read users:read"
//	USHER_CLIENT_SECRET=… copy -usher http://127.0.0.1:8080 -client 0198… -nats nats://127.0.0.1:4222 -file users.json
//
// So it may read the log with the personal fields of its events, and nothing else. In the place of id and secret it takes a key:
//
//	usher clients key copy --scope "events:read users:read"
//	USHER_KEY=usher_sk_… copy -usher http://127.0.0.1:8080 -nats nats://127.0.0.1:4222 -file users.json
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"os"
	"os/signal"
	"syscall"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/eventstore"
	"usher.example/subscription"
)

func main() {
	usher := flag.String("usher", "http://127.0.0.1:8080", "where usher's API is")
	client := flag.String("client", "", "the client_id of the service, with the scopes events:read and users:read; the secret is in USHER_CLIENT_SECRET, or a key in USHER_KEY")
	server := flag.String("nats", "nats://127.0.0.1:4222", "the NATS server, with user and password where it asks for them")
	name := flag.String("name", "copy-example", "the name of the durable consumer: another one for every service")
	file := flag.String("file", "users.json", "where the copy is kept")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	feed := &subscription.Feed{URL: *usher, Key: subscription.Secret(os.Getenv("USHER_KEY"))}
	if feed.Key == "" {
		feed.Client = &subscription.ClientCredentials{ID: *client, Secret: subscription.Secret(os.Getenv("USHER_CLIENT_SECRET"))}
		if err := given(feed.Client); err != nil {
			fmt.Fprintln(flag.CommandLine.Output(), err)
			flag.Usage()
			os.Exit(2)
		}
	}
	if err := follow(ctx, feed, *server, *name, &userFile{path: *file}); err != nil && ctx.Err() == nil {
		log.Fatal(err)
	}
}

// given says what of the credentials is missing.
func given(c *subscription.ClientCredentials) error {
	var errs []error
	if c.ID == "" {
		errs = append(errs, errors.New("copy: -client is missing: the client_id that usher clients add prints"))
	}
	if c.Secret == "" {
		errs = append(errs, errors.New("copy: USHER_CLIENT_SECRET is not set: the client_secret that comes with it; or set USHER_KEY"))
	}
	return errors.Join(errs...)
}

// follow keeps the copy up to date until ctx ends.
func follow(ctx context.Context, feed *subscription.Feed, server, name string, users *userFile) error {
	if err := users.load(); err != nil {
		return err
	}
	for { // what there is already; the stream need not have the beginning of the log any more
		events, err := feed.ReadAll(ctx, users.Checkpoint, 1000)
		if err != nil {
			return err
		}
		if len(events) == 0 {
			break
		}
		if err := users.handle(ctx, events); err != nil {
			return err
		}
	}
	log.Printf("the copy has what there is up to position %d; users: %d", users.Checkpoint, len(users.Users))
	conn, err := subscription.Connect(server, "copy")
	if err != nil {
		return err
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		return err
	}
	for {
		s := subscription.Subscription{
			JetStream: js, Name: name, Checkpoint: users.checkpoint, Handle: users.handle,
			Source:   feed, // has what the stream lacks: events about who was erased, and old ones
			Personal: true, // what STREAM_PERSONAL=omit leaves out of messages is read from there too
		}
		err := s.Run(ctx)
		var restored *subscription.RestoredError
		if !errors.As(err, &restored) {
			return err
		}
		// usher was restored from a backup: what the copy has beyond it did not happen. A copy is made anew in no time.
		log.Print(err)
		users.Checkpoint, users.Users = 0, map[uuid.UUID]user{}
		if err := users.store(); err != nil {
			return err
		}
	}
}

// user is what the service wants to know of a user.
type user struct {
	Email string `json:"email"`
	Name  string `json:"name,omitempty"`
}

// userFile is the copy. Users and checkpoint change together, because they are one file: a service with a database changes
// both in one transaction.
type userFile struct {
	path       string
	Checkpoint int64              `json:"checkpoint"`
	Users      map[uuid.UUID]user `json:"users"`
}

func (f *userFile) checkpoint(context.Context) (int64, error) { return f.Checkpoint, nil }

// handle applies events to the copy. If it fails, the same events come again, to the copy as it was before.
func (f *userFile) handle(_ context.Context, events []eventstore.Event) error {
	for _, e := range events {
		if err := f.apply(e); err != nil {
			return errors.Join(err, f.load())
		}
		f.Checkpoint = e.Position
	}
	if err := f.store(); err != nil {
		return errors.Join(err, f.load())
	}
	return nil
}

func (f *userFile) apply(e eventstore.Event) error {
	id := e.Stream.Subject
	if e.Type == eventstore.TypeErased {
		delete(f.Users, id)
		return nil
	}
	if e.Forgotten { // the user is erased by now, as user.erased says later
		return nil
	}
	var fields struct{ Email, Name *string } // those that an event does not change are not in it
	switch e.Type {
	case "user.registered", "user.imported", "user.email_changed", "user.profile_updated":
	default: // email_verified and others change nothing that is kept here
		return nil
	}
	if err := json.Unmarshal(e.Payload(), &fields); err != nil {
		return err
	}
	u := f.Users[id]
	if fields.Email != nil {
		u.Email = *fields.Email
	}
	if fields.Name != nil {
		u.Name = *fields.Name
	}
	f.Users[id] = u
	return nil
}

func (f *userFile) load() error {
	f.Checkpoint, f.Users = 0, map[uuid.UUID]user{}
	raw, err := os.ReadFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, f)
}

// store writes the file anew, whole or not at all.
func (f *userFile) store() error {
	raw, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(f.path+".new", raw, 0o600); err != nil {
		return err
	}
	return os.Rename(f.path+".new", f.path)
}
