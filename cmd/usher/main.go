// Command usher is the whole service in one binary: the API, the relay, the projection workers, and what operators need
// to run them. Each command has a file of its own; config.go is the only reader of the environment.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the build.
var version = "development"

// Exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUse    = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second interrupt ends the process at once
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run carries out a command line and answers with the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	began := false
	root := newRoot(&began)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return exitDone
	case !began || errors.Is(err, errUse):
		fmt.Fprintf(stderr, "usher: %v\nSee `usher --help`.\n", err)
		return exitUse
	}
	// Several errors are a line each; what a driver indents goes on with the line before.
	for _, line := range strings.Split(strings.ReplaceAll(err.Error(), "\n\t", " "), "\n") {
		fmt.Fprintln(stderr, "usher:", line)
	}
	return exitFailed
}

// newRoot makes the command tree. began is set once a command runs: an error before that is one of use.
func newRoot(began *bool) *cobra.Command {
	root := group("usher", "A self-hosted, event-sourced user service",
		devCommand(), serveCommand(), publishCommand(), projectCommand(), webhooksCommand(), migrateCommand(),
		outboxCommand(), projectionsCommand(), eventsCommand(), usersCommand(), keysCommand(), clientsCommand(),
		purgeCommand(), checkCommand(), healthCommand(), configCommand(),
	)
	root.Version = version
	root.SilenceUsage, root.SilenceErrors = true, true
	root.CompletionOptions.HiddenDefaultCmd = true
	root.PersistentPreRun = func(*cobra.Command, []string) { *began = true }
	return root
}

// group makes a command of others. Alone it prints its help; a name that it doesn't have is wrong use.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use:   use,
		Short: short,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("there is no command %q", c.CommandPath()+" "+args[0])
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(commands...)
	return c
}

// newLogger logs as the settings say.
func newLogger(c *config, w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.LogLevel}
	if c.LogFormat == "json" {
		return slog.New(tracedHandler{slog.NewJSONHandler(w, options)})
	}
	return slog.New(tracedHandler{slog.NewTextHandler(w, options)})
}
