package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"usher.example/identity"
	"usher.example/publisher/webhook"
)

// newWebhooks is the service of webhooks, of which there is one in a process: it tells the worker of what it changes.
func (d *deployment) newWebhooks() *webhook.Service {
	c := d.config
	return webhook.New(webhook.Config{
		Log: d.log, DB: d.store, Source: c.PublicURL, OmitPersonal: c.StreamPersonal == "omit", Allow: d.webhookNetworks(),
		Timeout:        time.Duration(c.WebhookTimeout) * time.Second,
		Retries:        c.WebhookRetries,
		RetryDelay:     time.Duration(c.WebhookRetryDelay) * time.Second,
		FailuresInARow: c.WebhookInARow,
		Logger:         d.logger,
	})
}

func (d *deployment) webhookNetworks() []netip.Prefix {
	allow, err := parseNetworks(d.config.WebhookAllow)
	if err != nil { // the config was checked
		panic(err)
	}
	return allow
}

// outbound makes requests to where clients say that something of theirs is.
func (d *deployment) outbound() http.RoundTripper { return webhook.Transport(d.webhookNetworks()) }

func (d *deployment) webhookWorker(conn *nats.Conn) (*webhook.Worker, error) {
	js, err := jetstream.New(conn)
	if err != nil {
		return nil, err
	}
	return &webhook.Worker{Service: d.webhooks, JetStream: js, Holder: d.holder, Metrics: webhook.NewMetrics(), Tracer: d.tracer}, nil
}

func webhooksCommand() *cobra.Command {
	return group("webhooks", "Send events to HTTP endpoints", webhooksRunCommand(), webhooksListCommand(), webhooksAddCommand(),
		webhooksDeliveriesCommand(), webhooksRedriveCommand(), webhooksTestCommand(), webhooksEnableCommand(), webhooksDisableCommand(),
		webhooksRotateCommand(), webhooksRemoveCommand())
}

func webhooksRunCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "run",
		Short: "Send the events of all webhooks",
		Long: "Send the events of all webhooks, until interrupted. Several workers may run: for each webhook one works, the others\n" +
			"stand by.",
		Example: "  usher webhooks run",
	}
	return onDeployment(c, func(cmd *cobra.Command, d *deployment, _ []string) error {
		return d.work(cmd, process{webhooks: true})
	})
}

func webhooksListCommand() *cobra.Command {
	c := &cobra.Command{Use: "list", Short: "List webhooks, and how they are", Example: "  usher webhooks list"}
	return onDeployment(c, func(cmd *cobra.Command, d *deployment, _ []string) error {
		list, err := d.webhooks.List(cmd.Context(), uuid.Nil, webhook.MaxWebhooks)
		if err != nil {
			return err
		}
		rows := make([][]any, len(list))
		for i, h := range list {
			rows[i] = []any{h.ID, h.URL, strings.Join(h.Events, ","), statusText(h), h.Position, h.Pending, h.Dead}
		}
		return tell(cmd, list, table([]string{"ID", "URL", "EVENTS", "STATUS", "POSITION", "PENDING", "DEAD"}, rows))
	})
}

// statusText is how a webhook is, in a few words.
func statusText(h webhook.Webhook) string {
	switch {
	case h.Status == webhook.StatusDisabled:
		return fmt.Sprintf("disabled (%s)", h.Reason)
	case !h.FailingSince.IsZero():
		return "failing since " + h.FailingSince.Format(time.RFC3339)
	}
	return string(h.Status)
}

func webhooksAddCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "add URL",
		Short: "Have events sent to an endpoint",
		Long: "Have events sent to an endpoint, as CloudEvents in structured JSON, signed as Standard Webhooks says. The secret\n" +
			"that they are signed with is printed, and not shown again.",
		Example: "  usher webhooks add https://hooks.example.org/usher --events 'user.*'",
	}
	events := c.Flags().StringSlice("events", nil, "event types, or prefixes such as user.*; every event when left out")
	from := c.Flags().Int64("from", 0, "the position of the first event; those that are appended from now on when left out")
	return onDeployment(c, func(cmd *cobra.Command, d *deployment, args []string) error {
		hook, secret, err := d.webhooks.Create(cmd.Context(), webhook.Wish{URL: args[0], Events: *events, From: *from})
		if err != nil {
			return explainWebhook(err)
		}
		return tell(cmd, withSecret{hook, secret.Reveal()}, text("webhook  %s\nsecret   %s", hook.ID, secret.Reveal()))
	})
}

// withSecret is a webhook with the secret that its events are signed with, which is shown once.
type withSecret struct {
	webhook.Webhook
	Secret string `json:"secret"`
}

