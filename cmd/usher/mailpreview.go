package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"usher.example/identity/mail"
	"usher.example/words"
)

func mailCommand() *cobra.Command {
	return group("mail", "See what mails look like", mailPreviewCommand())
}

func mailPreviewCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "preview [NAME]",
		Short: "Show mails, about somebody who does not exist",
		Long: "Show what mails look like with the settings that are in force, templates of MAIL_TEMPLATES included: all of them or one, in\n" +
			"all languages or in one. Their texts are printed; with --out, each is written to three files of a directory: its text, its\n" +
			"HTML for a browser, and the message for a mail program. Nothing is sent, and nothing has to be running.",
		Example: "  usher mail preview verify --language de\n  usher mail preview --out mails",
	}
	language := c.Flags().String("language", "", "in this language: "+strings.Join(languages(), ", "))
	out := c.Flags().String("out", "", "the directory to write files to")
	c.PreRunE = func(_ *cobra.Command, args []string) error {
		if *language != "" && !slices.Contains(languages(), *language) {
			return fmt.Errorf("%w: --language is one of %s", errUse, strings.Join(languages(), ", "))
		}
		if len(args) > 0 && !slices.Contains(mail.Names(), args[0]) {
			return fmt.Errorf("%w: there is no mail %q; there are %s", errUse, args[0], strings.Join(mail.Names(), ", "))
		}
		return nil
	}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		config, err := loadConfig()
		if err != nil {
			return err
		}
		names, in := mail.Names(), languages()
		if len(args) > 0 {
			names = args
		}
		if *language != "" {
			in = []string{*language}
		}
		shown, err := config.previews(names, in)
		if err != nil {
			return err
		}
		if *out == "" {
			return tell(cmd, shown, func(w io.Writer) error { return printMails(w, shown) })
		}
		if err := config.writeMails(*out, shown); err != nil {
			return err
		}
		return tell(cmd, map[string]int{"mails": len(shown)}, text("wrote %s to %s", counted(len(shown), "mail", "mails"), *out))
	}
	return c
}

func languages() []string {
	list := make([]string, len(words.Languages))
	for i, tag := range words.Languages {
		list[i] = tag.String()
	}
	return list
}

// preview is a mail as it is shown.
type preview struct {
	Name     string `json:"name"`
	Language string `json:"language"`
	Subject  string `json:"subject"`
	Text     string `json:"text"`
	HTML     string `json:"html"`
	message  mail.Message
}

func (c *config) previews(names, languages []string) ([]preview, error) {
	letters, err := c.letters()
	if err != nil {
		return nil, err
	}
	var list []preview
	for _, name := range names {
		for _, language := range languages {
			m, err := letters.Example(name, language)
			if err != nil {
				return nil, err
			}
			list = append(list, preview{name, language, m.Subject, m.Text, m.HTML, m})
		}
	}
	return list, nil
}

func printMails(w io.Writer, list []preview) error {
	for i, p := range list {
		if i > 0 {
			if _, err := fmt.Fprintln(w); err != nil {
				return err
			}
		}
		if _, err := fmt.Fprintf(w, "== %s, %s: %s\n\n%s", p.Name, p.Language, p.Subject, p.Text); err != nil {
			return err
		}
	}
	return nil
}

func (c *config) writeMails(dir string, list []preview) error {
	from, err := c.mailFrom()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, p := range list {
		var message bytes.Buffer
		if err := p.message.Write(&message, *from); err != nil {
			return err
		}
		for extension, content := range map[string][]byte{".txt": []byte(p.Text), ".html": []byte(forBrowser(p.message)), ".eml": message.Bytes()} {
			if err := os.WriteFile(filepath.Join(dir, p.Name+"."+p.Language+extension), content, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

// forBrowser is a mail's HTML with the logo in it that the mail brings along beside.
func forBrowser(m mail.Message) string {
	if m.Logo == nil {
		return m.HTML
	}
	return strings.ReplaceAll(m.HTML, m.Logo.Address(), "data:"+m.Logo.ContentType+";base64,"+base64.StdEncoding.EncodeToString(m.Logo.Content))
}
