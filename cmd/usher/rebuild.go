package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"usher.example/projections"
)

func projectionsRebuildCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "rebuild NAME",
		Short: "Fill a read model anew from the log, beside the live one",
		Long: "Fill a read model anew from the log, beside the live one, compare the two and exchange them. Reads and writes go\n" +
			"on meanwhile. The tables that were live stay current as a way back, until `usher projections drop-standby` or the\n" +
			"next rebuild. Where another process rebuilds already, its progress is shown. An interrupt cancels the rebuild of\n" +
			"this process and leaves nothing behind; one that was killed goes on where it was, by this command or a worker.",
		Example:   "  usher projections rebuild users",
		ValidArgs: projectionNames(),
	}
	return onDeployment(c, func(cmd *cobra.Command, d *deployment, args []string) error {
		show, elsewhere := showProgress(cmd.ErrOrStderr(), asJSON(cmd)), false
		out, err := d.operator(cmd).Rebuild(cmd.Context(), args[0], func(r projections.Rebuild) {
			elsewhere = r.Elsewhere
			show.tell(r)
		})
		show.end()
		switch {
		case err != nil && cmd.Context().Err() != nil && elsewhere:
			return fmt.Errorf("interrupted; another process goes on with it, and `usher projections cancel %s` ends it", args[0])
		case errors.Is(err, context.Canceled):
			return errors.New("interrupted; nothing was changed")
		case err != nil:
			return explainProjection(err)
		}
		return tell(cmd, out, func(w io.Writer) error { return printRebuilt(w, args[0], out) })
	})
}

func printRebuilt(w io.Writer, name string, out projections.Rebuilt) error {
	if out.Elsewhere {
		_, err := fmt.Fprintf(w, "%s: another process rebuilt it; generation %d is live at position %d\n", name, out.Generation, out.Position)
		return err
	}
	fmt.Fprintf(w, "%s: generation %d is live at position %d, after %v\n", name, out.Generation, out.Position, out.Took.Round(time.Millisecond))
	for _, difference := range out.Differences {
		if _, err := fmt.Fprintln(w, difference); err != nil {
			return err
		}
	}
	if len(out.Differences) == 0 {
		_, err := fmt.Fprintln(w, "the tables that were live before had no differences")
		return err
	}
	return nil
}
