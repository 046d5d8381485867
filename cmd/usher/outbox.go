package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
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
		s, err := d.relayStatus(cmd.Context())
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
			"published again; subscribers that had read further than the log now reaches have seen events that are gone.\n\n" +
			"The relay does it. This command tells what will be done and asks, waits for the relay, and tells what was done. With\n" +
			"Postgres it is for the owner of the tables: no role of a process that runs may ask for it.",
		Example: "  usher outbox reset\n  usher outbox reset --yes",
	}
	consent := needsConsent(c)
	force := c.Flags().Bool("force", false, "also where the relay has not halted, and so nothing is wrong that it knows of")
	return onBroker(c, func(cmd *cobra.Command, d *deployment, conn *nats.Conn) error {
		relay, err := d.relay(conn)
		if err != nil {
			return err
		}
		before, err := d.relayStatus(cmd.Context())
		if err != nil {
			return err
		}
		if before.State != publisher.StateHalted && before.State != publisher.StateReset && !*force {
			return notHalted(before)
		}
		plan, err := relay.PlanReset(cmd.Context())
		if err != nil {
			return err
		}
		if err := consent.ask(cmd, fmt.Sprintf("This will %s. Do it?", plan)); err != nil {
			return err
		}
		err = relay.Reset(cmd.Context(), *force)
		if errors.Is(err, publisher.ErrNotHalted) {
			return notHalted(before)
		}
		if err != nil {
			return err
		}
		done := resetView{ResetPlan: plan}
		if before.Alive {
			if done.Published, err = d.awaitReset(cmd.Context(), plan.Head); err != nil {
				return err
			}
		}
		return tell(cmd, done, done.print)
	})
}

func notHalted(s publisher.Status) error {
	return fmt.Errorf("the relay is %s and has not halted, so nothing was done; --force makes the stream anew all the same", s.State)
}

func (d *deployment) relayStatus(ctx context.Context) (publisher.Status, error) {
	return publisher.ReadStatus(ctx, d.log, d.store, publisher.DefaultStream, time.Now())
}

// resetView is what a reset came to.
type resetView struct {
	publisher.ResetPlan
	Published int64 `json:"published"` // 0 where no relay runs, and the next that starts does it
}

func (v resetView) print(w io.Writer) error {
	if v.Published == 0 {
		_, err := fmt.Fprintf(w, "No relay runs. The next one that starts will %s.\n", v.ResetPlan)
		return err
	}
	_, err := fmt.Fprintf(w, "deleted %s, published the log again, up to position %d, and kept %s\n",
		counted(int64(v.Messages), "message", "messages"), v.Published, counted(len(v.Consumers), "durable consumer", "durable consumers"))
	if err == nil && len(v.SetBack) > 0 {
		_, err = fmt.Fprintf(w, "These had read further than position %d, and go on after it: %s. Their owners have to take back what they made of it.\n",
			v.Common, strings.Join(v.SetBack, ", "))
	}
	return err
}

// resetPoll is how often the relay's row is looked at while it makes the stream anew.
const resetPoll = 100 * time.Millisecond

// awaitReset waits until the relay has done what it was asked for, and published up to a position. It answers with the last
// position that is published then.
func (d *deployment) awaitReset(ctx context.Context, head int64) (int64, error) {
	tick := time.NewTicker(resetPoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return 0, errors.New("interrupted; the relay goes on with it, and `usher outbox status` shows how far it is")
		case <-tick.C:
		}
		s, err := d.relayStatus(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			return 0, err
		case err != nil:
		case s.State == publisher.StateHalted:
			return 0, fmt.Errorf("the relay has halted again: %s", s.Error)
		case !s.Alive:
			return 0, errors.New("the relay went away meanwhile; the next one that starts goes on with it")
		case s.State == publisher.StateRunning && s.Published >= head:
			return s.Published, nil
		}
	}
}
