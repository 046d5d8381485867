// Command watermill relays events with Watermill's forwarder, for the bench row of that name to compare usher's relay
// with. It is a module of its own, so that usher itself does not depend on Watermill.
//
//	watermill copy DSN            writes the events of usher's log at DSN into an outbox table there
//	watermill forward DSN NATS    once there is a line on stdin, publishes what is in the table until stdin ends
//
// The forwarder is set up as Watermill's documents say, but that it reads 1,000 rows at once in the place of 100, which
// makes it faster.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-nats/v2/pkg/nats"
	"github.com/ThreeDotsLabs/watermill-sql/v4/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/components/forwarder"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	outbox = "events"
	group  = "forwarder"
	// atOnce is how many rows are written, and read, by one statement.
	atOnce = 1000
	source = "https://users.example.org"
)

var quiet = watermill.NopLogger{}

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "watermill:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	switch {
	case len(args) == 2 && args[0] == "copy":
		return copyLog(ctx, args[1])
	case len(args) == 3 && args[0] == "forward":
		return forward(ctx, args[1], args[2])
	}
	return errors.New("copy DSN, or forward DSN NATS")
}

func schema() sql.DefaultPostgreSQLSchema {
	return sql.DefaultPostgreSQLSchema{SubscribeBatchSize: atOnce}
}

// copyLog writes the log in pages, each in one transaction.
func copyLog(ctx context.Context, dsn string) error {
	pool, err := pgxpool.New(ctx, dsn)
	if err != nil {
		return err
	}
	defer pool.Close()
	subscriber, err := newSubscriber(pool)
	if err != nil {
		return err
	}
	if err := errors.Join(subscriber.SubscribeInitialize(outbox), subscriber.Close()); err != nil {
		return err
	}
	for after := int64(0); ; {
		last := after
		err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			page, err := readPage(ctx, tx, after)
			if err != nil || len(page) == 0 {
				return err
			}
			last = page[len(page)-1].position
			return writePage(tx, page)
		})
		if err != nil || last == after {
			return err
		}
		after = last
	}
}

// event is one of the log, as a message to a subject.
type event struct {
	position int64
	subject  string
	*message.Message
}

// readPage reads the events after a position, with the subject and the headers that usher's relay gives them.
func readPage(ctx context.Context, tx pgx.Tx, after int64) ([]event, error) {
	rows, err := tx.Query(ctx, `SELECT position, 'usher.v1.' || right(subject::text, 2) || '.' || type, event_id::text, data::text, json_build_object(
			'ce-specversion', '1.0', 'ce-id', event_id, 'ce-source', $3::text, 'ce-type', type, 'ce-time', recorded_at, 'ce-subject', subject,
			'ce-dataschema', 'urn:usher:event:' || type || ':v' || schema_version, 'ce-position', position::text, 'ce-streamid', stream,
			'ce-streamkind', kind, 'ce-streamversion', version::text, 'ce-correlationid', metadata->>'correlation_id', 'ce-actor', metadata->>'actor',
			'content-type', 'application/json')
		FROM events WHERE position > $1 ORDER BY position LIMIT $2`, after, atOnce, source)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (e event, err error) {
		var id, data string
		var headers map[string]string
		err = row.Scan(&e.position, &e.subject, &id, &data, &headers)
		e.Message = message.NewMessage(id, []byte(data))
		e.Metadata = headers
		return e, err
	})
}

// writePage writes messages, those to one subject that follow each other by one statement.
func writePage(tx pgx.Tx, page []event) error {
	table, err := sql.NewPublisher(sql.TxFromPgx(tx), sql.PublisherConfig{SchemaAdapter: schema()}, quiet)
	if err != nil {
		return err
	}
	publisher := forwarder.NewPublisher(table, forwarder.PublisherConfig{ForwarderTopic: outbox})
	for len(page) > 0 {
		subject := page[0].subject
		var run []*message.Message
		for len(page) > 0 && page[0].subject == subject {
			run = append(run, page[0].Message)
			page = page[1:]
		}
		if err := publisher.Publish(subject, run...); err != nil {
			return err
		}
	}
	return nil
}

func newSubscriber(pool *pgxpool.Pool) (*sql.Subscriber, error) {
	return sql.NewSubscriber(sql.BeginnerFromPgx(pool), sql.SubscriberConfig{
		ConsumerGroup: group, SchemaAdapter: schema(), OffsetsAdapter: sql.DefaultPostgreSQLOffsetsAdapter{}, InitializeSchema: true,
	}, quiet)
}

// forward forgets what was forwarded before, and forwards.
func forward(ctx context.Context, dsn, broker string) error {
	pool, err := pgxpool.New(ctx, dsn)
	if err != nil {
		return err
	}
	defer pool.Close()
	offsets := sql.DefaultPostgreSQLOffsetsAdapter{}.MessagesOffsetsTable(outbox)
	if _, err := pool.Exec(ctx, "DELETE FROM "+offsets); err != nil {
		return err
	}
	subscriber, err := newSubscriber(pool)
	if err != nil {
		return err
	}
	publisher, err := nats.NewPublisher(nats.PublisherConfig{URL: broker}, quiet)
	if err != nil {
		return err
	}
	f, err := forwarder.NewForwarder(subscriber, publisher, quiet, forwarder.Config{ForwarderTopic: outbox})
	if err != nil {
		return err
	}
	stdin := bufio.NewReader(os.Stdin)
	fmt.Println("ready")
	if _, err := stdin.ReadString('\n'); err != nil {
		return fmt.Errorf("wait for the beginning: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	_, err = io.Copy(io.Discard, stdin)
	return errors.Join(err, f.Close(), <-ended, subscriber.Close(), publisher.Close())
}
