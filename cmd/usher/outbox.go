package main

import (
	"fmt"
	"io"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"usher.example/publisher"
)

func outboxCommand() *cobra.Command {
	return group("outbox", "See what is not published yet", outboxStatusCommand(), outboxResetCommand())
}

func outboxStatusCommand() *cobra.Command {
	c := &cobra.Command{Use: "status", Short: "Show the log's head, what is published, and how the relay is", Example: "  usher outbox status"}
	return onDeployment(c, func(cmd *cobra.Command, d *deployment, _ []string) error {
		s, err := publisher.ReadStatus(cmd.Context(), d.log, d.store, publisher.DefaultStream, time.Now())
		if err != nil {
			return err
		}
		return tell(cmd, s, func(w io.Writer) error {
			err := printTable(w, []string{"HEAD", "PUBLISHED", "LAG", "STATE"}, [][]any{{s.Head, s.Published, s.Lag, s.State}})
			if err == nil && s.Error != "" {
				_, err = fmt.Fprintln(w, s.Error)
			}
			return err
		})
	})
}

func outboxResetCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "reset",
		Short: "Make the JetStream stream anew from the log",
		Long: "Make the JetStream stream anew from the log, after the relay has halted because the two do not belong\n" +
			"together: the log was restored from a backup, or the stream is another log's. The stream is deleted and\n" +
			"published again; subscribers that had read further than the log now reaches have seen events that are gone.",
		Example: "  usher outbox reset",
	}
	return onBroker(c, func(cmd *cobra.Command, d *deployment, conn *nats.Conn) error {
		relay, err := d.relay(conn)
		if err != nil {
			return err
		}
		return relay.Reset(cmd.Context())
	})
}
