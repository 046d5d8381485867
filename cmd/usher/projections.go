package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"usher.example/eventstore"
	"usher.example/identity"
	"usher.example/projections"
)

func projectionsCommand() *cobra.Command {
	return group("projections", "See how the read models are, and put them right",
		projectionsListCommand(), projectionsRebuildCommand(),
		projectionsCancelCommand(),
		operatorCommand("rollback NAME", "Go back to the tables that were live before the last rebuild",
			func(cmd *cobra.Command, o *projections.Operator, name string) (string, error) {
				n, err := o.Rollback(cmd.Context(), name, identity.ActorOperator)
				return fmt.Sprintf("generation %d is live", n), err
			}),
		projectionsDropStandbyCommand(),
		operatorCommand("pause NAME", "Stop keeping a read model up to date; queries go on",
			func(cmd *cobra.Command, o *projections.Operator, name string) (string, error) {
				paused, err := isPaused(cmd, o, name)
				if err != nil || paused {
					return "it is paused already; nothing was changed", err
				}
				return "paused", o.Pause(cmd.Context(), name)
			}),
		operatorCommand("resume NAME", "Go on after a pause",
			func(cmd *cobra.Command, o *projections.Operator, name string) (string, error) {
				paused, err := isPaused(cmd, o, name)
				if err != nil || !paused {
					return "it is not paused; nothing was changed", err
				}
				return "resumed", o.Resume(cmd.Context(), name)
			}),
		projectionsRetryCommand(), projectionsSkipCommand())
}

func projectionsCancelCommand() *cobra.Command {
	var consent consent
	c := operatorCommand("cancel NAME", "Cancel a rebuild, whichever process does it; nothing is left of it",
		func(cmd *cobra.Command, o *projections.Operator, name string) (string, error) {
			s, err := projections.NewCheckpoints(o.DB).Status(cmd.Context(), name)
			if err != nil {
				return "", err
			}
			if s.Rebuild != nil {
				if err := consent.ask(cmd, fmt.Sprintf("Cancel the rebuild of %s (%s)? What it has filled is dropped.", name, describeProgress(*s.Rebuild))); err != nil {
					return "", err
				}
			}
			return "cancelled", o.Cancel(cmd.Context(), name)
		})
	consent = needsConsent(c)
	return c
}

func projectionsDropStandbyCommand() *cobra.Command {
	var consent consent
	c := operatorCommand("drop-standby NAME", "Drop the tables that were live before the last rebuild; there is no way back then",
		func(cmd *cobra.Command, o *projections.Operator, name string) (string, error) {
			s, err := projections.NewCheckpoints(o.DB).Status(cmd.Context(), name)
			if err != nil {
				return "", err
			}
			if s.Standby != nil {
				if err := consent.ask(cmd, fmt.Sprintf("Drop generation %d of %s? There is no way back to it then.", s.Standby.Generation, name)); err != nil {
					return "", err
				}
			}
			return "dropped", o.DropStandby(cmd.Context(), name)
		})
	consent = needsConsent(c)
	return c
}

func projectionsListCommand() *cobra.Command {
	c := &cobra.Command{Use: "list", Short: "List the read models, their position, lag and state", Example: "  usher projections list"}
	return onDeployment(c, func(cmd *cobra.Command, d *deployment, _ []string) error {
		list, err := projections.NewCheckpoints(d.store).List(cmd.Context())
		if err != nil {
			return err
		}
		return tell(cmd, list, func(w io.Writer) error { return printReadModels(w, list) })
	})
}

func printReadModels(w io.Writer, list []projections.Status) error {
	rows := make([][]any, len(list))
	for i, s := range list {
		rows[i] = []any{s.Name, s.Generation, s.Position, s.Lag, s.State, s.ParkedCount, s.SkipCount, describeStandby(s), describeRebuild(s), s.Error}
	}
	if err := printTable(w, []string{"NAME", "GENERATION", "POSITION", "LAG", "STATE", "PARKED", "SKIPPED", "STANDBY", "REBUILD", "ERROR"}, rows); err != nil {
		return err
	}
	for _, s := range list {
		for _, p := range s.Parked {
			fmt.Fprintf(w, "%s: parked: position %d of user %s: %s\n", s.Name, p.Position, p.Subject, p.Error)
		}
		for _, p := range s.Skipped {
			fmt.Fprintf(w, "%s: skipped: position %d of user %s\n", s.Name, p.Position, p.Subject)
		}
	}
	return nil
}

func describeStandby(s projections.Status) string {
	switch {
	case s.Standby == nil:
		return "-"
	case s.Standby.Error != "":
		return fmt.Sprintf("%d, held up at %d: %s", s.Standby.Generation, s.Standby.Position, s.Standby.Error)
	}
	return fmt.Sprintf("%d at %d", s.Standby.Generation, s.Standby.Position)
}

func describeRebuild(s projections.Status) string {
	switch {
	case s.Rebuild == nil:
		return "-"
	case s.Rebuild.Error != "":
		return fmt.Sprintf("%s at %d: %s", s.Rebuild.State, s.Rebuild.Position, s.Rebuild.Error)
	}
	return describeProgress(*s.Rebuild)
}

