package main

import (
	"runtime"

	"github.com/spf13/cobra"
)

func versionCommand() *cobra.Command {
	c := &cobra.Command{Use: "version", Short: "Show the version of this program", Example: "  usher version --json"}
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		about := struct {
			Version string `json:"version"`
			Go      string `json:"go"`
			System  string `json:"system"`
		}{version, runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
		return tell(cmd, about, text("usher %s (%s, %s)", about.Version, about.Go, about.System))
	}
	return c
}
