#!/usr/bin/env bash
# One would guess: purging a JetStream stream takes its messages away and leaves its durable consumers where they are. One that had
#   acknowledged up to 3 of 10 says so afterwards, so whoever puts the messages back under the same sequences lets it go on after 3.
# What happens: the server moves the ack floor to the last sequence before what is left, 10 here, and num_pending to 0. Nothing tells
#   a message that was purged from one that was handled. A message that is deleted by its sequence moves no floor.
# Why it matters: the ack floor is what is kept when a stream is rebuilt or mirrored, and after a purge it says that everything was
#   handled. usher's relay remembers the floors while all is well, and sets consumers back to those after a purge.
set -euo pipefail
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
cd "$work"

cat > go.mod <<'GO'
module example.org/purging

go 1.26.0
GO
cat > main.go <<'GO'
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func must[T any](v T, err error) T {
	if err != nil {
		fmt.Println(err)
		os.Exit(2)
	}
	return v
}

func main() {
	ctx := context.Background()
	s := must(server.NewServer(&server.Options{JetStream: true, StoreDir: os.Args[1], Port: -1, NoSigs: true, NoLog: true}))
	s.Start()
	defer s.Shutdown()
	if !s.ReadyForConnections(30 * time.Second) {
		fmt.Println("the server does not start")
		os.Exit(2)
	}
	js := must(jetstream.New(must(nats.Connect(s.ClientURL()))))
	stream := must(js.CreateStream(ctx, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}}))
	for range 10 {
		must(js.Publish(ctx, "s", nil))
	}
	durable := must(stream.CreateConsumer(ctx, jetstream.ConsumerConfig{Durable: "d", AckPolicy: jetstream.AckExplicitPolicy}))
	batch := must(durable.Fetch(3))
	for m := range batch.Messages() {
		if err := m.DoubleAck(ctx); err != nil {
			fmt.Println(err)
			os.Exit(2)
		}
	}
	floor := func(when string) uint64 {
		info := must(durable.Info(ctx))
		fmt.Printf("%-24s ack floor %d, delivered %d, pending %d\n", when, info.AckFloor.Stream, info.Delivered.Stream, info.NumPending)
		return info.AckFloor.Stream
	}
	fmt.Println("nats-server", server.VERSION, "nats.go", nats.Version)
	before := floor("3 of 10 acknowledged:")
	if err := stream.DeleteMsg(ctx, 4); err != nil {
		fmt.Println(err)
		os.Exit(2)
	}
	deleted := floor("message 4 deleted:")
	if err := stream.Purge(ctx); err != nil {
		fmt.Println(err)
		os.Exit(2)
	}
	purged := floor("purged:")
	if before != 3 || deleted != 3 || purged != 10 {
		fmt.Println("the behaviour is another than described")
		os.Exit(1)
	}
}
GO
go get github.com/nats-io/nats-server/v2@v2.15.2 github.com/nats-io/nats.go@v1.55.0 >/dev/null 2>&1
go mod tidy >/dev/null 2>&1
go run . "$work/store"
