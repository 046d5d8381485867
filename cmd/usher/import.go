package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"usher.example/identity/userfile"
)

func usersImportCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "import FILE",
		Short: "Bring in users from a file, with the passwords that they have",
		Long: "Bring in users from a file of JSON Lines or CSV; - stands for standard input. The fields are email, name, password_hash,\n" +
			"email_verified, status, roles, attributes and created_at; all but email may be missing. Hashes of bcrypt, argon2,\n" +
			"scrypt and PBKDF2 are taken as they are, also in Django's form, and are replaced when their users log in.\n\n" +
			"A line that was imported once is not imported again, whatever has become of the user since, so an import that was\n" +
			"interrupted is simply done again. A line with another password hash or status than the user was imported with updates\n" +
			"the user, unless that was changed here since. Of lines with one address the first counts. Lines that are refused are\n" +
			"told by their numbers, and change nothing.",
		Example: "  usher users import users.csv --dry-run\n  usher users import users.jsonl --report refused.jsonl",
	}
	format := c.Flags().String("format", "", "jsonl or csv; told by the file's first character unless it is given")
	dry := c.Flags().Bool("dry-run", false, "say what would be done, and do nothing")
	report := c.Flags().String("report", "", "write the refused lines to this file, as JSON Lines, instead of standard error")
	force := forceFlag(c)
	c.PreRunE = func(*cobra.Command, []string) error {
		if *format != "" {
			if _, err := userfile.ParseFormat(*format); err != nil {
				return fmt.Errorf("%w: --format: %w", errUse, err)
			}
		}
		return nil
	}
	return onDeployment(c, func(cmd *cobra.Command, d *deployment, args []string) (err error) {
		file, size, err := openUsers(cmd, args[0])
		if err != nil {
			return err
		}
		defer file.Close()
		i := importing{dry: *dry, refuse: tellRefused(cmd)}
		endBar := func() {}
		if f := terminal(cmd.ErrOrStderr()); f != nil && !asJSON(cmd) {
			bar := newBar(f, size, progressbar.OptionShowBytes(true))
			endBar = bar.end
			i.show = bar
			i.refuse = func(r userfile.Result) error { return bar.screen.above(cmd.ErrOrStderr(), r.String()) }
		}
		if *report != "" {
			if sameFile(*report, args[0]) {
				return fmt.Errorf("%w: --report names the file that is imported", errUse)
			}
			f, err := createNew(*report, *force)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, f.Close()) }()
			i.refuse = func(r userfile.Result) error { return json.NewEncoder(f).Encode(r) }
		}
		err = i.run(cmd.Context(), d, file, userfile.Format(*format))
		endBar()
		if err != nil {
			return err
		}
		return i.tell(cmd)
	})
}

// tellRefused tells of a refused line on standard error.
func tellRefused(cmd *cobra.Command) func(userfile.Result) error {
	if asJSON(cmd) {
		return func(r userfile.Result) error { return json.NewEncoder(cmd.ErrOrStderr()).Encode(r) }
	}
	return func(r userfile.Result) error {
		_, err := fmt.Fprintln(cmd.ErrOrStderr(), r)
		return err
	}
}

// openUsers opens a file to import, and says how large it is, -1 where that is not known.
func openUsers(cmd *cobra.Command, path string) (io.ReadCloser, int64, error) {
	if path == "-" {
		return io.NopCloser(cmd.InOrStdin()), -1, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

// importing is an import under way.
type importing struct {
	dry    bool
	refuse func(userfile.Result) error
	show   io.Writer // gets all that is read; nil for nobody

	Imported int `json:"imported"`
	Updated  int `json:"updated"`
	Already  int `json:"already_imported"`
	Refused  int `json:"refused"`
}

func (i *importing) run(ctx context.Context, d *deployment, file io.Reader, format userfile.Format) error {
	if !collectorChosen() {
		debug.SetGCPercent(gcPercent)
	}
	if i.show != nil {
		file = io.TeeReader(file, i.show)
	}
	lines, err := userfile.NewReader(file, format)
	if err != nil {
		return err
	}
	last := 0
	var told error
	err = userfile.Import(ctx, d.identity(), lines, byOperator(), i.dry, func(r userfile.Result) {
		last = r.Line
		switch r.Outcome {
		case userfile.Imported:
			i.Imported++
		case userfile.Updated:
			i.Updated++
		case userfile.Already:
			i.Already++
		case userfile.Refused:
			if r.Err != nil {
				d.logger.Error("a line was not imported", slog.Int("line", r.Line), slog.Any("error", r.Err))
			}
			i.Refused++
			told = errors.Join(told, i.refuse(r))
		}
	})
	if i.Imported+i.Updated > 0 && !i.dry {
		d.pingRelay()
	}
	if err != nil {
		err = fmt.Errorf("stopped after line %d; the same command goes on from there: %w", last, err)
	}
	return errors.Join(err, told)
}

// tell says what was done, and fails where lines were refused.
func (i *importing) tell(cmd *cobra.Command) error {
	imported, updated := "imported", "updated"
	if i.dry {
		imported, updated = "would import", "would update"
	}
	if err := tell(cmd, i, text("%s %s, %s %d; %s imported already", imported, counted(i.Imported, "user", "users"), updated, i.Updated, counted(i.Already, "was", "were"))); err != nil {
		return err
	}
	if i.Refused > 0 {
		return fmt.Errorf("%s refused", counted(i.Refused, "line was", "lines were"))
	}
	return nil
}
