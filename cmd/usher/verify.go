package main

import (
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"
)

func eventsVerifyCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "verify",
		Short: "Prove that log and JetStream stream hold the same events",
		Long: "Walk the log and the JetStream stream side by side, and compare every message with its event: order, id, headers and\n" +
			"content. The exit code is 1 where they differ, and the first difference is named. It may run beside everything else.",
		Example: "  usher events verify --json",
	}
	return onBroker(c, func(cmd *cobra.Command, d *deployment, conn *nats.Conn) error {
		relay, err := d.relay(conn)
		if err != nil {
			return err
		}
		report, err := relay.Verify(cmd.Context(), nil)
		if err != nil {
			return err
		}
		err = tell(cmd, report, table([]string{"", "POSITIONS", "MESSAGES", "MISSING", "DIFFERENT", "SHA-256"}, [][]any{
			{"stream", fmt.Sprintf("%d-%d", report.First, report.Last), report.Messages, report.Missing, report.Differ, report.Stream},
			{"log", fmt.Sprintf("1-%d", report.Head), "", "", "", report.Log},
		}))
		if err == nil && !report.Same() {
			err = fmt.Errorf("they differ, first at position %d: %s", report.FirstDifference, report.What)
		}
		if err == nil && report.Last < report.Head {
			err = errNotPublished
		}
		return err
	})
}

// errNotPublished: what is compared is the same, and the end of the log is missing.
var errNotPublished = errors.New("they are the same as far as the stream goes, and the log goes further: see `usher outbox status`")
