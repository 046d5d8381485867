package subscription_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/eventstore"
	"usher.example/eventstore/cloudevent"
	"usher.example/identity"
	"usher.example/internal/devstack"
	"usher.example/subscription"
	"usher.example/token"
)

// A service keeps the roles of every user. What it keeps and its checkpoint change together: here under one lock, in a
// real service in one transaction of its database.
func ExampleSubscription_Run() {
	url, stop := exampleBroker(
		identity.Registered{}, identity.RoleGranted{Role: "editor"}, identity.RoleGranted{Role: "auditor"}, identity.RoleRevoked{Role: "editor"},
	)
	defer stop()

	conn, err := nats.Connect(url)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		log.Fatal(err)
	}

	var mu sync.Mutex
	var checkpoint int64
	roles := map[uuid.UUID][]string{}
	ctx, cancel := context.WithCancel(context.Background())
	s := subscription.Subscription{
		JetStream: js,
		Name:      "my-service",
		Checkpoint: func(context.Context) (int64, error) {
			mu.Lock()
			defer mu.Unlock()
			return checkpoint, nil
		},
		Handle: func(_ context.Context, events []eventstore.Event) error {
			mu.Lock()
			defer mu.Unlock()
			for _, e := range events {
				user := e.Stream.Subject
				switch e.Type {
				case identity.TypeUserRoleGranted:
					p, err := identity.Decode[identity.RoleGranted](e)
					if err != nil {
						return err
					}
					roles[user] = append(roles[user], p.Role)
				case identity.TypeUserRoleRevoked:
					p, err := identity.Decode[identity.RoleRevoked](e)
					if err != nil {
						return err
					}
					roles[user] = slices.DeleteFunc(roles[user], func(r string) bool { return r == p.Role })
				}
				checkpoint = e.Position
			}
			if checkpoint == 4 { // so that the example ends
				cancel()
			}
			return nil
		},
	}
	if err := s.Run(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println("checkpoint", checkpoint)
	for _, r := range roles {
		fmt.Println(r)
	}
	// Output:
	// checkpoint 4
	// [auditor]
}

// Subjects select what comes: here the registrations, of everybody.
func ExampleType() {
	fmt.Println(subscription.Type(identity.TypeUserRegistered))
	// Output: usher.v1.*.user.registered
}

// All that happens to one user, in all of the user's streams, and to the others of the shard.
func ExampleShard() {
	fmt.Println(subscription.Shard(uuid.MustParse("0198b7a0-4b1e-7c3f-9d27-5f0d8a6c1e42")))
	// Output: usher.v1.42.>
}

// Three workers divide the users: each is a Subscription with a name and a checkpoint of its own.
func ExamplePartition() {
	for worker := range 3 {
		s := subscription.Subscription{Name: fmt.Sprintf("my-service-%d-of-3", worker), Subjects: subscription.Partition(worker, 3)}
		fmt.Println(s.Name, len(s.Subjects), s.Subjects[:2])
	}
	// Output:
	// my-service-0-of-3 87 [usher.v1.00.> usher.v1.03.>]
	// my-service-1-of-3 85 [usher.v1.01.> usher.v1.04.>]
	// my-service-2-of-3 85 [usher.v1.02.> usher.v1.05.>]
}

// All events of sessions: who logs in and out. Loss behind such a filter is noticed by the versions of each stream.
func ExampleKind() {
	fmt.Println(subscription.Kind(eventstore.KindSession))
	// Output: usher.v1.*.session.>
}

// An error that trying again does not mend ends Run.
func ExampleFinal() {
	moved := errors.New("another process has moved the checkpoint")
	url, stop := exampleBroker(identity.Registered{})
	defer stop()
	conn, err := nats.Connect(url)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		log.Fatal(err)
	}
	s := subscription.Subscription{
		JetStream:  js,
		Name:       "my-service",
		Checkpoint: func(context.Context) (int64, error) { return 0, nil },
		Handle:     func(context.Context, []eventstore.Event) error { return subscription.Final(moved) },
	}
	fmt.Println(s.Run(context.Background()))
	// Output: another process has moved the checkpoint
}

