package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"usher.example/eventstore"
	"usher.example/identity"
	"usher.example/projections"
	"usher.example/publisher"
)

func usersEraseCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "erase ID|EMAIL",
		Short: "Forget a user, for good",
		Long: "Forget a user, for good: the key to the user's personal data is destroyed, and all that is kept of the user beside\n" +
			"the log is deleted. Nothing can bring it back, and the address can be registered again. A user who is only to be kept\n" +
			"out is disabled instead.",
		Example: "  usher users erase ada@example.org",
	}
	consent := needsConsent(c)
	return userCommand(c, did{"erased", "is erased already"}, func(ctx context.Context, users *identity.Service, id uuid.UUID, _ []string) (eventstore.Result, error) {
		if err := consent.ask(c, fmt.Sprintf("Erase user %s? Nothing can bring the user back.", id)); err != nil {
			return eventstore.Result{}, err
		}
		return users.Erase(ctx, id, byOperator())
	})
}

// findUser is the user with an id or an address.
func findUser(ctx context.Context, users *identity.Service, text string) (uuid.UUID, error) {
	if id, err := uuid.Parse(text); err == nil {
		return id, nil
	}
	id, err := users.UserWith(ctx, text)
	if errors.Is(err, identity.ErrNotFound) {
		err = explainUser(err)
	}
	return id, err
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
	if err != nil && d.dir == "" { // in a directory, it is `usher dev` that does not run
		d.logger.Warn("the relay was not told, and publishes at its next poll", slog.Any("error", err))
	}
}

// applyLedger erases those again whom a restored backup brought back, before anything is answered or published. It answers
// with the position of the last erasure, 0 where there was nothing to do.
func (d *deployment) applyLedger(ctx context.Context) (last int64, err error) {
	again, last, err := d.identity().ApplyLedger(ctx)
	if len(again) > 0 {
		d.logger.Warn("erased users again who are in the erasure ledger and were in the database: it was restored from a backup",
			slog.Int("users", len(again)))
	}
	return last, err
}

// ledgerWait is how often a process that may erase nobody looks whether another has.
const ledgerWait = time.Second

// awaitLedger is applyLedger for a process that serves. One whose database user may erase nobody, as those beside the API, waits
// until another has done it.
func (d *deployment) awaitLedger(ctx context.Context) (last int64, err error) {
	tick := time.NewTicker(ledgerWait)
	defer tick.Stop()
	for told := false; ; told = true {
		last, err := d.applyLedger(ctx)
		if !errors.Is(err, eventstore.ErrNotPermitted) {
			return last, err
		}
		if !told {
			d.logger.Warn("users who are in the erasure ledger are in the database, which was restored from a backup: waiting for `usher serve` to erase them again",
				slog.Any("error", err))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
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

// longErasure is how old an unfinished erasure is at least when something is wrong: the service tries again more often.
const longErasure = 30 * time.Minute

// checkErasures looks for erasures that were asked for and are not done.
func checkErasures(ctx context.Context, d *deployment, r *report) {
	var pending int
	err := d.store.QueryRow(ctx, "SELECT count(*) FROM erasures WHERE done_at IS NULL AND requested_at < $1", time.Now().UTC().Add(-longErasure)).Scan(&pending)
	switch {
	case err != nil:
		r.fail("erasures", err.Error(), nil)
	case pending > 0:
		r.fail("erasures", "users who asked to be erased are not, or it is not in the ledger; the log of `usher serve` says why", map[string]any{"pending": pending})
	default:
		r.ok("erasures", nil)
	}
}
