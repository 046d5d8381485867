package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"usher.example/client"
	"usher.example/identity"
)

var (
	// codeSpan is what stands between backquotes, over the end of a line if need be.
	codeSpan = regexp.MustCompile("`([^`]+)`")
	// fence is a block of code.
	fence = regexp.MustCompile("(?ms)^ *```[a-z]*\n(.*?)^ *```")
	// usherLine is a command line, with what comes before the program: a path, variables, the container that it runs in.
	usherLine = regexp.MustCompile(`^(?:.*[ /])?usher ([a-z].*)$`)
	// shellWord is a word of a command line, which may have spaces between quotes.
	shellWord = regexp.MustCompile(`'[^']*'|"[^"]*"|\S+`)
	// namespace is usher as the name of something of Kubernetes.
	namespace = regexp.MustCompile(` -n usher `)
)

// commandLines are the command lines of usher in a document in Markdown, without the program's name.
func commandLines(text string) (lines []string) {
	var blocks []string
	text = fence.ReplaceAllStringFunc(text, func(block string) string {
		for line := range strings.Lines(block) {
			if command, is := strings.CutPrefix(strings.TrimSpace(line), "$ "); is {
				blocks = append(blocks, command)
			}
		}
		return ""
	})
	for _, span := range codeSpan.FindAllStringSubmatch(text, -1) {
		blocks = append(blocks, strings.Join(strings.Fields(span[1]), " "))
	}
	for _, b := range blocks {
		for _, end := range []string{" #", " >", " |"} {
			b, _, _ = strings.Cut(b, end)
		}
		if m := usherLine.FindStringSubmatch(namespace.ReplaceAllString(b, " ")); m != nil {
			lines = append(lines, strings.TrimSpace(m[1]))
		}
	}
	return lines
}

// placeholder says whether a word stands for what the reader has to put there.
func placeholder(word string) bool {
	return strings.Contains(word, "…") || strings.IndexFunc(word, unicode.IsLower) < 0 && strings.IndexFunc(word, unicode.IsUpper) >= 0
}

// checkCommandLine says what is wrong with a command line: a command, a flag or a value that there is not, or arguments that
// the command does not take. A command that is only named need not have its arguments.
func checkCommandLine(line string) error {
	root := newRoot(new(bool))
	var words []string
	for _, word := range shellWord.FindAllString(line, -1) {
		words = append(words, strings.Trim(word, `'"`))
	}
	c := root
	for len(words) > 0 {
		i := slices.IndexFunc(c.Commands(), func(sub *cobra.Command) bool { return sub.Name() == words[0] || sub.HasAlias(words[0]) })
		if i < 0 {
			break
		}
		c, words = c.Commands()[i], words[1:]
	}
	if c.HasSubCommands() && len(words) > 0 && !strings.HasPrefix(words[0], "-") && words[0] != "…" {
		return fmt.Errorf("%s has no command %s", c.CommandPath(), words[0])
	}
	c.InitDefaultHelpFlag()
	var args []string
	for len(words) > 0 {
		word := words[0]
		words = words[1:]
		name, is := strings.CutPrefix(word, "--")
		if !is {
			if placeholder(word) {
				word = uuid.Nil.String() // which is good for a user
			}
			args = append(args, word)
			continue
		}
		name, value, given := strings.Cut(name, "=")
		flag := c.Flag(name)
		if flag == nil {
			return fmt.Errorf("%s has no flag --%s", c.CommandPath(), name)
		}
		if !given && flag.NoOptDefVal == "" {
			if len(words) == 0 {
				continue // it is only named
			}
			value, words, given = words[0], words[1:], true
		}
		if given && !placeholder(value) {
			if err := flag.Value.Set(value); err != nil {
				return fmt.Errorf("%s --%s %s: %w", c.CommandPath(), name, value, err)
			}
		}
	}
	if len(args) == 0 || c.HasSubCommands() {
		return nil
	}
	return c.ValidateArgs(args)
}

