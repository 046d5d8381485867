// Command listen shows the events of usher as they come over NATS, as any client gets them: subject, headers, body. It is for
// looking: a service that must miss nothing has a durable consumer, as the example copy has.
//
//	listen -nats nats://127.0.0.1:4222
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"maps"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/nats-io/nats.go"
)

func main() {
	server := flag.String("nats", "nats://127.0.0.1:4222", "the NATS server, with user and password where it asks for them")
	subject := flag.String("subject", "usher.v1.>", "which events: usher.v1.<shard>.<event type>, with the wildcards of NATS")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := listen(ctx, *server, *subject); err != nil {
		log.Fatal(err)
	}
}

// listen shows what comes until ctx ends.
func listen(ctx context.Context, server, subject string) error {
	conn, err := nats.Connect(server, nats.Name("listen"), nats.MaxReconnects(-1))
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Subscribe(subject, show); err != nil {
		return err
	}
	if err := conn.Flush(); err != nil { // from here on nothing is missed
		return err
	}
	fmt.Printf("listening to %s at %s\n", subject, conn.ConnectedUrlRedacted())
	<-ctx.Done()
	return nil
}

func show(m *nats.Msg) {
	fmt.Printf("\n%s\n", m.Subject)
	for _, name := range slices.Sorted(maps.Keys(m.Header)) {
		for _, value := range m.Header[name] {
			fmt.Printf("%s: %s\n", name, value)
		}
	}
	fmt.Printf("\n%s\n", m.Data)
}
