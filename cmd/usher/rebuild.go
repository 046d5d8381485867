package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"

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
		Args:      cobra.ExactArgs(1),
		ValidArgs: projectionNames(),
	}
	dir, asJSON := dirFlag(c), jsonFlag(c)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		d, err := open(cmd, *dir)
		if err != nil {
			return err
		}
		defer d.close()
		show, elsewhere := showProgress(cmd.ErrOrStderr()), false
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
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), out)
		}
		return printRebuilt(cmd.OutOrStdout(), args[0], out)
	}
	return c
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

// progress shows how a rebuild is.
type progress interface {
	tell(projections.Rebuild)
	end()
}

// showProgress shows a bar on a terminal, and otherwise a line now and then.
func showProgress(w io.Writer) progress {
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return newBar(w)
	}
	return &lines{w: w}
}

func newBar(w io.Writer) *bar {
	return &bar{bar: progressbar.NewOptions64(1,
		progressbar.OptionSetWriter(w), progressbar.OptionFullWidth(), progressbar.OptionShowCount(), progressbar.OptionShowIts(),
		progressbar.OptionSetItsString("events"), progressbar.OptionSetPredictTime(true),
	)}
}

type bar struct {
	bar   *progressbar.ProgressBar
	state projections.RebuildState
}

func (b *bar) tell(r projections.Rebuild) {
	b.bar.ChangeMax64(max(r.Target, 1))
	_ = b.bar.Set64(r.Position) // the rebuild goes on, whatever becomes of the terminal
	if r.State != b.state {
		b.state = r.State
		b.bar.Describe(string(r.State))
	}
}

func (b *bar) end() { _ = b.bar.Exit() }

// lineEvery is how often a line says how far a rebuild is.
const lineEvery = 5 * time.Second

type lines struct {
	w     io.Writer
	state projections.RebuildState
	last  time.Time
}

func (l *lines) tell(r projections.Rebuild) {
	if r.State == l.state && time.Since(l.last) < lineEvery {
		return
	}
	l.state, l.last = r.State, time.Now()
	fmt.Fprintln(l.w, describeProgress(r))
}

func (l *lines) end() {}

func describeProgress(r projections.Rebuild) string {
	text := fmt.Sprintf("%s: %d of %d", r.State, r.Position, r.Target)
	if r.State == projections.RebuildLoading && r.ETA != nil {
		text += fmt.Sprintf(", %.0f events/s, %v left", r.Rate, time.Duration(*r.ETA)*time.Second)
	}
	if r.Elsewhere {
		text += " (in another process)"
	}
	return text
}