// Whatever the documents tell operators to run is there, with those flags.
func TestDocumentedCommands(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..")
	files := []string{filepath.Join(root, "README.md"), filepath.Join(root, "SECURITY.md")}
	err := filepath.WalkDir(filepath.Join(root, "deploy"), func(path string, e fs.DirEntry, err error) error {
		if filepath.Ext(path) == ".md" {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range commandLines(string(raw)) {
			checked++
			if err := checkCommandLine(line); err != nil {
				t.Errorf("%s: usher %s: %v", file, line, err)
			}
		}
	}
	if checked < 80 {
		t.Errorf("%d command lines were found in %d documents: they are not read right", checked, len(files))
	}
}

// Every command that does something shows in its help how it is called, with commands and flags that there are.
func TestExamplesOfHelp(t *testing.T) {
	t.Parallel()
	var check func(c *cobra.Command)
	check = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			check(sub)
		}
		if c.HasSubCommands() {
			return
		}
		lines := commandLines("```\n$ " + strings.ReplaceAll(c.Example, "\n", "\n$ ") + "\n```\n")
		if len(lines) == 0 {
			t.Errorf("%s has no example", c.CommandPath())
		}
		for _, line := range lines {
			if err := checkCommandLine(line); err != nil {
				t.Errorf("the example usher %s of %s: %v", line, c.CommandPath(), err)
			}
			if !strings.HasPrefix("usher "+line, c.CommandPath()) {
				t.Errorf("%s has an example of another command: usher %s", c.CommandPath(), line)
			}
		}
	}
	check(newRoot(new(bool)))
}

// The check sees what it is there for.
func TestCheckCommandLine(t *testing.T) {
	t.Parallel()
	for line, wrong := range map[string]string{
		"projections skip NAME --user ID --position N": "",
		"webhooks redrive ID":                          "",
		"users erase":                                  "",
		"projections …":                                "",
		"purge --older-than=30d":                       "",
		"serve --with publisher,projections,webhooks":  "",
		"projections unskip NAME":                      "usher projections has no command unskip",
		"restart":                                      "usher has no command restart",
		"keys rotate --leak":                           "usher keys rotate has no flag --leak",
		"purge --older-than 30m":                       "days or hours",
		"webhooks list ID":                             "an argument too many",
	} {
		err := checkCommandLine(line)
		if wrong == "" && err != nil || wrong != "" && (err == nil || !strings.Contains(err.Error(), wrong)) {
			t.Errorf("checkCommandLine(%q) = %v, want %q", line, err, wrong)
		}
	}
	want := []string{"keys list", "users erase ID", "config", "outbox status", "migrate status"}
	got := commandLines("run `usher keys\nlist`, `docker compose exec api /usher users erase ID`, " +
		"`kubectl -n usher create job look`, `kubectl -n usher exec deploy/usher-api -- /usher migrate status`; see `usher.example/subscription`\n\n```console\n" +
		"$ BCRYPT_ROUNDS=plenty usher config\nusher: bad\n$ usher outbox status   # now\n```\n")
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("commandLines() = %q, want %q", got, want)
	}
}

// The table of who may do what says what the code does.
func TestRightsTable(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile(filepath.Join("..", "..", "deploy", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	said := map[string][4]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| (`[a-z]+:[a-z]+`(?:, `[a-z]+:[a-z]+`)*) \\|[^|]*\\| (yes|no)[^|]*\\| (yes|no)[^|]*\\| (yes|no)[^|]*\\| (yes|no) \\|$").FindAllStringSubmatch(string(raw), -1) {
		for _, scope := range codeSpan.FindAllStringSubmatch(row[1], -1) {
			said[scope[1]] = [4]bool{row[2] == "yes", row[3] == "yes", row[4] == "yes", row[5] == "yes"}
		}
	}
	is := map[string][4]bool{}
	for _, scope := range client.Scopes {
		may := func(role string) bool { return client.Allow([]string{role}, scope) }
		is[scope] = [4]bool{may(identity.RoleAdmin), may(identity.RoleAuditor), may(identity.RoleOperator), slices.Contains(client.ServiceScopes, scope)}
	}
	if diff := cmp.Diff(is, said); diff != "" {
		t.Errorf("what admin, auditor, operator and a service may (-code +deploy/README.md):\n%s", diff)
	}
}
