package main

import (
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"
)

func publishCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "publish",
		Short: "Copy the log to the JetStream stream",
		Long: "Copy the events that are not published yet to the JetStream stream and stop, or go on with --continuous.\n" +
			"Several may run: one works, the others stand by.",
		Args: cobra.NoArgs,
	}
	dir := dirFlag(c)
	continuous := c.Flags().Bool("continuous", false, "go on until interrupted")
	batch := c.Flags().Int("batch-size", 0, "events read at once while few are waiting; OUTBOX_BATCH_SIZE when 0")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		if *batch != 0 && !within(*batch, 1, maxBatch) {
			return fmt.Errorf("%w: --batch-size takes a whole number from 1 to %d", errUse, maxBatch)
		}
		d, err := open(cmd, *dir)
		if err != nil {
			return err
		}
		defer d.close()
		if *batch > 0 {
			d.config.OutboxBatchSize = *batch
		}
		connect := d.connectNow
		if *continuous {
			connect = func() (*nats.Conn, error) { return d.connect() }
		}
		conn, err := connect()
		if err != nil {
			return err
		}
		defer conn.Close()
		if *continuous {
			l, err := d.listenMetrics()
			if err != nil {
				return err
			}
			return d.serve(cmd.Context(), process{publisher: true, conn: conn, listeners: l})
		}
		if _, err := d.applyLedger(cmd.Context()); err != nil {
			return err
		}
		relay, err := d.relay(conn)
		if err != nil {
			return err
		}
		return relay.Flush(cmd.Context())
	}
	return c
}
