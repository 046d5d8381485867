#!/usr/bin/env bash
# One would guess: to see whether a NATS user may pull from a durable consumer, one sends $JS.API.CONSUMER.MSG.NEXT a body that is no
#   request, such as a word, and has it refused as malformed.
# What happens: a word is a request for one message, as an empty body, {} and [] are: the next message is delivered to whoever probed,
#   and its owner gets it no sooner than the ack wait is over. Only what begins with { and is no JSON is answered 400, before anything
#   else is done.
# Why it matters: a check of permissions that guesses takes other people's messages. usher's sends "{".
set -euo pipefail
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
cd "$work"

cat > go.mod <<'GO'
module example.org/pulling

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
	conn := must(nats.Connect(s.ClientURL()))
	js := must(jetstream.New(conn))
	stream := must(js.CreateStream(ctx, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}}))
	must(js.Publish(ctx, "s", []byte("a message")))
	fmt.Println("nats-server", server.VERSION, "nats.go", nats.Version)
	other := false
	for i, body := range []string{"", "{}", "a word", "[]", "{"} {
		durable := must(stream.CreateConsumer(ctx, jetstream.ConsumerConfig{Durable: fmt.Sprintf("d%d", i), AckPolicy: jetstream.AckExplicitPolicy}))
		answer := must(conn.Request(fmt.Sprintf("$JS.API.CONSUMER.MSG.NEXT.S.d%d", i), []byte(body), 10*time.Second))
		taken := must(durable.Info(ctx)).NumAckPending
		fmt.Printf("body %-8q answer: status %-4q data %-12q taken from the owner: %d\n", body, answer.Header.Get("Status"), answer.Data, taken)
		refused := answer.Header.Get("Status") == "400" && taken == 0
		other = other || refused != (body == "{") || !refused && taken != 1
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