func webhooksDeliveriesCommand() *cobra.Command {
	c := &cobra.Command{Use: "deliveries ID", Short: "List what was sent to a webhook and what is to be, the newest first",
		Example: "  usher webhooks deliveries ID --status dead"}
	status := c.Flags().String("status", "", "pending, delivered or dead")
	limit := c.Flags().Int("limit", webhook.DefaultLimit, "how many at most")
	before := c.Flags().Int64("before", 0, "only those of positions before this one")
	return onWebhook(c, func(cmd *cobra.Command, d *deployment, id uuid.UUID, _ []string) error {
		list, err := d.webhooks.Deliveries(cmd.Context(), id, webhook.DeliveryFilter{
			Status: webhook.DeliveryStatus(*status), Limit: *limit, Before: *before,
		})
		if err != nil {
			return explainWebhook(err)
		}
		rows := make([][]any, len(list))
		for i, v := range list {
			next := ""
			if !v.NextAttemptAt.IsZero() {
				next = v.NextAttemptAt.Format(time.RFC3339)
			}
			rows[i] = []any{v.ID, v.Position, v.Type, v.Status, v.Attempts, next, v.Reason}
		}
		return tell(cmd, list, table([]string{"ID", "POSITION", "TYPE", "STATUS", "ATTEMPTS", "NEXT", "REASON"}, rows))
	})
}

func webhooksRedriveCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "redrive ID [DELIVERY…]",
		Short:   "Send dead letters again",
		Long:    "Send the dead letters of a webhook again: the named deliveries, or all of them.",
		Example: "  usher webhooks redrive ID",
	}
	var deliveries []uuid.UUID
	c.PreRunE = func(_ *cobra.Command, args []string) error {
		for _, text := range args[1:] {
			delivery, err := uuid.Parse(text)
			if err != nil || delivery == uuid.Nil {
				return fmt.Errorf("%w: %q is not the id of a delivery; expected a UUID", errUse, text)
			}
			deliveries = append(deliveries, delivery)
		}
		if len(deliveries) == 0 {
			deliveries = []uuid.UUID{uuid.Nil} // all of them
		}
		return nil
	}
	return onWebhook(c, func(cmd *cobra.Command, d *deployment, id uuid.UUID, _ []string) error {
		redriven := 0
		for _, delivery := range deliveries {
			n, err := d.webhooks.Redrive(cmd.Context(), id, delivery)
			if err != nil {
				return explainWebhook(err)
			}
			redriven += n
		}
		line := text("%d pending again", redriven)
		if redriven == 0 {
			line = text("there are no dead letters to send again")
		}
		return tell(cmd, map[string]int{"redriven": redriven}, line)
	})
}

// errNotDelivered: a test failed, and why was printed.
var errNotDelivered = errors.New("the test was not delivered")

func webhooksTestCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "test ID",
		Short:   "Send a test to a webhook now",
		Long:    "Send an event of the type webhook.test to a webhook now, and say what came of it. The exit code is 1 if it was not taken.",
		Example: "  usher webhooks test ID",
	}
	return onWebhook(c, func(cmd *cobra.Command, d *deployment, id uuid.UUID, _ []string) error {
		trial, err := d.webhooks.Test(cmd.Context(), id, uuid.Nil)
		if err != nil {
			return explainWebhook(err)
		}
		line := text("delivered in %v s: answered %d", trial.Took, trial.Status)
		if !trial.Delivered {
			line = text("not delivered after %v s: %s\n%s", trial.Took, trial.Reason, trial.Response)
		}
		if err = tell(cmd, trial, line); err == nil && !trial.Delivered {
			err = errNotDelivered
		}
		return err
	})
}

func webhooksEnableCommand() *cobra.Command {
	c := &cobra.Command{Use: "enable ID", Short: "Send to a webhook again that was disabled, from where it stopped", Example: "  usher webhooks enable ID"}
	return webhookStatusCommand(c, webhook.StatusActive)
}

func webhooksDisableCommand() *cobra.Command {
	c := &cobra.Command{Use: "disable ID", Short: "Send nothing more to a webhook until it is enabled", Example: "  usher webhooks disable ID"}
	return webhookStatusCommand(c, webhook.StatusDisabled)
}

// webhookStatusCommand is a command that makes a webhook be of a status.
func webhookStatusCommand(c *cobra.Command, to webhook.Status) *cobra.Command {
	return onWebhook(c, func(cmd *cobra.Command, d *deployment, id uuid.UUID, _ []string) error {
		before, err := d.webhooks.Get(cmd.Context(), id)
		if err != nil {
			return explainWebhook(err)
		}
		hook := before
		if before.Status != to {
			changed, err := d.webhooks.Update(cmd.Context(), id, webhook.Change{Status: &to}, byOperator())
			if err != nil {
				return explainWebhook(err)
			}
			hook = changed.Webhook
			d.pingRelay()
		}
		line := text("%s is %s", id, statusText(hook))
		if before.Status == to {
			line = text("%s is %s already; nothing was changed", id, statusText(hook))
		}
		return tell(cmd, hook, line)
	})
}

func webhooksRotateCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "rotate ID",
		Short: "Sign what is sent to a webhook with another secret, which is shown once",
		Long: "Sign what is sent to a webhook with another secret, which is printed and not shown again. For a day every request is\n" +
			"signed with the one before too, so that the endpoint can take either.",
		Example: "  usher webhooks rotate ID",
	}
	return onWebhook(c, func(cmd *cobra.Command, d *deployment, id uuid.UUID, _ []string) error {
		changed, err := d.webhooks.Update(cmd.Context(), id, webhook.Change{RotateSecret: true}, byOperator())
		if err != nil {
			return explainWebhook(err)
		}
		return tell(cmd, withSecret{changed.Webhook, changed.Secret.Reveal()}, text("webhook  %s\nsecret   %s", id, changed.Secret.Reveal()))
	})
}

func webhooksRemoveCommand() *cobra.Command {
	c := &cobra.Command{Use: "remove ID", Short: "Delete a webhook and its deliveries", Example: "  usher webhooks remove ID"}
	consent := needsConsent(c)
	return onWebhook(c, func(cmd *cobra.Command, d *deployment, id uuid.UUID, _ []string) error {
		hook, err := d.webhooks.Get(cmd.Context(), id)
		if err != nil {
			return explainWebhook(err)
		}
		if err := consent.ask(cmd, fmt.Sprintf("Delete the webhook to %s with its deliveries, %d of them pending and %d dead?", hook.URL, hook.Pending, hook.Dead)); err != nil {
			return err
		}
		if err := d.webhooks.Delete(cmd.Context(), id); err != nil {
			return explainWebhook(err)
		}
		return tell(cmd, map[string]uuid.UUID{"removed": id}, text("removed %s", id))
	})
}

// onWebhook is onDeployment for a command that is about one webhook, its first argument.
func onWebhook(c *cobra.Command, do func(cmd *cobra.Command, d *deployment, id uuid.UUID, args []string) error) *cobra.Command {
	c.Args = func(_ *cobra.Command, args []string) error {
		if _, err := uuid.Parse(args[0]); err != nil {
			return fmt.Errorf("%q is not the id of a webhook; expected a UUID", args[0])
		}
		return nil
	}
	return onDeployment(c, func(cmd *cobra.Command, d *deployment, args []string) error {
		return do(cmd, d, uuid.MustParse(args[0]), args[1:])
	})
}

// explainWebhook shows a refusal without its code, and as wrong use where it is one.
func explainWebhook(err error) error {
	var refused *identity.Error
	if !errors.As(err, &refused) {
		return err
	}
	switch refused.Code {
	case identity.CodeInvalidURL, identity.CodeUnknownEvent, identity.CodeInvalidRequest:
		return fmt.Errorf("%w: %s", errUse, refused.Detail)
	}
	return plainError{refused}
}

// checkWebhooks looks at every webhook.
func checkWebhooks(ctx context.Context, d *deployment, r *report) {
	list, err := d.webhooks.List(ctx, uuid.Nil, webhook.MaxWebhooks)
	if err != nil {
		r.fail("webhooks", err.Error(), nil)
		return
	}
	r.ok("webhooks", map[string]any{"webhooks": len(list)})
	for _, h := range list {
		name := "webhook " + h.ID.String()
		age, err := d.ageAfter(ctx, h.Position)
		figures := map[string]any{"position": h.Position, "age_seconds": seconds(age), "pending": h.Pending, "dead": h.Dead, "status": h.Status}
		switch {
		case err != nil:
			r.fail(name, err.Error(), nil)
		case h.Status == webhook.StatusDisabled && h.Reason != identity.WebhookOperator:
			r.warn(name, "it was disabled, because it is "+h.Reason+"; mend the endpoint and enable it, or remove it", figures)
		case h.Status == webhook.StatusDisabled:
			r.ok(name, figures)
		case !h.Running:
			r.fail(name, "no process sends to it; start `usher webhooks run` or `usher serve --with webhooks`", figures)
		case h.Dead >= webhook.MaxDead:
			r.fail(name, "it takes no more events until dead letters are redriven; see `usher webhooks deliveries --status dead`", figures)
		case !h.FailingSince.IsZero():
			r.warn(name, "nothing but failure since "+h.FailingSince.Format(time.RFC3339)+"; see `usher webhooks test`", figures)
		case h.Dead > 0:
			r.warn(name, fmt.Sprintf("%s; `usher webhooks redrive %s` sends what is dead again", counted(h.Dead, "dead letter", "dead letters"), h.ID), figures)
		case age > oldEvent:
			r.warn(name, "it is behind", figures)
		default:
			r.ok(name, figures)
		}
	}
}
