package main

import (
	"fmt"
	"io"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"usher.example/identity"
	"usher.example/projections"
)

// usersThrottledCommand tells who is throttled now. Its pages go on after an id: what it lists is in the order of ids.
func usersThrottledCommand() *cobra.Command {
	c := &cobra.Command{Use: "throttled", Short: "List the users on whose accounts an attempt has to wait now, and why",
		Example: "  usher users throttled\n  usher users throttled --limit 200 --json"}
	limit := c.Flags().Int("limit", projections.DefaultLimit, "users on a page")
	cursor := c.Flags().String("cursor", "", "the page to go on with")
	var after uuid.UUID
	c.PreRunE = func(*cobra.Command, []string) (err error) {
		if *limit < 1 || *limit > projections.MaxLimit {
			return fmt.Errorf("%w: --limit takes a number from 1 to %d", errUse, projections.MaxLimit)
		}
		if *cursor == "" {
			return nil
		}
		if after, err = uuid.Parse(*cursor); err != nil {
			return fmt.Errorf("%w: --cursor takes what the page before ended with", errUse)
		}
		return nil
	}
	return onDeployment(c, func(cmd *cobra.Command, d *deployment, _ []string) error {
		found, err := d.identity().ThrottledUsers(cmd.Context(), after, *limit)
		if err != nil {
			return err
		}
		page := struct {
			Items      []identity.Examined `json:"items"`
			NextCursor string              `json:"next_cursor,omitempty"`
			Nobody     int                 `json:"unknown_addresses"`
		}{Items: found.Users, Nobody: found.Nobody}
		if found.Last != uuid.Nil {
			page.NextCursor = found.Last.String()
		}
		return tell(cmd, page, func(w io.Writer) error { return printThrottled(w, found) })
	})
}

func printThrottled(w io.Writer, found identity.ThrottledPage) error {
	var rows [][]any
	for _, u := range found.Users {
		for _, why := range u.Throttle {
			until := "now" // this one of several need not wait
			if why.Until != nil {
				until = why.Until.Format(time.RFC3339)
			}
			rows = append(rows, []any{u.ID, u.Email, why.Counted, why.Failures, why.Since.Format(time.RFC3339), until})
		}
	}
	if err := printTable(w, []string{"ID", "EMAIL", "FAILED", "TIMES", "SINCE", "UNTIL"}, rows); err != nil {
		return err
	}
	if found.Nobody > 0 {
		addresses := "addresses"
		if found.Nobody == 1 {
			addresses = "address"
		}
		if _, err := fmt.Fprintf(w, "and %d %s that nobody has\n", found.Nobody, addresses); err != nil {
			return err
		}
	}
	if found.Last != uuid.Nil {
		_, err := fmt.Fprintln(w, "more: --cursor", found.Last)
		return err
	}
	return nil
}
