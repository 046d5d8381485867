// Command usher is the whole service in one binary: the API, the relay, the projection workers, and what operators need
// to run them. Each command has a file of its own; config.go is the only reader of the environment.
package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/KimMachineGun/automemlimit/memlimit"
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
	boundMemory(ctx, memlimit.FromCgroup)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run carries out a command line and answers with the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	began := false
	root := newRoot(&began)
	root.SetArgs(args)
	out := &visible{w: stderr}
	root.SetOut(&visible{w: stdout})
	root.SetErr(out)
	c, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitDone
	}
	code := exitFailed
	if !began || errors.Is(err, errUse) {
		code = exitUse
	}
	// A command line that can't be read may not have come as far as its --json.
	fail(out, c, err, code, asJSON(c) || slices.Contains(args, "--"+flagJSON))
	return code
}

// newRoot makes the command tree. began is set once a command runs: an error before that is one of use.
func newRoot(began *bool) *cobra.Command {
	root := group("usher", "A self-hosted, event-sourced user service",
		devCommand(), serveCommand(), publishCommand(), projectCommand(), webhooksCommand(), migrateCommand(),
		outboxCommand(), projectionsCommand(), eventsCommand(), usersCommand(), keysCommand(), clientsCommand(), mailCommand(),
		purgeCommand(), checkCommand(), healthCommand(), deployCommand(), configCommand(), versionCommand(),
	)
	root.Version = version
	root.SilenceUsage, root.SilenceErrors = true, true
	root.CompletionOptions.HiddenDefaultCmd = true
	root.PersistentFlags().Bool(flagJSON, false, "print JSON, of errors and in the log too")
	root.PersistentPreRun = func(*cobra.Command, []string) { *began = true }
	countArguments(root)
	knowOtherNames(root)
	return root
}

// newLogger logs as the settings say.
func newLogger(c *config, w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.LogLevel}
	if c.LogFormat == "json" {
		return slog.New(tracedHandler{slog.NewJSONHandler(w, options)})
	}
	return slog.New(tracedHandler{slog.NewTextHandler(w, options)})
}