// operatorCommand makes a command that does something to one projection and says what.
func operatorCommand(use, short string, do func(*cobra.Command, *projections.Operator, string) (string, error)) *cobra.Command {
	verb, _, _ := strings.Cut(use, " ")
	c := &cobra.Command{Use: use, Short: short, Example: "  usher projections " + verb + " users", ValidArgs: projectionNames()}
	return onDeployment(c, func(cmd *cobra.Command, d *deployment, args []string) error {
		done, err := do(cmd, d.operator(cmd), args[0])
		if err != nil {
			return explainProjection(err)
		}
		status, err := projections.NewCheckpoints(d.store).Status(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return tell(cmd, status, text("%s: %s", args[0], done))
	})
}

func isPaused(cmd *cobra.Command, o *projections.Operator, name string) (bool, error) {
	s, err := projections.NewCheckpoints(o.DB).Status(cmd.Context(), name)
	return s.State == projections.StatePaused, err
}

// operator does to the deployment's projections what its commands are for. They say themselves what they do: only what
// goes wrong is logged.
func (d *deployment) operator(cmd *cobra.Command) *projections.Operator {
	quiet := *d.config
	quiet.LogLevel = max(quiet.LogLevel, slog.LevelWarn)
	return &projections.Operator{Projections: allProjections(), DB: d.store, Log: d.log, Logger: newLogger(&quiet, cmd.ErrOrStderr())}
}

// explainProjection says what to do about a projection that a command can't be done to.
func explainProjection(err error) error {
	switch {
	case errors.Is(err, projections.ErrUnknownProjection):
		return fmt.Errorf("%w; there are %s, once `usher project` has run them", err, strings.Join(projectionNames(), ", "))
	case errors.Is(err, projections.ErrRequested):
		return fmt.Errorf("%w; it is asked for, and `usher projections list` shows whether `usher project` runs", err)
	case errors.Is(err, projections.ErrNotParked):
		return fmt.Errorf("%w; `usher projections list` shows what is", err)
	case errors.Is(err, projections.ErrOtherVersion):
		return fmt.Errorf("%w; use that version of usher, or rebuild it with this one", err)
	}
	return err
}

func projectionsRetryCommand() *cobra.Command {
	var user string
	c := operatorCommand("retry NAME", "Apply the events again that could not be applied",
		func(cmd *cobra.Command, o *projections.Operator, name string) (string, error) {
			id, err := userFlag(user)
			if err != nil {
				return "", err
			}
			n, err := o.Retry(cmd.Context(), name, id)
			return counted(n, "event applied", "events applied"), err
		})
	c.Aliases = []string{"unpark"}
	c.Flags().StringVar(&user, "user", "", "only those of this user")
	return c
}

func projectionsSkipCommand() *cobra.Command {
	var user string
	var position int64
	var consent consent
	c := operatorCommand("skip NAME", "Give up an event that can't be applied",
		func(cmd *cobra.Command, o *projections.Operator, name string) (string, error) {
			id, err := userFlag(user)
			if err != nil {
				return "", err
			}
			switch {
			case position < 0 || (id == uuid.Nil) != (position == 0):
				return "", fmt.Errorf("%w: --user and --position go together", errUse)
			case id == uuid.Nil:
				if id, position, err = onlyObstacle(cmd, o, name); err != nil {
					return "", err
				}
			}
			if err := consent.ask(cmd, fmt.Sprintf("Give up the event at position %d of user %s? %s lacks it until a rebuild can apply it.", position, id, name)); err != nil {
				return "", err
			}
			result, err := o.Skip(cmd.Context(), name, id, position, eventstore.Metadata{Correlation: uuid.New(), Actor: identity.ActorOperator})
			return fmt.Sprintf("position %d skipped, %s behind it applied", position, counted(result.Applied, "event", "events")), err
		})
	c.Long = "Give up an event that can't be applied: the first parked one of a user, or one that stopped a rebuild or holds\n" +
		"the standby up. The read model lacks it until a rebuild can apply it. The events behind it are applied. Without\n" +
		"--user and --position it is the parked event, if there is only one."
	c.Flags().StringVar(&user, "user", "", "whom the event is about")
	c.Flags().Int64Var(&position, "position", 0, "its position")
	consent = needsConsent(c)
	return c
}

// onlyObstacle is the one event that is parked.
func onlyObstacle(cmd *cobra.Command, o *projections.Operator, name string) (user uuid.UUID, position int64, err error) {
	s, err := projections.NewCheckpoints(o.DB).Status(cmd.Context(), name)
	switch {
	case err != nil:
		return uuid.Nil, 0, err
	case len(s.Parked) == 0:
		return uuid.Nil, 0, projections.ErrNotParked
	case len(s.Parked) > 1:
		return uuid.Nil, 0, errors.New("several events are parked: say which by --user and --position; `usher projections list` shows them")
	}
	return s.Parked[0].Subject, s.Parked[0].Position, nil
}

func userFlag(text string) (uuid.UUID, error) {
	if text == "" {
		return uuid.Nil, nil
	}
	id, err := uuid.Parse(text)
	if err != nil {
		return uuid.Nil, fmt.Errorf("%w: %s is not the id of a user; expected a UUID", errUse, strconv.Quote(text))
	}
	return id, nil
}
