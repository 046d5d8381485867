package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"usher.example/api"
	"usher.example/eventstore"
)

func eventsCommand() *cobra.Command {
	return group("events", "Read the log", eventsTailCommand(), eventsShowCommand(), eventsExportCommand(), eventsVerifyCommand())
}

// printEvent prints an event on a line, also as JSON.
func printEvent(cmd *cobra.Command, e eventstore.Event) error {
	v, w := api.ViewEvent(e), cmd.OutOrStdout()
	if asJSON(cmd) {
		return json.NewEncoder(w).Encode(v)
	}
	forgotten := ""
	if v.Forgotten {
		forgotten = "  (personal fields forgotten)"
	}
	var data bytes.Buffer // Postgres writes what it has with spaces, SQLite without
	if err := json.Compact(&data, v.Data); err != nil {
		return fmt.Errorf("event at %d: %w", v.Position, err)
	}
	_, err := fmt.Fprintf(w, "%8d  %s  %-36s  %-24s %s%s\n", v.Position, v.Time.Format(time.RFC3339), v.Subject, v.Type, &data, forgotten)
	return err
}

const (
	eventPage = 500
	tailPoll  = 200 * time.Millisecond
)

func eventsTailCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "tail",
		Short:   "Print events as they are written",
		Long:    "Print the newest events of the log and then each event as it is written, until interrupted.",
		Example: "  usher events tail\n  usher events tail --from 2026-01-02T15:04:05Z --no-follow --json",
	}
	from := c.Flags().String("from", "", "begin at this position, or at a time such as 2026-01-02T15:04:05Z, instead of with the newest events")
	last := c.Flags().Int64("last", 10, "how many of the newest events to begin with")
	once := c.Flags().Bool("no-follow", false, "stop at the end of the log")
	return onDeployment(c, func(cmd *cobra.Command, d *deployment, _ []string) error {
		ctx := cmd.Context()
		head, err := d.log.Head(ctx)
		if err != nil {
			return err
		}
		after := max(0, head-*last)
		if *from != "" {
			if after, err = before(ctx, d.log, *from); err != nil {
				return err
			}
		}
		err = tail(ctx, d.reader(cmd), after, !*once, func(e eventstore.Event) error {
			return printEvent(cmd, e)
		})
		if ctx.Err() != nil {
			return nil // interrupted, as it is meant to be
		}
		return err
	})
}

// before is the position before the first event from a position, or from a time, on.
func before(ctx context.Context, log *eventstore.Log, from string) (int64, error) {
	if position, err := strconv.ParseInt(from, 10, 64); err == nil && position > 0 {
		return position - 1, nil
	}
	moment, err := time.Parse(time.RFC3339Nano, from)
	if err != nil {
		return 0, fmt.Errorf("%w: --from takes a position from 1 on, or a time such as 2026-01-02T15:04:05Z", errUse)
	}
	return log.PositionAt(ctx, moment.Add(-time.Nanosecond))
}

// reader reads the log.
type reader interface {
	ReadAll(ctx context.Context, after int64, limit int) ([]eventstore.Event, error)
	ReadStream(ctx context.Context, stream uuid.UUID, after, limit int) ([]eventstore.Event, error)
}

// reader reads the log with the personal fields of events, unless the database user may not read the keys that open them.
func (d *deployment) reader(cmd *cobra.Command) reader {
	if _, err := d.store.DataKeys(cmd.Context(), []uuid.UUID{uuid.Nil}); errors.Is(err, eventstore.ErrNotPermitted) {
		fmt.Fprintln(cmd.ErrOrStderr(), "personal fields are left out: the database user may not read the keys that open them")
		return d.store
	}
	return d.log
}

// tail hands over the events after a position, and, if it follows, those that come later until ctx ends.
func tail(ctx context.Context, log reader, after int64, follow bool, handle func(eventstore.Event) error) error {
	tick := time.NewTicker(tailPoll)
	defer tick.Stop()
	for {
		events, err := log.ReadAll(ctx, after, eventPage)
		if err != nil {
			return err
		}
		for _, e := range events {
			if err := handle(e); err != nil {
				return err
			}
			after = e.Position
		}
		if len(events) == eventPage {
			continue
		}
		if !follow {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func eventsShowCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "show STREAM|EMAIL",
		Short: "Print the events of one stream",
		Long: "Print the events of one stream. The stream of a user has the user's id, that of a session the session's. The address of a\n" +
			"user stands for the user's stream.",
		Example: "  usher events show ada@example.org",
		Args:    oneUserOr("stream"),
	}
	return onDeployment(c, func(cmd *cobra.Command, d *deployment, args []string) error {
		stream, err := findUser(cmd.Context(), d.identity(), args[0])
		if err != nil {
			return err
		}
		log := d.reader(cmd)
		for version := 0; ; {
			events, err := log.ReadStream(cmd.Context(), stream, version, eventPage)
			if err != nil {
				return err
			}
			for _, e := range events {
				if err := printEvent(cmd, e); err != nil {
					return err
				}
				version = e.Version
			}
			if len(events) < eventPage {
				if version == 0 {
					return errors.New("there is no such stream")
				}
				return nil
			}
		}
	})
}
