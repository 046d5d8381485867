package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"usher.example/identity"
	"usher.example/identity/password"
	"usher.example/identity/userfile"
	"usher.example/projections"
)

func usersExportCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "export",
		Short: "Write all users to a file that import reads",
		Long: "Write all users as JSON Lines or CSV, with the fields that import reads: to standard output, or to a file. Password\n" +
			"hashes are left out unless they are asked for; whoever has them can try passwords for as long as they like.",
		Example: "  usher users export --format csv > users.csv\n  usher users export --with-hashes --output users.jsonl",
	}
	output := c.Flags().String("output", "", "the file to write")
	force := forceFlag(c)
	format := c.Flags().String("format", string(userfile.JSONLines), "jsonl or csv")
	hashes := c.Flags().Bool("with-hashes", false, "write the password hashes too")
	var form userfile.Format
	c.PreRunE = func(cmd *cobra.Command, _ []string) (err error) {
		if form, err = userfile.ParseFormat(*format); err != nil {
			return fmt.Errorf("%w: --format: %w", errUse, err)
		}
		if *output == "" && form == userfile.CSV && asJSON(cmd) {
			return fmt.Errorf("%w: --json and --format csv don't go together, but for a file", errUse)
		}
		return nil
	}
	return onDeployment(c, func(cmd *cobra.Command, d *deployment, _ []string) error {
		if *output == "" {
			_, err := d.exportUsers(cmd.Context(), asItIs(cmd.OutOrStdout()), form, *hashes)
			return err
		}
		var n int
		err := writeNew(*output, *force, func(w io.Writer) (err error) {
			n, err = d.exportUsers(cmd.Context(), w, form, *hashes)
			return err
		})
		if err != nil {
			return err
		}
		return tell(cmd, map[string]int{"exported_users": n}, text("exported %s", counted(n, "user", "users")))
	})
}

// exportWait bounds how long an export waits for the read model.
const exportWait = 3 * time.Second

// exportUsers writes every user, from the read model, once that has all that is in the log now.
func (d *deployment) exportUsers(ctx context.Context, file io.Writer, format userfile.Format, hashes bool) (n int, err error) {
	head, err := d.log.Head(ctx)
	if err != nil {
		return 0, err
	}
	waiting, stop := context.WithTimeout(ctx, exportWait)
	defer stop()
	if err := projections.NewCheckpoints(d.store).Await(waiting, projections.UsersName, head); err != nil {
		if errors.Is(err, projections.ErrBehind) {
			return 0, errors.New("the read model is behind the log; run `usher project`, and try again")
		}
		return 0, explainReadModel(err)
	}
	w, err := userfile.NewWriter(file, format)
	if err != nil {
		return 0, err
	}
	for f := (projections.UserFilter{Limit: projections.MaxLimit}); ; {
		page, err := d.users().List(ctx, f)
		if err != nil {
			return n, explainReadModel(err)
		}
		if err := d.exportPage(ctx, w, page.Items, hashes); err != nil {
			return n, err
		}
		n += len(page.Items)
		if f.Cursor = page.NextCursor; f.Cursor == "" {
			return n, w.Flush()
		}
	}
}

func (d *deployment) exportPage(ctx context.Context, w *userfile.Writer, users []projections.UserView, hashes bool) error {
	var known map[uuid.UUID]password.Hash
	if hashes {
		ids := make([]uuid.UUID, len(users))
		for i, u := range users {
			ids[i] = u.ID
		}
		var err error
		if known, err = d.identity().PasswordHashes(ctx, ids); err != nil {
			return err
		}
	}
	for _, u := range users {
		err := w.Write(identity.ImportedUser{
			Email: u.Email, Name: u.Name, Hash: known[u.ID], EmailVerified: u.EmailVerified, Status: u.Status, Roles: u.Roles, Attributes: u.Attributes,
			CreatedAt: u.CreatedAt,
		})
		if err != nil {
			return err
		}
	}
	return nil
}
