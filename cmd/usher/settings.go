package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

func configCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "config",
		Short: "Show the settings in force, and where each comes from",
		Long: "Show the settings in force, and where each comes from: the environment, the file .env in the working directory, or\n" +
			"the default. Secrets are hidden; of a server's address, only what lets somebody in.",
		Example: "  usher config\n  usher config --json",
	}
	asMarkdown := c.Flags().Bool("markdown", false, "describe every setting, as deploy/settings.md does")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		if *asMarkdown {
			return writeSettings(cmd.OutOrStdout())
		}
		loaded, err := loadConfig()
		if err != nil {
			return err
		}
		type shown struct {
			Value  any    `json:"value"`
			Source string `json:"source"`
		}
		values := map[string]shown{}
		var rows [][]any
		for _, s := range loaded.settings() {
			values[s.Name] = shown{s.Value, s.Source}
			if names, several := s.Value.([]string); several {
				s.Value = strings.Join(names, ",")
			}
			rows = append(rows, []any{s.Name, s.Value, s.Source})
		}
		return tell(cmd, values, table([]string{"SETTING", "VALUE", "FROM"}, rows))
	}
	return c
}

// writeSettings writes deploy/settings.md.
func writeSettings(w io.Writer) error {
	var b strings.Builder
	b.WriteString("# Settings\n\nThis file is made from the code: `usher config --markdown > deploy/settings.md`.\n\n" +
		"Settings are environment variables. A file `.env` in the working directory is read when there is one; a real\n" +
		"variable wins over it. `usher config` shows what is in force, with secrets hidden, and where each value comes from.\n\n" +
		"| setting | default | expected | what it does |\n|---|---|---|---|\n")
	for _, s := range new(config).settings() {
		name := "`" + s.Name + "`"
		if s.Secret {
			name += " (secret)"
		}
		def := s.Default
		if def != "" {
			def = "`" + def + "`"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", name, def, s.Expect, s.About)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
