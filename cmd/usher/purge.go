package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"usher.example/publisher/webhook"
)

// purged is what a purge removed, or would remove.
type purged struct {
	Before time.Time `json:"before"`
	webhook.Purged
	Generations int  `json:"generations"`
	DryRun      bool `json:"dry_run"`
}

func purgeCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "purge",
		Short: "Remove what is kept beside the log and has become old",
		Long: "Remove what is kept beside the log and has become old: deliveries of webhooks that were taken, dead letters, and\n" +
			"tables of read models that are not live (the way back from a rebuild, and what a failed one left). Deliveries that\n" +
			"are pending stay, and so does everything in the log. It may run at any time, beside the service; run it once a day.\n" +
			"What expires by itself (sessions, codes, idempotency keys) needs no purge.",
		Example: "  usher purge --dry-run\n  usher purge --older-than 90d --yes",
	}
	consent := needsConsent(c)
	limit := age(30 * day)
	c.Flags().Var(&limit, "older-than", "remove what ended longer ago than this, as 30d or 36h")
	dry := c.Flags().Bool("dry-run", false, "remove nothing, and tell what would be removed")
	return onDeployment(c, func(cmd *cobra.Command, d *deployment, _ []string) error {
		ctx, o := cmd.Context(), d.operator(cmd)
		deliveries, generations := d.webhooks.Purge, o.DropOld
		if *dry {
			deliveries, generations = d.webhooks.Purgeable, o.Old
		}
		out := purged{Before: time.Now().UTC().Add(-time.Duration(limit)).Truncate(time.Second), DryRun: *dry}
		var err error
		if !*dry {
			if err := consent.ask(cmd, fmt.Sprintf("Remove for good what is older than %s? --dry-run tells how much it is.", out.Before.Format(time.RFC3339))); err != nil {
				return err
			}
		}
		if out.Purged, err = deliveries(ctx, out.Before); err == nil {
			out.Generations, err = generations(ctx, out.Before)
		}
		// What was removed is removed, whatever failed then.
		return errors.Join(err, tell(cmd, out, func(w io.Writer) error { return printPurged(w, out) }))
	})
}

func printPurged(w io.Writer, out purged) error {
	verb := "removed"
	if out.DryRun {
		verb = "would remove"
	}
	_, err := fmt.Fprintf(w, "%s what is older than %s: %s taken, %s, %s of read models\n", verb, out.Before.Format(time.RFC3339),
		counted(out.Delivered, "delivery that was", "deliveries that were"), counted(out.Dead, "dead letter", "dead letters"), counted(out.Generations, "generation", "generations"))
	return err
}

const day = 24 * time.Hour

// age is a flag's time in days or hours. Shorter units are not taken: 30m would be half an hour to some and a month to
// others, and what it removes does not come back.
type age time.Duration

// maxAge is the most that the flag takes, so that no date comes out of range.
const maxAge = age(36500 * day)

// String is the age as Set takes it.
func (a *age) String() string {
	if d := time.Duration(*a); d%day != 0 {
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", time.Duration(*a)/day)
}

// Type names the flag's value in the help.
func (a *age) Type() string { return "age" }

// Set reads a whole number of days or hours.
func (a *age) Set(text string) error {
	units := map[byte]time.Duration{'d': day, 'h': time.Hour}
	if text != "" {
		unit, known := units[text[len(text)-1]]
		n, err := strconv.ParseUint(text[:len(text)-1], 10, 32)
		if known && err == nil && n > 0 && n <= uint64(time.Duration(maxAge)/unit) {
			*a = age(time.Duration(n) * unit)
			return nil
		}
	}
	return errors.New("expected a number of days or hours, such as 30d or 36h")
}
