package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"usher.example/eventstore"
	"usher.example/identity/mail"
	"usher.example/publisher"
	"usher.example/publisher/webhook"
)

// refusedPull asks a durable consumer for messages in a way that every server answers with 400, since it is no JSON, before it does
// anything else. So nothing is delivered, no request of the owner's is touched, and whoever may not ask is told so all the same.
const refusedPull = "{"

// checkPulls tries whether the NATS user may read through durable consumers. Without that permission the process that does is given
// nothing, and all else looks well.
func checkPulls(consumers func(context.Context, *deployment) ([]string, error)) func(context.Context, *deployment, *report) {
	return func(ctx context.Context, d *deployment, r *report) {
		names, err := consumers(ctx, d)
		if err != nil || len(names) == 0 || d.natsURL == "" { // which the check beside this tells, and that of the broker
			return
		}
		refused := make(chan error, len(names)+1) // one for each request, and one for the inbox
		conn, err := d.connectNow(nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			if errors.Is(err, nats.ErrPermissionViolation) {
				refused <- err
			}
		}))
		if err != nil { // which that of the broker counts as a failure
			r.warn("pull", "whether the NATS user may read events could not be tried: "+err.Error(), nil)
			return
		}
		defer conn.Close()
		lacking, err := tryPulls(ctx, conn, names, refused)
		switch {
		case errors.Is(err, nats.ErrPermissionViolation):
			r.fail("pull", d.lacks(err), nil)
		case err != nil:
			r.fail("pull", "NATS does not answer: "+err.Error(), nil)
		case len(lacking) > 0:
			r.fail("pull", fmt.Sprintf("%s; without that a process is given no events: permit it, see deploy/nats/nats.conf", d.lacks(lacking...)), nil)
		default:
			r.ok("pull", map[string]any{"consumers": len(names)})
		}
	}
}

// tryPulls asks each of the durable consumers, one after the other, and answers with what the server refused. An error that is
// nats.ErrPermissionViolation tells that no answer can come at all.
func tryPulls(ctx context.Context, conn *nats.Conn, consumers []string, refused <-chan error) (lacking []error, err error) {
	answers, inbox := make(chan *nats.Msg, len(consumers)), conn.NewRespInbox()
	if _, err := conn.ChanSubscribe(inbox, answers); err != nil {
		return nil, err
	}
	for _, name := range consumers {
		subject := "$JS.API.CONSUMER.MSG.NEXT." + publisher.DefaultStream + "." + name
		if err := conn.PublishRequest(subject, inbox, []byte(refusedPull)); err != nil {
			return nil, err
		}
		select {
		case <-answers: // also where there is no such durable consumer yet
		case err := <-refused:
			if !strings.Contains(err.Error(), subject) {
				return nil, err
			}
			lacking = append(lacking, err)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return lacking, nil
}

// projectionPulls are the durable consumers of the read models.
func projectionPulls(context.Context, *deployment) ([]string, error) {
	return projectionConsumers(), nil
}

// mailPulls is the durable consumer of mail, if that was ever set up.
func mailPulls(ctx context.Context, d *deployment) ([]string, error) {
	_, err := mail.ReadStatus(ctx, d.store)
	if errors.Is(err, eventstore.ErrNoRows) {
		return nil, nil
	}
	return []string{mail.Consumer}, err
}

// webhookPulls are the durable consumers of the webhooks that are active.
func webhookPulls(ctx context.Context, d *deployment) (names []string, err error) {
	list, err := d.webhooks.List(ctx, uuid.Nil, webhook.MaxWebhooks)
	for _, h := range list {
		if h.Status != webhook.StatusDisabled {
			names = append(names, d.webhooks.ConsumerName(h.ID))
		}
	}
	return names, err
}
