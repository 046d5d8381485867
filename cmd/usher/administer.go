package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"usher.example/eventstore"
	"usher.example/identity"
)

// byOperator is the metadata of what an operator command does.
func byOperator() eventstore.Metadata {
	return eventstore.Metadata{Correlation: uuid.New(), Actor: identity.ActorOperator}
}

// oneUser says what is wrong with the first argument of a command that is about a user, before anything is opened.
func oneUser(cmd *cobra.Command, args []string) error { return oneUserOr("user")(cmd, args) }

// oneUserOr is oneUser for a command that takes the id of something else too.
func oneUserOr(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if _, err := uuid.Parse(args[0]); err == nil {
			return nil
		}
		if _, err := identity.ParseEmail(args[0]); err != nil {
			return fmt.Errorf("%q is not a %s; expected the id of a %s or an email address", args[0], what, what)
		}
		return nil
	}
}

// did is what a command did to a user: in a word, and how it is said where the user was so already.
type did struct{ done, already string }

// userCommand is a command that does one thing to a user, who is its first argument.
func userCommand(c *cobra.Command, said did, do func(ctx context.Context, users *identity.Service, id uuid.UUID, args []string) (eventstore.Result, error)) *cobra.Command {
	name, _, _ := strings.Cut(c.Use, " ")
	if c.Example == "" {
		c.Example = "  usher users " + name + " ada@example.org"
	}
	c.Args = oneUser
	return onDeployment(c, func(cmd *cobra.Command, d *deployment, args []string) error {
		users := d.identity()
		id, err := findUser(cmd.Context(), users, args[0])
		if err != nil {
			return err
		}
		result, err := do(cmd.Context(), users, id, args[1:])
		if err != nil {
			return explainUser(err)
		}
		line := text("%s %s, at position %d", said.done, id, result.Position)
		if result.Unchanged {
			line = text("%s %s; nothing was changed", id, said.already)
		} else {
			d.pingRelay()
		}
		return tell(cmd, userChanged{id, result.Position, !result.Unchanged}, line)
	})
}

// userChanged is a user to whom a command did something, or did not have to.
type userChanged struct {
	ID       uuid.UUID `json:"id"`
	Position int64     `json:"position"`
	Changed  bool      `json:"changed"`
}

func usersLockCommand() *cobra.Command {
	c := &cobra.Command{Use: "lock ID|EMAIL", Short: "Keep a user from logging in, and end the user's sessions"}
	return userCommand(c, did{"locked", "is locked already"}, func(ctx context.Context, users *identity.Service, id uuid.UUID, _ []string) (eventstore.Result, error) {
		return users.LockUser(ctx, id, byOperator())
	})
}

func usersUnlockCommand() *cobra.Command {
	c := &cobra.Command{Use: "unlock ID|EMAIL", Short: "End a lock"}
	return userCommand(c, did{"unlocked", "is not locked"}, func(ctx context.Context, users *identity.Service, id uuid.UUID, _ []string) (eventstore.Result, error) {
		return users.UnlockUser(ctx, id, byOperator())
	})
}

func usersDisableCommand() *cobra.Command {
	c := &cobra.Command{Use: "disable ID|EMAIL", Short: "Close an account until it is enabled, and end the user's sessions"}
	return userCommand(c, did{"disabled", "is disabled already"}, func(ctx context.Context, users *identity.Service, id uuid.UUID, _ []string) (eventstore.Result, error) {
		return users.DisableUser(ctx, id, byOperator())
	})
}

func usersEnableCommand() *cobra.Command {
	c := &cobra.Command{Use: "enable ID|EMAIL", Short: "Open an account again"}
	return userCommand(c, did{"enabled", "is not disabled"}, func(ctx context.Context, users *identity.Service, id uuid.UUID, _ []string) (eventstore.Result, error) {
		return users.EnableUser(ctx, id, byOperator())
	})
}

func usersRolesCommand() *cobra.Command {
	add := &cobra.Command{Use: "add ID|EMAIL ROLE", Short: "Give a user a role", Example: "  usher users roles add ada@example.org admin"}
	remove := &cobra.Command{Use: "remove ID|EMAIL ROLE", Short: "Take a role from a user", Example: "  usher users roles remove ada@example.org admin"}
	return group("roles", "Give users roles and take them away",
		userCommand(add, did{"given the role to", "has the role already"}, func(ctx context.Context, users *identity.Service, id uuid.UUID, args []string) (eventstore.Result, error) {
			return users.GrantRole(ctx, id, args[0], byOperator())
		}),
		userCommand(remove, did{"taken the role from", "does not have the role"}, func(ctx context.Context, users *identity.Service, id uuid.UUID, args []string) (eventstore.Result, error) {
			return users.RevokeRole(ctx, id, args[0], byOperator())
		}),
		rolesUnadoptedCommand(), rolesAdoptCommand(), rolesRenameCommand())
}

func rolesUnadoptedCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "unadopted",
		Short: "List who has had the name of a role of usher's own since before it was one",
		Long: "List who has had the name of a role of usher's own since before it was one: auditor, which may read everything, or\n" +
			"operator, which may run the service. `usher serve` does not start before it is said what was meant.",
		Example: "  usher users roles unadopted",
	}
	return onDeployment(c, func(cmd *cobra.Command, d *deployment, _ []string) error {
		list, err := d.identity().UnadoptedRoles(cmd.Context())
		if err != nil {
			return err
		}
		rows := make([][]any, len(list))
		for i, h := range list {
			rows[i] = []any{h.Role, h.User}
		}
		return tell(cmd, append([]identity.RoleHolder{}, list...), table([]string{"ROLE", "USER"}, rows))
	})
}

func rolesAdoptCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "adopt ROLE",
		Short:   "Leave a role to all who have had it since before it was one of usher's own; it means from now on what it means here",
		Example: "  usher users roles adopt auditor",
	}
	return onDeployment(c, func(cmd *cobra.Command, d *deployment, args []string) error {
		n, err := d.identity().AdoptRole(cmd.Context(), args[0])
		if err != nil {
			return explainUser(err)
		}
		return tell(cmd, map[string]any{"role": args[0], "users": n}, text("%s may do what %s means", counted(n, "user", "users"), args[0]))
	})
}

func rolesRenameCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "rename ROLE NEW",
		Short:   "Give all who have had a role since before it was one of usher's own another in its place",
		Example: "  usher users roles rename operator switchboard",
	}
	return onDeployment(c, func(cmd *cobra.Command, d *deployment, args []string) error {
		n, err := d.identity().RenameRole(cmd.Context(), args[0], args[1], byOperator())
		if err != nil {
			return explainUser(err)
		}
		d.pingRelay()
		return tell(cmd, map[string]any{"role": args[1], "users": n}, text("%s given the role %s in the place of %s", counted(n, "user", "users"), args[1], args[0]))
	})
}

func usersTOTPCommand() *cobra.Command {
	reset := &cobra.Command{
		Use:     "reset ID|EMAIL",
		Short:   "Take the second factor from a user, and the recovery codes with it",
		Long:    "Take the second factor from a user who has lost it, and the recovery codes with it. Make sure first who it is that asks.",
		Example: "  usher users totp reset ada@example.org",
	}
	return group("totp", "Help users with their second factor",
		userCommand(reset, did{"taken the second factor from", "has no second factor"}, func(ctx context.Context, users *identity.Service, id uuid.UUID, _ []string) (eventstore.Result, error) {
			return users.ResetTOTP(ctx, id, byOperator())
		}))
}

func usersCreateCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "create EMAIL",
		Short: "Make a user",
		Long: "Make a user. Without a password the user can't log in before one is set, with a code that is mailed on request of\n" +
			"the user or of an administrator.",
		Example: "  usher users create ada@example.org --name Ada --role editor --verified",
	}
	name := c.Flags().String("name", "", "the user's name")
	roles := c.Flags().StringSlice("role", nil, "a role of the user; several are separated by commas, or given each")
	verified := c.Flags().Bool("verified", false, "the address counts as verified")
	attributes := c.Flags().String("attributes", "", "a JSON object of what the application keeps about the user")
	fromStdin := c.Flags().Bool("password-stdin", false, "read the user's password from the first line of standard input")
	return onDeployment(c, func(cmd *cobra.Command, d *deployment, args []string) error {
		n := identity.NewUser{Email: args[0], Name: *name, Roles: *roles, EmailVerified: *verified, Metadata: byOperator()}
		if *attributes != "" {
			n.Attributes = json.RawMessage(*attributes)
		}
		if *fromStdin {
			var err error
			if n.Password, err = readPassword(cmd.InOrStdin()); err != nil {
				return err
			}
		}
		users, stop, err := d.withPasswords(cmd.Context())
		if err != nil {
			return err
		}
		defer stop()
		u, result, err := users.CreateUser(cmd.Context(), n)
		if err != nil {
			return explainUser(err)
		}
		d.pingRelay()
		return tell(cmd, u, text("made %s, at position %d", u.ID, result.Position))
	})
}
