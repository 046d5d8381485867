package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"usher.example/identity"
	"usher.example/projections"
)

func usersCommand() *cobra.Command {
	return group("users", "Look users up and administer them", usersListCommand(), usersThrottledCommand(), usersShowCommand(), usersCreateCommand(),
		usersLockCommand(), usersUnlockCommand(), usersDisableCommand(), usersEnableCommand(), usersRolesCommand(), usersSetPasswordCommand(), usersTOTPCommand(), usersEraseCommand(),
		usersImportCommand(), usersExportCommand())
}

// users queries the read model of the deployment.
func (d *deployment) users() projections.Users {
	return projections.Users{DB: d.store, CursorKey: d.cursorKey}
}

func usersListCommand() *cobra.Command {
	c := &cobra.Command{Use: "list", Short: "List users, the newest first", Example: "  usher users list --query ada\n  usher users list --role admin --status active --json"}
	query := c.Flags().String("query", "", "what is in the email or the name; fewer than three characters are what either begins with")
	status := c.Flags().String("status", "", "active, locked or disabled")
	role := c.Flags().String("role", "", "a role that they have")
	verified := c.Flags().String("verified", "", "true or false: whether the address is verified")
	after := c.Flags().String("created-after", "", "a time such as 2026-01-02T15:04:05Z")
	before := c.Flags().String("created-before", "", "the same")
	limit := c.Flags().Int("limit", projections.DefaultLimit, "users on a page")
	cursor := c.Flags().String("cursor", "", "the page to go on with")
	var f projections.UserFilter
	c.PreRunE = func(*cobra.Command, []string) error {
		f = projections.UserFilter{Query: *query, Status: identity.Status(*status), Role: *role, Limit: *limit, Cursor: *cursor}
		for _, flag := range []struct {
			name, text string
			into       *time.Time
		}{{"created-after", *after, &f.CreatedAfter}, {"created-before", *before, &f.CreatedBefore}} {
			if flag.text == "" {
				continue
			}
			var err error
			if *flag.into, err = time.Parse(time.RFC3339Nano, flag.text); err != nil {
				return fmt.Errorf("%w: --%s takes a time such as 2026-01-02T15:04:05Z", errUse, flag.name)
			}
		}
		if *verified != "" {
			yes, err := strconv.ParseBool(*verified)
			if err != nil {
				return fmt.Errorf("%w: --verified takes true or false", errUse)
			}
			f.EmailVerified = &yes
		}
		return nil
	}
	return onDeployment(c, func(cmd *cobra.Command, d *deployment, _ []string) error {
		page, err := d.users().List(cmd.Context(), f)
		var filter *projections.FilterError
		if errors.As(err, &filter) {
			return fmt.Errorf("%w: %s", errUse, filter.Detail)
		}
		if errors.Is(err, projections.ErrBadCursor) {
			return fmt.Errorf("%w: %w", errUse, err)
		}
		if err != nil {
			return explainReadModel(err)
		}
		if err := d.warnIfBehind(cmd, projections.UsersName); err != nil {
			return err
		}
		rows := make([][]any, len(page.Items))
		for i, u := range page.Items {
			rows[i] = []any{u.ID, u.Email, u.Name, u.Status, strings.Join(u.Roles, ","), u.CreatedAt.Format(time.RFC3339)}
		}
		return tell(cmd, page, func(w io.Writer) error {
			err := printTable(w, []string{"ID", "EMAIL", "NAME", "STATUS", "ROLES", "CREATED"}, rows)
			if err == nil && page.NextCursor != "" {
				_, err = fmt.Fprintln(w, "more: --cursor", page.NextCursor)
			}
			return err
		})
	})
}

func usersShowCommand() *cobra.Command {
	c := &cobra.Command{Use: "show ID|EMAIL", Short: "Show one user, and what keeps the user from logging in; the user as of a moment; or everything there is of the user",
		Example: "  usher users show ada@example.org --at 2026-01-02T15:04:05Z\n  usher users show ada@example.org --everything > ada.json", Args: oneUser}
	everything := c.Flags().Bool("everything", false, "everything that log and state have of the user, as GET /v1/me/export answers: for a request to have a copy of it (GDPR, article 15)")
	at := c.Flags().String("at", "", "a position, or a time such as 2026-01-02T15:04:05Z: the user as of then")
	c.PreRunE = func(*cobra.Command, []string) error {
		if *everything && *at != "" {
			return fmt.Errorf("%w: --everything is as of now; it does not go with --at", errUse)
		}
		return nil
	}
	return onDeployment(c, func(cmd *cobra.Command, d *deployment, args []string) error {
		ctx, users := cmd.Context(), d.identity()
		position := int64(math.MaxInt64)
		if *at != "" {
			var err error
			if position, err = d.moment(ctx, *at); err != nil {
				return err
			}
		}
		id, err := findUser(ctx, users, args[0])
		if err != nil {
			return err
		}
		if *everything {
			return d.writeDossier(ctx, asItIs(cmd.OutOrStdout()), users, id)
		}
		u, err := users.UserAt(ctx, id, position)
		if err != nil {
			return explainUser(err)
		}
		if *at != "" {
			return printJSON(cmd.OutOrStdout(), u)
		}
		examined, err := users.Examine(ctx, u)
		if err != nil {
			return explainUser(err)
		}
		return printJSON(cmd.OutOrStdout(), examined)
	})
}

// writeDossier writes everything there is of a user.
func (d *deployment) writeDossier(ctx context.Context, w io.Writer, users *identity.Service, id uuid.UUID) error {
	open, err := d.dossiers(users).Open(ctx, id, uuid.Nil)
	if err != nil {
		return explainUser(err)
	}
	return explainUser(open.Write(ctx, w, func() error { return ctx.Err() }))
}

// moment is the position that the log was at at a moment.
func (d *deployment) moment(ctx context.Context, text string) (int64, error) {
	if position, err := strconv.ParseInt(text, 10, 64); err == nil && position >= 0 {
		head, err := d.log.Head(ctx)
		if err == nil && position > head {
			err = fmt.Errorf("%w: the log is at %d", errUse, head)
		}
		return position, err
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%w: --at takes a position, or a time such as 2026-01-02T15:04:05Z", errUse)
	case at.After(time.Now()):
		return 0, fmt.Errorf("%w: --at is a time that is still to come", errUse)
	}
	return d.log.PositionAt(ctx, at)
}

// warnIfBehind says so where a read model lacks what is in the log: nobody keeps it up to date, or not fast enough.
func (d *deployment) warnIfBehind(cmd *cobra.Command, name string) error {
	s, err := projections.NewCheckpoints(d.store).Status(cmd.Context(), name)
	if err != nil || s.Lag == 0 {
		return err
	}
	age, err := d.ageAfter(cmd.Context(), s.Position)
	if err != nil || s.State != projections.StateStopped && age < oldEvent { // it has them in a moment
		return err
	}
	what := fmt.Sprintf("the list is %s behind the log", counted(s.Lag, "event", "events"))
	if s.State == projections.StateStopped {
		what += ": no process keeps it up to date; start `usher dev`, or `usher project`"
	}
	if asJSON(cmd) {
		d.logger.Warn(what, slog.String("projection", name), slog.Int64("position", s.Position), slog.Int64("behind_events", s.Lag))
		return nil
	}
	_, err = fmt.Fprintln(cmd.ErrOrStderr(), "usher:", what)
	return err
}

// explainReadModel says what to do about a read model that is not there.
func explainReadModel(err error) error {
	if errors.Is(err, projections.ErrUnknownProjection) {
		return errors.New("the read model has not been made yet; `usher project` makes it")
	}
	return err
}
