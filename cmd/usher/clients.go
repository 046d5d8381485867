package main

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"usher.example/client"
)

func clientsCommand() *cobra.Command {
	return group("clients", "Set up the services that may ask about tokens and revoke them",
		clientsListCommand(), clientsAddCommand(), clientsRemoveCommand())
}

// clientView is a client as commands show it.
type clientView struct {
	ID        uuid.UUID `json:"client_id"`
	Name      string    `json:"name"`
	CreatedAt time.Time `json:"created_at"`
	Secret    string    `json:"client_secret,omitempty"` // once, as it is made
}

func clientsListCommand() *cobra.Command {
	c := &cobra.Command{Use: "list", Short: "List the clients", Example: "  usher clients list"}
	return onDeployment(c, func(cmd *cobra.Command, d *deployment, _ []string) error {
		list, err := d.clients().List(cmd.Context())
		if err != nil {
			return err
		}
		views := make([]clientView, len(list))
		rows := make([][]any, len(list))
		for i, c := range list {
			views[i] = clientView{ID: c.ID, Name: c.Name, CreatedAt: c.CreatedAt}
			rows[i] = []any{c.Name, c.ID, c.CreatedAt.Format(time.RFC3339)}
		}
		return tell(cmd, views, table([]string{"NAME", "CLIENT ID", "CREATED"}, rows))
	})
}

func clientsAddCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "add NAME",
		Short: "Make a client and print its secret, which can't be shown again",
		Long: "Make a client and print its secret, which can't be shown again. With id and secret a service calls\n" +
			"/oauth2/introspect and /oauth2/revoke.",
		Example: "  usher clients add billing",
	}
	return onDeployment(c, func(cmd *cobra.Command, d *deployment, args []string) error {
		added, secret, err := d.clients().Add(cmd.Context(), args[0])
		if err != nil {
			return fmt.Errorf("add the client %q: %w", args[0], err)
		}
		return tell(cmd, clientView{added.ID, added.Name, added.CreatedAt, string(secret)},
			text("client_id      %s\nclient_secret  %s\n\nThe secret is not shown again.", added.ID, string(secret)))
	})
}

func clientsRemoveCommand() *cobra.Command {
	c := &cobra.Command{Use: "remove NAME", Short: "Remove a client; its secret is of no use from then on", Example: "  usher clients remove billing"}
	consent := needsConsent(c)
	return onDeployment(c, func(cmd *cobra.Command, d *deployment, args []string) error {
		list, err := d.clients().List(cmd.Context())
		if err != nil {
			return err
		}
		if slices.ContainsFunc(list, func(c client.Client) bool { return c.Name == args[0] }) {
			if err := consent.ask(cmd, fmt.Sprintf("Remove the client %q? Its secret is of no use from then on.", args[0])); err != nil {
				return err
			}
		}
		err = d.clients().Remove(cmd.Context(), args[0])
		if errors.Is(err, client.ErrUnknown) {
			return errors.New("there is no such client")
		}
		if err != nil {
			return err
		}
		return tell(cmd, map[string]string{"removed": args[0]}, text("removed %s", args[0]))
	})
}
