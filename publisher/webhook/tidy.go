package webhook

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"usher.example/eventstore"
	"usher.example/subscription"
)

// tidy removes what is left of webhooks that were deleted, which Delete can't: a worker may still be at them then.
func (w *Worker) tidy(ctx context.Context) error {
	return errors.Join(w.tidyLeases(ctx), w.tidyConsumers(ctx))
}

// tidyLeases removes the leases of deleted webhooks that nobody holds any more.
func (w *Worker) tidyLeases(ctx context.Context) error {
	_, err := w.Service.DB.Exec(ctx, `
		DELETE FROM leases WHERE name LIKE '`+leasePrefix+`%' AND expires_at < `+eventstore.Clock(w.Service.DB.Dialect())+`
		   AND NOT EXISTS (SELECT 1 FROM webhooks w WHERE leases.name = '`+leasePrefix+`' || w.id)`)
	if err != nil {
		return fmt.Errorf("remove leases: %w", err)
	}
	return nil
}

// tidyConsumers deletes the durable consumers of deleted webhooks. One that can't be deleted keeps none of the others.
func (w *Worker) tidyConsumers(ctx context.Context) error {
	name := cmp.Or(w.Stream, subscription.Stream)
	stream, err := w.JetStream.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for consumers: %w", err)
	}
	// The consumers first: one that is seen here had its webhook by then.
	var names []string
	consumers := stream.ConsumerNames(ctx)
	for name := range consumers.Name() {
		if strings.HasPrefix(name, consumerPrefix) {
			names = append(names, name)
		}
	}
	if err := consumers.Err(); err != nil {
		return fmt.Errorf("look for consumers: %w", err)
	}
	if len(names) == 0 {
		return nil
	}
	hooks, err := w.Service.query(ctx, w.Service.DB, withoutSecrets, "")
	if err != nil {
		return err
	}
	used := make(map[string]bool, len(hooks))
	for _, hook := range hooks {
		used[w.Service.ConsumerName(hook.ID)] = true
	}
	var failed eventstore.Failures
	for _, consumer := range names {
		if used[consumer] {
			continue
		}
		err := w.JetStream.DeleteConsumer(ctx, name, consumer)
		if errors.Is(err, jetstream.ErrConsumerNotFound) {
			err = nil
		}
		if err != nil {
			err = fmt.Errorf("delete the consumer %s: %w", consumer, err)
		}
		if !failed.Add(ctx, err) {
			break
		}
	}
	return failed.Err()
}
