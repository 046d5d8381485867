package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"usher.example/identity"
	"usher.example/projections"
)

func usersCommand() *cobra.Command {
	return group("users", "Look users up and administer them", usersListCommand(), usersShowCommand(), usersCreateCommand(),
		usersLockCommand(), usersUnlockCommand(), usersDisableCommand(), usersEnableCommand(), usersRolesCommand(), usersEraseCommand(),
		usersImportCommand(), usersExportCommand())
}

// users queries the read model of the deployment.
func (d *deployment) users() projections.Users {
	return projections.Users{DB: d.store, CursorKey: d.cursorKey}
}

func usersListCommand() *cobra.Command {
	c := &cobra.Command{Use: "list", Short: "List users, the newest first", Args: cobra.NoArgs}
	dir, asJSON := dirFlag(c), jsonFlag(c)
	query := c.Flags().String("query", "", "what is in the email or the name; fewer than three characters are what either begins with")
	status := c.Flags().String("status", "", "active, locked or disabled")
	role := c.Flags().String("role", "", "a role that they have")
	verified := c.Flags().String("verified", "", "true or false: whether the address is verified")
	after := c.Flags().String("created-after", "", "a time such as 2026-01-02T15:04:05Z")
	before := c.Flags().String("created-before", "", "the same")
	limit := c.Flags().Int("limit", projections.DefaultLimit, "users on a page")
	cursor := c.Flags().String("cursor", "", "the page to go on with")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		f := projections.UserFilter{Query: *query, Status: identity.Status(*status), Role: *role, Limit: *limit, Cursor: *cursor}
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
		d, err := open(cmd, *dir)
		if err != nil {
			return err
		}
		defer d.close()
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
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), page)
		}
		rows := make([][]any, len(page.Items))
		for i, u := range page.Items {
			rows[i] = []any{u.ID, u.Email, u.Name, u.Status, strings.Join(u.Roles, ","), u.CreatedAt.Format(time.RFC3339)}
		}
		if err := printTable(cmd.OutOrStdout(), []string{"ID", "EMAIL", "NAME", "STATUS", "ROLES", "CREATED"}, rows); err != nil {
			return err
		}
		if page.NextCursor != "" {
			_, err = fmt.Fprintln(cmd.OutOrStdout(), "more: --cursor", page.NextCursor)
		}
		return err
	}
	return c
}

func usersShowCommand() *cobra.Command {
	c := &cobra.Command{Use: "show ID|EMAIL", Short: "Show one user, now or as of a moment", Args: oneUser()}
	dir := dirFlag(c)
	jsonFlag(c) // it is JSON in any case
	at := c.Flags().String("at", "", "a position, or a time such as 2026-01-02T15:04:05Z: the user as of then")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		d, err := open(cmd, *dir)
		if err != nil {
			return err
		}
		defer d.close()
		ctx, users := cmd.Context(), d.identity()
		position := int64(math.MaxInt64)
		if *at != "" {
			if position, err = d.moment(ctx, *at); err != nil {
				return err
			}
		}
		id, err := findUser(ctx, users, args[0])
		if err != nil {
			return err
		}
		u, err := users.UserAt(ctx, id, position)
		if err != nil {
			return explainUser(err)
		}
		return printJSON(cmd.OutOrStdout(), u)
	}
	return c
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

// explainReadModel says what to do about a read model that is not there.
func explainReadModel(err error) error {
	if errors.Is(err, projections.ErrUnknownProjection) {
		return errors.New("the read model has not been made yet; `usher project` makes it")
	}
	return err
}
