package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"usher.example/publisher"
)

func outboxCommand() *cobra.Command {
	return group("outbox", "See what is not published yet", outboxStatusCommand(), outboxResetCommand())
}

func outboxStatusCommand() *cobra.Command {
	c := &cobra.Command{Use: "status", Short: "Show the log's head, what is published, and how the relay is", Args: cobra.NoArgs}
	dir, asJSON := dirFlag(c), jsonFlag(c)
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		d, err := open(cmd, *dir)
		if err != nil {
			return err
		}
		defer d.close()
		s, err := publisher.ReadStatus(cmd.Context(), d.log, d.store, publisher.DefaultStream, time.Now())
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), s)
		}
		if err := printTable(cmd.OutOrStdout(), []string{"HEAD", "PUBLISHED", "LAG", "STATE"},
			[][]any{{s.Head, s.Published, s.Lag, s.State}}); err != nil {
			return err
		}
		if s.Error != "" {
			_, err = fmt.Fprintln(cmd.OutOrStdout(), s.Error)
		}
		return err
	}
	return c
}

func outboxResetCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "reset",
		Short: "Make the JetStream stream anew from the log",
		Long: "Make the JetStream stream anew from the log, after the relay has halted because the two do not belong\n" +
			"together: the log was restored from a backup, or the stream is another log's. The stream is deleted and\n" +
			"published again; subscribers that had read further than the log now reaches have seen events that are gone.",
		Args: cobra.NoArgs,
	}
	dir := dirFlag(c)
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		d, err := open(cmd, *dir)
		if err != nil {
			return err
		}
		defer d.close()
		conn, err := d.connectNow()
		if err != nil {
			return err
		}
		defer conn.Close()
		relay, err := d.relay(conn)
		if err != nil {
			return err
		}
		return relay.Reset(cmd.Context())
	}
	return c
}
