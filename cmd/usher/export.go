package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"usher.example/api"
	"usher.example/eventstore"
)

func eventsExportCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "export",
		Short: "Write the log as JSON Lines",
		Long: "Write the log as JSON Lines, up to where it ends now: to standard output, or to a file. With --output, an export that\n" +
			"was interrupted, or that is out of date, goes on where the file ends.",
		Example: "  usher events export > log.jsonl\n  usher events export --output log.jsonl",
	}
	output := c.Flags().String("output", "", "the file to write, or to go on with")
	from := c.Flags().String("from", "", "begin at this position or time")
	c.PreRunE = func(*cobra.Command, []string) error {
		if *output != "" && *from != "" {
			return fmt.Errorf("%w: --from and --output don't go together: the file says where to go on", errUse)
		}
		return nil
	}
	return onDeployment(c, func(cmd *cobra.Command, d *deployment, _ []string) error {
		if *output == "" {
			after := int64(0)
			if *from != "" {
				var err error
				if after, err = before(cmd.Context(), d.log, *from); err != nil {
					return err
				}
			}
			_, err := export(cmd.Context(), d.log, after, asItIs(cmd.OutOrStdout()))
			return err
		}
		f, after, err := resumeExport(*output)
		if err != nil {
			return err
		}
		n, err := export(cmd.Context(), d.log, after, f)
		if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
			return err
		}
		line := text("exported %s after position %d", counted(n, "event", "events"), after)
		if n == 0 {
			line = text("nothing to export: the file has everything, up to position %d", after)
		}
		return tell(cmd, map[string]int64{"exported_events": n, "after_position": after}, line)
	})
}

// export writes the events after a position, a line each, up to the log's head.
func export(ctx context.Context, log *eventstore.Log, after int64, w io.Writer) (events int64, err error) {
	out := bufio.NewWriterSize(w, 1<<20)
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	err = tail(ctx, log, after, false, func(event eventstore.Event) error {
		events++
		return e.Encode(api.ViewEvent(event))
	})
	return events, errors.Join(err, out.Flush())
}

// resumeExport opens an export to go on with it, and answers with the position of its last whole line. What follows that,
// because a write was cut short, is cut off.
func resumeExport(path string) (f *os.File, after int64, err error) {
	if f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, 0, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("go on with %s: %w", path, err), f.Close())
		}
	}()
	end, last, err := lastLine(f)
	if err != nil {
		return f, 0, err
	}
	if len(last) > 0 {
		var line struct{ Position int64 }
		if err := json.Unmarshal(last, &line); err != nil || line.Position < 1 {
			return f, 0, errors.New("it is no export: its last line is no event")
		}
		after = line.Position
	}
	if err := f.Truncate(end); err != nil {
		return f, 0, err
	}
	_, err = f.Seek(end, io.SeekStart)
	return f, after, err
}

// lastLine finds the end of the last whole line of a file, and the line.
func lastLine(f *os.File) (end int64, line []byte, err error) {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, nil, err
	}
	// From the end backwards, in growing pieces: a line is at most a few hundred kB.
	for length := int64(64 << 10); ; length *= 2 {
		length = min(length, size)
		piece := make([]byte, length)
		if _, err := f.ReadAt(piece, size-length); err != nil && !errors.Is(err, io.EOF) {
			return 0, nil, err
		}
		stop := bytes.LastIndexByte(piece, '\n')
		start := -1
		if stop >= 0 {
			start = bytes.LastIndexByte(piece[:stop], '\n')
		}
		switch {
		case stop >= 0 && (start >= 0 || length == size):
			return size - length + int64(stop) + 1, piece[start+1 : stop], nil
		case length == size: // no whole line
			return 0, nil, nil
		}
	}
}
