package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"usher/eventstore"
	"usher/identity"
	"usher/projections"
	"usher/publisher"
)

func usersEraseCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "erase ID|EMAIL",
		Short: "Forget a user, for good",
		Long: "Forget a user, for good: the key to the user's personal data is destroyed, and all that is kept of the user beside\n" +
			"the log is deleted. Nothing can bring it back, and the address can be registered again. A user who is only to be kept\n" +
			"out is disabled instead.",
		Args: cobra.ExactArgs(1),
	}
	dir, asJSON := dirFlag(c), jsonFlag(c)
	yes := c.Flags().Bool("yes", false, "do not ask")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		d, err := open(cmd, *dir)
		if err != nil {
			return err
		}
		defer d.close()
		users := d.eraser()
		id, err := findUser(cmd.Context(), users, args[0])
		if err != nil {
			return err
		}
		if !*yes {
			if err := confirm(cmd.InOrStdin(), cmd.ErrOrStderr(), fmt.Sprintf("Erase user %s? Nothing can bring the user back.", id)); err != nil {
				return err
			}
		}
		result, err := users.Erase(cmd.Context(), id, eventstore.Metadata{Correlation: uuid.New(), Actor: identity.ActorOperator})
		if errors.Is(err, identity.ErrNotFound) {
			return errors.New("there is no such user")
		}
		if err != nil {
			return err
		}
		d.pingRelay()
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), map[string]any{"id": id, "position": result.Position})
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "erased %s, at position %d\n", id, result.Position)
		return err
	}
	return c
}

// findUser is the user with an id or an address.
func findUser(ctx context.Context, users *identity.Service, text string) (uuid.UUID, error) {
	if id, err := uuid.Parse(text); err == nil {
		return id, nil
	}
	id, err := users.UserWith(ctx, text)
	switch {
	case errors.Is(err, identity.ErrInvalidEmail):
		return id, fmt.Errorf("%w: expected the id of a user or an email address", errUse)
	case errors.Is(err, identity.ErrNotFound):
		return id, errors.New("there is no such user")
	}
	return id, err
}

// confirm asks on a terminal, or whatever stands in for it, and fails unless the answer is yes.
func confirm(in io.Reader, out io.Writer, question string) error {
	if _, err := fmt.Fprint(out, question, " Type yes to go on: "); err != nil {
		return err
	}
	answer, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the answer: %w", err)
	}
	if strings.TrimSpace(answer) != "yes" {
		return errors.New("nothing was done; answer yes, or use --yes")
	}
	return nil
}

// eraser is the part of the service that needs no passwords and no sessions.
func (d *deployment) eraser() *identity.Service {
	return identity.New(identity.Config{Log: d.log, Store: d.store, DB: d.store, Ledger: d.ledger(), Logger: d.logger})
}

func (d *deployment) ledger() *identity.Ledger {
	if d.config.ErasureLedger == "" {
		return nil
	}
	return &identity.Ledger{Path: d.config.ErasureLedger}
}

// pingRelay tells the relay of another process that there is something new. Where it can't be told, its poll finds it.
func (d *deployment) pingRelay() {
	if d.natsURL == "" {
		return
	}
	conn, err := d.connectNow()
	if err == nil {
		err = errors.Join(publisher.Ping(conn), conn.FlushTimeout(time.Second))
		conn.Close()
	}
	if err != nil {
		d.logger.Warn("the relay was not told, and publishes at its next poll", slog.Any("error", err))
	}
}

// applyLedger erases those again whom a restored backup brought back, before anything is answered or published. It answers
// with the position of the last erasure, 0 where there was nothing to do.
func (d *deployment) applyLedger(ctx context.Context) (last int64, err error) {
	again, last, err := d.eraser().ApplyLedger(ctx)
	if len(again) > 0 {
		d.logger.Warn("erased users again who are in the erasure ledger and were in the database: it was restored from a backup",
			slog.Int("users", len(again)))
	}
	return last, err
}

// settleErasures finishes what was cut short, and completes the ledger. What can't be done now, the service's sweep tries
// again.
func (d *deployment) settleErasures(ctx context.Context, users *identity.Service) {
	_, err := users.FinishErasures(ctx)
	err = errors.Join(err, users.CompleteLedger(ctx))
	if d.config.ErasureLedger == "" {
		d.logger.Warn("ERASURE_LEDGER is not set: a backup that is restored brings back the users who were erased since it was made")
	} else if err == nil {
		err = d.ledger().Check()
	}
	if err != nil {
		d.logger.Error("erasures are not in order; nobody is erased while the ledger can't be written", slog.Any("error", err))
	}
}

// modelWait bounds how long a start waits for read models.
const modelWait = 15 * time.Second

// awaitReadModels waits until no read model shows those who were erased up to a position.
func (d *deployment) awaitReadModels(ctx context.Context, checkpoints *projections.Checkpoints, position int64) error {
	if position == 0 {
		return nil
	}
	list, err := checkpoints.List(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, modelWait)
	defer cancel()
	for _, model := range list {
		err := checkpoints.Await(ctx, model.Name, position)
		if errors.Is(err, projections.ErrBehind) {
			d.logger.Error("a read model shows users who are erased, until a process keeps it up to date", slog.String("projection", model.Name))
		} else if err != nil {
			return err
		}
	}
	return nil
}
