#!/usr/bin/env bash
# One would guess: the channel of a ConsumeContext's Closed() is closed once the last handler has returned, whenever one asks for it. Its
#   comment says so: "when the channel is closed, no more messages will be received and processing is complete".
# What happens: only the channel that was asked for before Stop() waits for the handler. Asked for after Stop(), as in `c.Stop();
#   <-c.Closed()`, it is closed already while the handler runs, with a pull consumer and with a push consumer alike.
# Why it matters: whoever waits for it and then closes what the handler uses, a channel or a transaction, has the handler use it
#   afterwards: a panic, or work that is done after its end was told. usher's subscription waits for its handler by a lock of its own.
set -euo pipefail
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
cd "$work"

cat > go.mod <<'GO'
module example.org/closed

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

func within(closed <-chan struct{}, wait time.Duration) bool {
	select {
	case <-closed:
		return true
	case <-time.After(wait):
		return false
	}
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
	conn := must(nats.Connect(s.ClientURL()))
	js := must(jetstream.New(conn))
	stream := must(js.CreateStream(ctx, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}}))
	must(js.Publish(ctx, "s", nil))
	fmt.Println("nats-server", server.VERSION, "nats.go", nats.Version)

	pull := must(stream.CreateConsumer(ctx, jetstream.ConsumerConfig{}))
	push := must(stream.CreatePushConsumer(ctx, jetstream.ConsumerConfig{DeliverSubject: conn.NewInbox()}))
	other := false
	for _, c := range []struct {
		name    string
		consume func(jetstream.MessageHandler) (jetstream.ConsumeContext, error)
	}{
		{"pull", func(h jetstream.MessageHandler) (jetstream.ConsumeContext, error) { return pull.Consume(h) }},
		{"push", func(h jetstream.MessageHandler) (jetstream.ConsumeContext, error) { return push.Consume(h) }},
	} {
		began, goOn, returned := make(chan struct{}), make(chan struct{}), make(chan struct{})
		consuming := must(c.consume(func(jetstream.Msg) {
			close(began)
			<-goOn
			close(returned)
		}))
		<-began
		before := consuming.Closed()
		consuming.Stop()
		// The handler can't return before it is let go on below.
		early, late := within(before, 3*time.Second), within(consuming.Closed(), 3*time.Second)
		close(goOn)
		<-returned
		after := within(before, 30*time.Second)
		fmt.Printf("%s: while the handler runs, the channel from before Stop is closed: %v, one from after it: %v; once it has returned, the first: %v\n", c.name, early, late, after)
		other = other || early || !late || !after
	}
	if other {
		fmt.Println("the behaviour is another than described")
		os.Exit(1)
	}
}
GO
go get github.com/nats-io/nats-server/v2@v2.15.2 github.com/nats-io/nats.go@v1.55.0 >/dev/null 2>&1
go mod tidy >/dev/null 2>&1
go run . "$work/store"
