package publisher

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go"

	"usher.example/eventstore"
)

// AppendedSubject is the core NATS subject on which a process says that it appended events. The message is empty.
const AppendedSubject = "usher.appended"

// Announce tells the relay of another process, by core NATS, of every commit of this process's log, until ctx ends.
// Commits that come while one is being announced share the next announcement. What can't be announced the relay's poll
// finds, so Announce never fails.
func Announce(ctx context.Context, log *eventstore.Log, conn *nats.Conn) error {
	committed, stop := log.Watch()
	defer stop()
	for {
		select {
		case <-committed:
			_ = Ping(conn)
		case <-ctx.Done():
			return nil
		}
	}
}

// Ping wakes the relay, wherever it runs. It fails while the connection is down; the relay then polls.
func Ping(conn *nats.Conn) error {
	if err := conn.Publish(AppendedSubject, nil); err != nil {
		return fmt.Errorf("ping the relay: %w", err)
	}
	return nil
}
