package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// What can't be taken back is done if somebody says yes, with the flag or when asked, and otherwise not.
func TestConsent(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		args   []string
		answer string
		fails  string // what the error says, "" for consent
		use    bool   // it is one of use
	}{
		"the flag":   {args: []string{"--yes"}},
		"yes":        {answer: "yes\n"},
		"yes, alone": {answer: " yes "},
		"no":         {answer: "no\n", fails: "not yes"},
		"y":          {answer: "y\n", fails: "not yes"},
		"empty line": {answer: "\n", fails: "not yes"},
		"nobody":     {fails: "add --yes", use: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			done := false
			c := &cobra.Command{Use: "destroy", SilenceErrors: true, SilenceUsage: true}
			consent := needsConsent(c)
			c.RunE = func(cmd *cobra.Command, _ []string) error {
				if err := consent.ask(cmd, "Destroy it?"); err != nil {
					return err
				}
				done = true
				return nil
			}
			var said bytes.Buffer
			c.SetArgs(test.args)
			c.SetIn(strings.NewReader(test.answer))
			c.SetErr(&said)
			err := c.Execute()
			if (err == nil) != (test.fails == "") || done != (test.fails == "") || err != nil && !strings.Contains(err.Error(), test.fails) || errors.Is(err, errUse) != test.use {
				t.Errorf("%v, done: %v", err, done)
			}
			if asked := strings.HasPrefix(said.String(), "Destroy it? Type yes to go on: "); asked != (len(test.args) == 0) {
				t.Errorf("it says %q", &said)
			}
		})
	}
}

// Every command that destroys something has the flag, and no other.
func TestWhoNeedsConsent(t *testing.T) {
	t.Parallel()
	var has []string
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Flags().Lookup("yes") != nil {
			has = append(has, strings.TrimPrefix(c.CommandPath(), "usher "))
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRoot(new(bool)))
	want := "clients remove, keys rotate, migrate zero, outbox reset, projections cancel, projections drop-standby, projections skip, purge, users erase, webhooks remove"
	if got := strings.Join(has, ", "); got != want {
		t.Errorf("these ask: %s; want %s", got, want)
	}
}
