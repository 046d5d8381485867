package main

import (
	"context"
	"errors"
	"fmt"
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
	allow, err := parseNetworks(c.WebhookAllow)
	if err != nil { // the config was checked
		panic(err)
	}
	return webhook.New(webhook.Config{
		Log: d.log, DB: d.store, Source: c.PublicURL, OmitPersonal: c.StreamPersonal == "omit", Allow: allow,
		Timeout:        time.Duration(c.WebhookTimeout) * time.Second,
		Retries:        c.WebhookRetries,
		RetryDelay:     time.Duration(c.WebhookRetryDelay) * time.Second,
		FailuresInARow: c.WebhookInARow,
		Logger:         d.logger,
	})
}

func (d *deployment) webhookWorker(conn *nats.Conn) (*webhook.Worker, error) {
	js, err := jetstream.New(conn)
	if err != nil {
		return nil, err
	}
	return &webhook.Worker{Service: d.webhooks, JetStream: js, Holder: d.holder, Metrics: webhook.NewMetrics(), Tracer: d.tracer}, nil
}

func webhooksCommand() *cobra.Command {
	return group("webhooks", "Send events to HTTP endpoints", webhooksRunCommand(), webhooksListCommand(), webhooksAddCommand(),
		webhooksDeliveriesCommand(), webhooksRedriveCommand(), webhooksTestCommand(), webhooksRemoveCommand())
}

func webhooksRunCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "run",
		Short: "Send the events of all webhooks",
		Long: "Send the events of all webhooks, until interrupted. Several workers may run: for each webhook one works, the others\n" +
			"stand by.",
		Args: cobra.NoArgs,
	}
	dir := dirFlag(c)
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		d, err := open(cmd, *dir)
		if err != nil {
			return err
		}
		defer d.close()
		conn, err := d.connect()
		if err != nil {
			return err
		}
		defer conn.Close()
		l, err := d.listenMetrics()
		if err != nil {
			return err
		}
		return d.serve(cmd.Context(), process{webhooks: true, conn: conn, listeners: l})
	}
	return c
}

func webhooksListCommand() *cobra.Command {
	c := &cobra.Command{Use: "list", Short: "List webhooks, and how they are", Args: cobra.NoArgs}
	dir, asJSON := dirFlag(c), jsonFlag(c)
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		d, err := open(cmd, *dir)
		if err != nil {
			return err
		}
		defer d.close()
		list, err := d.webhooks.List(cmd.Context(), uuid.Nil, webhook.MaxWebhooks)
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), list)
		}
		rows := make([][]any, len(list))
		for i, h := range list {
			rows[i] = []any{h.ID, h.URL, strings.Join(h.Events, ","), statusText(h), h.Position, h.Pending, h.Dead}
		}
		return printTable(cmd.OutOrStdout(), []string{"ID", "URL", "EVENTS", "STATUS", "POSITION", "PENDING", "DEAD"}, rows)
	}
	return c
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
		Args: cobra.ExactArgs(1),
	}
	dir, asJSON := dirFlag(c), jsonFlag(c)
	events := c.Flags().StringSlice("events", nil, "event types, or prefixes such as user.*; every event when left out")
	from := c.Flags().Int64("from", 0, "the position of the first event; those that are appended from now on when left out")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		d, err := open(cmd, *dir)
		if err != nil {
			return err
		}
		defer d.close()
		hook, secret, err := d.webhooks.Create(cmd.Context(), webhook.Wish{URL: args[0], Events: *events, From: *from})
		if err != nil {
			return explainWebhook(err)
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), struct {
				webhook.Webhook
				Secret string `json:"secret"`
			}{hook, secret.Reveal()})
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "webhook  %s\nsecret   %s\n", hook.ID, secret.Reveal())
		return err
	}
	return c
}

func webhooksDeliveriesCommand() *cobra.Command {
	c := &cobra.Command{Use: "deliveries ID", Short: "List what was sent to a webhook and what is to be, the newest first", Args: cobra.ExactArgs(1)}
	dir, asJSON := dirFlag(c), jsonFlag(c)
	status := c.Flags().String("status", "", "pending, delivered or dead")
	limit := c.Flags().Int("limit", webhook.DefaultLimit, "how many at most")
	before := c.Flags().Int64("before", 0, "only those of positions before this one")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		d, id, err := openWebhook(cmd, *dir, args[0])
		if err != nil {
			return err
		}
		defer d.close()
		list, err := d.webhooks.Deliveries(cmd.Context(), id, webhook.DeliveryFilter{
			Status: webhook.DeliveryStatus(*status), Limit: *limit, Before: *before,
		})
		if err != nil {
			return explainWebhook(err)
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), list)
		}
		rows := make([][]any, len(list))
		for i, v := range list {
			next := ""
			if !v.NextAttemptAt.IsZero() {
				next = v.NextAttemptAt.Format(time.RFC3339)
			}
			rows[i] = []any{v.ID, v.Position, v.Type, v.Status, v.Attempts, next, v.Reason}
		}
		return printTable(cmd.OutOrStdout(), []string{"ID", "POSITION", "TYPE", "STATUS", "ATTEMPTS", "NEXT", "REASON"}, rows)
	}
	return c
}

func webhooksRedriveCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "redrive ID [DELIVERY…]",
		Short: "Send dead letters again",
		Long:  "Send the dead letters of a webhook again: the named deliveries, or all of them.",
		Args:  cobra.MinimumNArgs(1),
	}
	dir, asJSON := dirFlag(c), jsonFlag(c)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		deliveries := []uuid.UUID{uuid.Nil}
		if len(args) > 1 {
			deliveries = nil
		}
		for _, text := range args[1:] {
			delivery, err := uuid.Parse(text)
			if err != nil || delivery == uuid.Nil {
				return fmt.Errorf("%w: %q is not the id of a delivery; expected a UUID", errUse, text)
			}
			deliveries = append(deliveries, delivery)
		}
		d, id, err := openWebhook(cmd, *dir, args[0])
		if err != nil {
			return err
		}
		defer d.close()
		redriven := 0
		for _, delivery := range deliveries {
			n, err := d.webhooks.Redrive(cmd.Context(), id, delivery)
			if err != nil {
				return explainWebhook(err)
			}
			redriven += n
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), map[string]int{"redriven": redriven})
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d pending again\n", redriven)
		return err
	}
	return c
}

// errNotDelivered: a test failed, and why was printed.
var errNotDelivered = errors.New("the test was not delivered")

func webhooksTestCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "test ID",
		Short: "Send a test to a webhook now",
		Long:  "Send an event of the type webhook.test to a webhook now, and say what came of it. The exit code is 1 if it was not taken.",
		Args:  cobra.ExactArgs(1),
	}
	dir, asJSON := dirFlag(c), jsonFlag(c)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		d, id, err := openWebhook(cmd, *dir, args[0])
		if err != nil {
			return err
		}
		defer d.close()
		trial, err := d.webhooks.Test(cmd.Context(), id, uuid.Nil)
		if err != nil {
			return explainWebhook(err)
		}
		switch {
		case *asJSON:
			err = printJSON(cmd.OutOrStdout(), trial)
		case trial.Delivered:
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "delivered in %v s: answered %d\n", trial.Took, trial.Status)
		default:
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "not delivered after %v s: %s\n%s", trial.Took, trial.Reason, trial.Response)
		}
		if err == nil && !trial.Delivered {
			err = errNotDelivered
		}
		return err
	}
	return c
}

func webhooksRemoveCommand() *cobra.Command {
	c := &cobra.Command{Use: "remove ID", Short: "Delete a webhook and its deliveries", Args: cobra.ExactArgs(1)}
	dir, asJSON := dirFlag(c), jsonFlag(c)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		d, id, err := openWebhook(cmd, *dir, args[0])
		if err != nil {
			return err
		}
		defer d.close()
		if err := d.webhooks.Delete(cmd.Context(), id); err != nil {
			return explainWebhook(err)
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), map[string]uuid.UUID{"removed": id})
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), "removed", id)
		return err
	}
	return c
}

// openWebhook opens the deployment for a command that is about one webhook.
func openWebhook(cmd *cobra.Command, dir, text string) (*deployment, uuid.UUID, error) {
	id, err := uuid.Parse(text)
	if err != nil {
		return nil, uuid.Nil, fmt.Errorf("%w: %q is not the id of a webhook; expected a UUID", errUse, text)
	}
	d, err := open(cmd, dir)
	return d, id, err
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
	return errors.New(refused.Detail)
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
		figures := map[string]any{"position": h.Position, "age": age.Round(time.Millisecond).String(), "pending": h.Pending, "dead": h.Dead, "status": h.Status}
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
			r.warn(name, fmt.Sprintf("%d dead letters; `usher webhooks redrive %s` sends them again", h.Dead, h.ID), figures)
		case age > oldEvent:
			r.warn(name, "it is behind", figures)
		default:
			r.ok(name, figures)
		}
	}
}
