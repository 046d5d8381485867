package main

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"usher/projections"
)

// allProjections are the read models that usher has.
func allProjections() []projections.Projection {
	return []projections.Projection{projections.UserProjection{}}
}

func projectionNames() []string {
	var names []string
	for _, p := range allProjections() {
		names = append(names, p.Name())
	}
	return names
}

func projectCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "project [NAME…]",
		Short: "Keep read models up to date",
		Long: "Keep the named read models up to date, or all of them, until interrupted. Several workers may run: one works\n" +
			"on a read model, the others stand by.",
		ValidArgs: projectionNames(),
	}
	dir := dirFlag(c)
	c.RunE = func(cmd *cobra.Command, names []string) error {
		for _, name := range names {
			if !slices.Contains(projectionNames(), name) {
				return fmt.Errorf("%w: there is no projection %q; there are %v", errUse, name, projectionNames())
			}
		}
		if len(names) == 0 {
			names = projectionNames()
		}
		d, err := open(cmd, *dir)
		if err != nil {
			return err
		}
		defer d.close()
		conn, err := d.connect()
		if err != nil {
			return err
		}
		defer conn.Close()
		l, err := d.listenMetrics()
		if err != nil {
			return err
		}
		return d.serve(cmd.Context(), process{projections: names, conn: conn, listeners: l})
	}
	return c
}

func projectionsCommand() *cobra.Command {
	return group("projections", "See how the read models are", projectionsListCommand())
}

func projectionsListCommand() *cobra.Command {
	c := &cobra.Command{Use: "list", Short: "List the read models, their position, lag and state", Args: cobra.NoArgs}
	dir, asJSON := dirFlag(c), jsonFlag(c)
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		d, err := open(cmd, *dir)
		if err != nil {
			return err
		}
		defer d.close()
		list, err := projections.NewCheckpoints(d.store).List(cmd.Context())
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), list)
		}
		rows := make([][]any, len(list))
		for i, s := range list {
			rows[i] = []any{s.Name, s.Generation, s.Position, s.Lag, s.State, s.ParkedCount, s.Error}
		}
		return printTable(cmd.OutOrStdout(), []string{"NAME", "GENERATION", "POSITION", "LAG", "STATE", "PARKED", "ERROR"}, rows)
	}
	return c
}
