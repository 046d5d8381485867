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
		Short: "Show the settings in force, secrets hidden",
		Args:  cobra.NoArgs,
	}
	asJSON := jsonFlag(c)
	asMarkdown := c.Flags().Bool("markdown", false, "describe every setting, as deploy/settings.md does")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		if *asMarkdown {
			return writeSettings(cmd.OutOrStdout())
		}
		loaded, err := loadConfig()
		if err != nil {
			return err
		}
		list := loaded.settings()
		if *asJSON {
			values := map[string]string{}
			for _, s := range list {
				values[s.Name] = s.Value
			}
			return printJSON(cmd.OutOrStdout(), values)
		}
		rows := make([][]any, len(list))
		for i, s := range list {
			rows[i] = []any{s.Name, s.Value}
		}
		return printTable(cmd.OutOrStdout(), []string{"SETTING", "VALUE"}, rows)
	}
	return c
}

// writeSettings writes deploy/settings.md.
func writeSettings(w io.Writer) error {
	var b strings.Builder
	b.WriteString("# Settings\n\nThis file is made from the code: `usher config --markdown > deploy/settings.md`.\n\n" +
		"Settings are environment variables. A file `.env` in the working directory is read when there is one; a real\n" +
		"variable wins over it. `usher config` shows what is in force, with secrets hidden.\n\n" +
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
