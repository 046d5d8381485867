package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// consent is what a command has to have before it does what can't be taken back.
type consent struct{ yes *bool }

// needsConsent gives a command the flag --yes. All that destroy something have it, and ask in the same way: the command
// calls ask once it knows what it is about to do.
func needsConsent(c *cobra.Command) consent {
	return consent{c.Flags().Bool("yes", false, "do not ask, as where there is no terminal")}
}

// ask fails unless the flag is there, or the answer is yes. A program may give that answer as well, through a pipe; where
// there is none, as in a job that runs by itself, it says what to do.
func (a consent) ask(cmd *cobra.Command, question string) error {
	if *a.yes {
		return nil
	}
	if _, err := fmt.Fprint(cmd.ErrOrStderr(), question, " Type yes to go on: "); err != nil {
		return err
	}
	answer, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the answer: %w", err)
	}
	if strings.TrimSpace(answer) == "yes" {
		return nil
	}
	if errors.Is(err, io.EOF) {
		fmt.Fprintln(cmd.ErrOrStderr())
	}
	if answer == "" {
		return fmt.Errorf("%w: nobody answered, so nothing was done; where there is no terminal, add --yes if you mean it", errUse)
	}
	return errors.New("nothing was done, since the answer was not yes")
}
