package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"usher/identity"
	"usher/projections"
)

func usersCommand() *cobra.Command {
	return group("users", "Look users up", usersListCommand(), usersShowCommand(), usersEraseCommand())
}

// users queries the read model of the deployment.
func (d *deployment) users() projections.Users {
	return projections.Users{DB: d.store, CursorKey: d.cursorKey}
}

func usersListCommand() *cobra.Command {
	c := &cobra.Command{Use: "list", Short: "List users, the newest first", Args: cobra.NoArgs}
	dir, asJSON := dirFlag(c), jsonFlag(c)
	query := c.Flags().String("query", "", "what the email or the name begins with")
	status := c.Flags().String("status", "", "active, locked or disabled")
	role := c.Flags().String("role", "", "a role that they have")
	limit := c.Flags().Int("limit", projections.DefaultLimit, "users on a page")
	cursor := c.Flags().String("cursor", "", "the page to go on with")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		d, err := open(cmd, *dir)
		if err != nil {
			return err
		}
		defer d.close()
		page, err := d.users().List(cmd.Context(), projections.UserFilter{Query: *query, Status: identity.Status(*status),
			Role: *role, Limit: *limit, Cursor: *cursor})
		if errors.Is(err, projections.ErrBadFilter) || errors.Is(err, projections.ErrBadCursor) {
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
	c := &cobra.Command{Use: "show ID", Short: "Show one user", Args: cobra.ExactArgs(1)}
	dir := dirFlag(c)
	jsonFlag(c) // it is JSON in any case
	c.RunE = func(cmd *cobra.Command, args []string) error {
		id, err := uuid.Parse(args[0])
		if err != nil {
			return fmt.Errorf("%w: %q is not the id of a user; expected a UUID", errUse, args[0])
		}
		d, err := open(cmd, *dir)
		if err != nil {
			return err
		}
		defer d.close()
		u, err := d.users().Get(cmd.Context(), id)
		if errors.Is(err, projections.ErrNotFound) {
			return errors.New("there is no such user")
		}
		if err != nil {
			return explainReadModel(err)
		}
		return printJSON(cmd.OutOrStdout(), u)
	}
	return c
}

// explainReadModel says what to do about a read model that is not there.
func explainReadModel(err error) error {
	if errors.Is(err, projections.ErrUnknownProjection) {
		return errors.New("the read model has not been made yet; `usher project` makes it")
	}
	return err
}
