package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"usher.example/projections"
)

// allProjections are the read models that usher has.
func allProjections() []projections.Projection {
	return []projections.Projection{
		projections.UserProjection{}, projections.SessionProjection{}, projections.ActivityProjection{}, projections.StatsProjection{},
	}
}

func projectionNames() []string {
	var names []string
	for _, p := range allProjections() {
		names = append(names, p.Name())
	}
	return names
}

// projectionConsumers are the durable consumers that the read models are fed through.
func projectionConsumers() []string {
	var names []string
	for _, name := range projectionNames() {
		names = append(names, projections.Consumer(name))
	}
	return names
}

func projectCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "project [NAME…]",
		Short: "Keep read models up to date",
		Long: "Keep the named read models up to date, or all of them, until interrupted. Several workers may run: one works\n" +
			"on a read model, the others stand by.",
		Example:   "  usher project\n  usher project users sessions",
		ValidArgs: projectionNames(),
		Args: func(_ *cobra.Command, names []string) error {
			for _, name := range names {
				if !slices.Contains(projectionNames(), name) {
					return fmt.Errorf("there is no projection %q; there are %s", name, strings.Join(projectionNames(), ", "))
				}
			}
			return nil
		},
	}
	return onDeployment(c, func(cmd *cobra.Command, d *deployment, names []string) error {
		if len(names) == 0 {
			names = projectionNames()
		}
		return d.work(cmd, process{projections: names})
	})
}