// A service verifies access tokens by itself, and refuses those whose session has ended although they have not expired. Each
// of its instances follows the feed.
func ExampleRevocationFeed() {
	session, user := uuid.Must(uuid.NewV7()), uuid.Must(uuid.NewV7())
	url, stop := exampleBroker()
	defer stop()
	conn, err := nats.Connect(url)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		log.Fatal(err)
	}

	const lifetime = 30 * time.Minute // JWT_ACCESS_TOKEN_EXPIRE_MINUTES
	revocations := token.NewRevocations(token.RevocationsConfig{Lifetime: lifetime})
	heard := make(chan struct{})
	feed := &subscription.RevocationFeed{
		JetStream:  js,
		Lifetime:   lifetime,
		EndUser:    revocations.EndUser,
		EndConsent: revocations.EndConsent,
		EndSession: func(session uuid.UUID) {
			revocations.EndSession(session)
			close(heard) // so that the example ends
		},
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- feed.Run(ctx) }()
	<-feed.Ready() // from now on requests may be answered, with token.VerifierConfig{Revoked: revocations.Revoked, …}

	claims := token.Claims{Subject: user.String(), Session: session.String()}
	fmt.Println("revoked:", revocations.Revoked(claims))
	endExampleSession(js, session, user) // somebody logs out
	<-heard
	fmt.Println("revoked:", revocations.Revoked(claims))

	cancel()
	if err := <-done; err != nil {
		log.Fatal(err)
	}
	// Output:
	// revoked: false
	// revoked: true
}

// The stream keeps events for a while only. A service that comes later, and has no Source, is told what it missed.
func ExampleGapError() {
	url, stop := exampleBroker(identity.Registered{}, identity.Locked{}, identity.Unlocked{})
	defer stop()
	conn, err := nats.Connect(url)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		log.Fatal(err)
	}
	stream, err := js.Stream(context.Background(), subscription.Stream)
	if err != nil {
		log.Fatal(err)
	}
	if err := stream.Purge(context.Background(), jetstream.WithPurgeSequence(3)); err != nil {
		log.Fatal(err)
	}
	s := subscription.Subscription{
		JetStream:  js,
		Name:       "late-service",
		Checkpoint: func(context.Context) (int64, error) { return 0, nil },
		Handle:     func(context.Context, []eventstore.Event) error { return nil },
	}
	err = s.Run(context.Background())
	var gap *subscription.GapError
	if errors.As(err, &gap) {
		fmt.Printf("read the feed after %d and before %d, then go on from there\n", gap.After, gap.Next)
	}
	// Output: read the feed after 0 and before 3, then go on from there
}

// endExampleSession publishes what the relay publishes when a session ends.
func endExampleSession(js jetstream.JetStream, session, user uuid.UUID) {
	p := identity.SessionEnded{Reason: identity.EndedLogout}
	data, _ := identity.Encode(p)
	e := eventstore.Event{
		Position: 1, Stream: eventstore.SessionStream(session, user), Version: 2, ID: uuid.Must(uuid.NewV7()), Type: p.EventType(), SchemaVersion: 1,
		Data: data, RecordedAt: time.Now(),
	}
	header, body := cloudevent.Encode(e, cloudevent.Options{Source: "urn:usher:example"})
	if _, err := js.PublishMsg(context.Background(), &nats.Msg{Subject: cloudevent.Subject(e), Header: header, Data: body}); err != nil {
		log.Fatal(err)
	}
}

// exampleBroker is a broker with the events of one user in its stream.
func exampleBroker(payloads ...identity.Payload) (url string, stop func()) {
	dir, remove := exampleDir()
	broker, err := devstack.StartNATS(devstack.NATSOptions{StoreDir: dir})
	if err != nil {
		log.Fatal(err)
	}
	conn, err := broker.Connect()
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: subscription.Stream, Subjects: []string{"usher.v1.>"}}); err != nil {
		log.Fatal(err)
	}
	user := eventstore.UserStream(uuid.Must(uuid.NewV7()))
	for i, p := range payloads {
		data, personal := identity.Encode(p)
		e := eventstore.Event{
			Position: int64(i) + 1, Stream: user, Version: i + 1, ID: uuid.Must(uuid.NewV7()), Type: p.EventType(), SchemaVersion: 1,
			Data: data, Personal: personal,
		}
		header, body := cloudevent.Encode(e, cloudevent.Options{Source: "urn:usher:example"})
		if _, err := js.PublishMsg(ctx, &nats.Msg{Subject: cloudevent.Subject(e), Header: header, Data: body}); err != nil {
			log.Fatal(err)
		}
	}
	return broker.URL(), func() {
		broker.Shutdown()
		remove()
	}
}
