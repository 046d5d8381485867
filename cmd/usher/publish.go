package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func publishCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "publish",
		Short: "Copy the log to the JetStream stream",
		Long: "Copy the events that are not published yet to the JetStream stream and stop, or go on with --continuous.\n" +
			"Several may run: one works, the others stand by.",
		Example: "  usher publish\n  usher publish --continuous",
	}
	continuous := c.Flags().Bool("continuous", false, "go on until interrupted")
	batch := c.Flags().Int("batch-size", 0, "events read at once while few are waiting; OUTBOX_BATCH_SIZE when 0")
	c.PreRunE = func(*cobra.Command, []string) error {
		if *batch != 0 && !within(*batch, 1, maxBatch) {
			return fmt.Errorf("%w: --batch-size takes a whole number from 1 to %d", errUse, maxBatch)
		}
		return nil
	}
	return onDeployment(c, func(cmd *cobra.Command, d *deployment, _ []string) error {
		if *batch > 0 {
			d.config.OutboxBatchSize = *batch
		}
		if *continuous {
			return d.work(cmd, process{publisher: true})
		}
		conn, err := d.connectNow()
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, err := d.applyLedger(cmd.Context()); err != nil {
			return err
		}
		relay, err := d.relay(conn)
		if err != nil {
			return err
		}
		before, err := d.outbox(cmd.Context())
		if err == nil {
			err = relay.Flush(cmd.Context())
		}
		if err != nil {
			return err
		}
		after, err := d.outbox(cmd.Context())
		if err != nil {
			return err
		}
		line := text("nothing to publish: the JetStream stream has the whole log, up to position %d", after.Published)
		if n := after.Published - before.Published; n > 0 {
			line = text("published %s, up to position %d", counted(n, "event", "events"), after.Published)
		}
		return tell(cmd, map[string]int64{"published_events": max(0, after.Published-before.Published), "position": after.Published}, line)
	})
}
