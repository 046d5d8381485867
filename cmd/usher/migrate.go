package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"usher.example/schema"
)

func migrateCommand() *cobra.Command {
	return group("migrate", "Bring the database to the schema of this version",
		migrateUpCommand(), migrateStatusCommand(), migrateZeroCommand())
}

// onSchema has a command do something to the schema of the deployment's database, whichever that is of.
func onSchema(c *cobra.Command, do func(cmd *cobra.Command, m *schema.Migrator) error) *cobra.Command {
	dir := dirFlag(c)
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		return withMigrator(cmd.Context(), *dir, func(m *schema.Migrator) error { return do(cmd, m) })
	}
	return c
}

// withMigrator runs do on the database of the deployment.
func withMigrator(ctx context.Context, dir string, do func(*schema.Migrator) error) error {
	c, err := loadConfig()
	if err != nil {
		return err
	}
	var m *schema.Migrator
	if c.DatabaseURL != "" {
		m, err = schema.Postgres(string(c.DatabaseURL))
	} else {
		var path string
		if path, err = findDatabase(dir); err != nil {
			return err
		}
		m, err = schema.SQLite(path)
	}
	if err != nil {
		return err
	}
	// How far the schema is is for the command to say; a database that doesn't answer is not waited for.
	err = checkMigrated(ctx, m)
	if err == nil || errors.Is(err, schema.ErrNewer) || errors.Is(err, schema.ErrPending) {
		err = do(m)
	}
	return errors.Join(err, m.Close())
}

func migrateUpCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "up",
		Short:   "Apply the migrations that are missing",
		Long:    "Apply the migrations that are missing. Several processes may do so at once: one migrates, the others wait.",
		Example: "  usher migrate up",
	}
	return onSchema(c, func(cmd *cobra.Command, m *schema.Migrator) error {
		applied, err := m.Up(cmd.Context())
		holders := map[string]int{}
		if err == nil {
			holders, err = m.UnadoptedRoles(cmd.Context())
		}
		told := tell(cmd, map[string]any{"applied": append([]schema.Migration{}, applied...), "unadopted_roles": holders}, func(w io.Writer) error {
			for _, step := range applied {
				fmt.Fprintln(w, "applied", step.Name)
			}
			if err == nil && len(applied) == 0 {
				fmt.Fprintln(w, "nothing to apply")
			}
			for _, role := range slices.Sorted(maps.Keys(holders)) {
				fmt.Fprintf(w, "%s had the role %s before it was one of usher's own: see `usher users roles unadopted`\n", counted(holders[role], "user", "users"), role)
			}
			return nil
		})
		return errors.Join(err, told)
	})
}

func migrateStatusCommand() *cobra.Command {
	c := &cobra.Command{Use: "status", Short: "List the migrations and when they were applied", Example: "  usher migrate status"}
	return onSchema(c, func(cmd *cobra.Command, m *schema.Migrator) error {
		list, err := m.Status(cmd.Context())
		if err != nil {
			return err
		}
		rows := make([][]any, len(list))
		for i, step := range list {
			applied := "pending"
			if !step.Applied.IsZero() {
				applied = step.Applied.Format(time.RFC3339)
			}
			rows[i] = []any{step.Version, step.Name, applied}
		}
		return tell(cmd, list, table([]string{"VERSION", "NAME", "APPLIED"}, rows))
	})
}

func migrateZeroCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "zero",
		Short:   "Undo every migration and destroy all data (development only)",
		Example: "  usher migrate zero --yes",
	}
	consent := needsConsent(c)
	return onSchema(c, func(cmd *cobra.Command, m *schema.Migrator) error {
		if err := consent.ask(cmd, "Destroy every user and every event?"); err != nil {
			return err
		}
		if err := m.Zero(cmd.Context()); err != nil {
			return err
		}
		return tell(cmd, map[string]bool{"destroyed": true}, text("every table is gone; `usher migrate up` makes them anew"))
	})
}

// migrated applies missing migrations to the database of `usher dev`.
func migrated(ctx context.Context, path string) error {
	m, err := schema.SQLite(path)
	if err != nil {
		return err
	}
	_, err = m.Up(ctx)
	return errors.Join(err, m.Close())
}
