package main

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"
)

// onDeployment has a command find its deployment and do something to it, between opening and closing it. What can be
// said of the command line before that belongs in the command's Args and PreRunE.
func onDeployment(c *cobra.Command, do func(cmd *cobra.Command, d *deployment, args []string) error) *cobra.Command {
	dir := dirFlag(c)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		d, err := open(cmd, *dir)
		if err != nil {
			return err
		}
		defer d.close()
		return do(cmd, d, args)
	}
	return c
}

// onBroker is onDeployment for what can't be done without NATS.
func onBroker(c *cobra.Command, do func(cmd *cobra.Command, d *deployment, conn *nats.Conn) error) *cobra.Command {
	return onDeployment(c, func(cmd *cobra.Command, d *deployment, _ []string) error {
		conn, err := d.connectNow()
		if err != nil {
			return err
		}
		defer conn.Close()
		return do(cmd, d, conn)
	})
}

// work does what a process without the API does, until it is interrupted.
func (d *deployment) work(cmd *cobra.Command, p process) error {
	conn, err := d.connect()
	if err != nil {
		return err
	}
	defer conn.Close()
	p.conn = conn
	if p.listeners, err = d.listenMetrics(); err != nil {
		return err
	}
	if p.publisher || p.webhooks { // which name PUBLIC_URL as the source of events
		d.warnOfPublicURL()
	}
	d.logger.Info("started", slog.String("command", cmd.CommandPath()), slog.String("version", version))
	return d.serve(cmd.Context(), p)
}

// otherNames are what other programs call a command, and what is answered with ours: by the path of the command.
var otherNames = map[string][]string{
	"clients add": {"create", "new", "register"}, "clients remove": {"delete", "rm", "revoke"},
	"events tail": {"list", "follow", "watch"}, "events show": {"get", "history"},
	"keys rotate": {"new", "create", "add"}, "outbox reset": {"rebuild", "republish", "clear"},
	"projections cancel": {"stop", "abort"}, "projections drop-standby": {"drop", "delete"}, "projections rebuild": {"reset", "replay"},
	"projections rollback": {"revert", "undo"}, "projections list": {"status"}, "publish": {"relay"}, "serve": {"server", "start", "run"},
	"users create": {"add", "new", "register"}, "users erase": {"delete", "remove", "rm", "forget"}, "users show": {"get", "find"},
	"users set-password": {"password", "passwd", "reset-password", "change-password"},
	"users roles":        {"grant", "revoke"}, "users roles add": {"grant", "give", "assign", "set"}, "users roles remove": {"revoke", "take", "unassign", "delete", "rm"},
	"users totp": {"mfa", "2fa", "otp"}, "users totp reset": {"remove", "disable", "delete"}, "users disable": {"suspend", "deactivate", "ban"},
	"users enable": {"activate", "unban"}, "webhooks add": {"create", "new"}, "webhooks remove": {"delete", "rm"}, "webhooks redrive": {"retry", "resend", "requeue"},
}

// knowOtherNames has every command suggested under its other names.
func knowOtherNames(c *cobra.Command) {
	for _, sub := range c.Commands() {
		_, path, _ := strings.Cut(sub.CommandPath(), " ")
		sub.SuggestFor = otherNames[path]
		knowOtherNames(sub)
	}
}

// group makes a command of others. Alone it prints its help; a name that it doesn't have is wrong use, and is answered with
// those that are near, or with all that there are.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use:   use,
		Short: short,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			err := fmt.Errorf("there is no command %q", c.CommandPath()+" "+args[0])
			if near := slices.Compact(c.SuggestionsFor(args[0])); len(near) > 0 {
				return fmt.Errorf("%w; did you mean %s?", err, strings.Join(near, " or "))
			}
			var names []string
			for _, sub := range c.Commands() {
				if sub.IsAvailableCommand() {
					names = append(names, sub.Name())
				}
			}
			return fmt.Errorf("%w; there are %s", err, strings.Join(names, ", "))
		},
		RunE:                       func(c *cobra.Command, _ []string) error { return c.Help() },
		SuggestionsMinimumDistance: 2,
	}
	c.AddCommand(commands...)
	return c
}

// countArguments has every command that does something refuse the wrong number of arguments, as its usage tells it: NAME is
// needed, [NAME] may be missing, and there may be more of what ends in an ellipsis.
func countArguments(c *cobra.Command) {
	for _, sub := range c.Commands() {
		countArguments(sub)
	}
	if c.HasSubCommands() {
		return
	}
	check := c.Args
	c.Args = func(cmd *cobra.Command, args []string) error {
		most := 0
		for i, name := range strings.Fields(cmd.Use)[1:] {
			switch optional := strings.HasPrefix(name, "["); {
			case i >= len(args) && !optional:
				return fmt.Errorf("%s is missing; the usage is: %s", name, cmd.UseLine())
			case strings.Contains(name, "…"):
				most = len(args)
			default:
				most++
			}
		}
		if len(args) > most {
			return fmt.Errorf("%q is an argument too many; the usage is: %s", args[most], cmd.UseLine())
		}
		if check == nil {
			return nil
		}
		return check(cmd, args)
	}
}
