package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"usher.example/identity"
)

// flagJSON is the flag that every command has: what it prints is for programs, errors and the log included.
const flagJSON = "json"

func asJSON(cmd *cobra.Command) bool {
	wanted, err := cmd.Flags().GetBool(flagJSON)
	return err == nil && wanted
}

// tell prints what a command came to: a value as JSON where that is asked for, and otherwise what print writes.
func tell(cmd *cobra.Command, v any, print func(io.Writer) error) error {
	if asJSON(cmd) {
		return printJSON(cmd.OutOrStdout(), v)
	}
	return print(cmd.OutOrStdout())
}

// text is a line, or several, for tell.
func text(format string, args ...any) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := fmt.Fprintf(w, format+"\n", args...)
		return err
	}
}

// counted is how many there are of something, which is called one thing where it is one and another where it is not.
func counted[N int | int64](n N, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// table is rows under headings, in columns, for tell.
func table(headings []string, rows [][]any) func(io.Writer) error {
	return func(w io.Writer) error { return printTable(w, headings, rows) }
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func printTable(w io.Writer, headings []string, rows [][]any) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, strings.Join(headings, "\t"))
	for _, row := range rows {
		for i, cell := range row {
			if i > 0 {
				fmt.Fprint(t, "\t")
			}
			fmt.Fprint(t, oneLine(fmt.Sprint(cell)))
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}

// failure is how a command that was asked for JSON tells what is wrong.
type failure struct {
	Errors   []problem `json:"errors"`
	ExitCode int       `json:"exit_code"`
}

type problem struct {
	Code   string `json:"code"` // as in schema/problems.md where the API would refuse it too; else wrong_use or failed
	Detail string `json:"detail"`
}

// fail prints an error. Several are a line each; what a driver indents goes on with the line before.
func fail(w io.Writer, c *cobra.Command, err error, code int, asJSON bool) {
	var refusal *identity.Error
	kind := "failed"
	switch {
	case errors.As(err, &refusal):
		kind = string(refusal.Code)
	case code == exitUse:
		kind = "wrong_use"
	}
	out := failure{ExitCode: code}
	for _, line := range strings.Split(strings.ReplaceAll(err.Error(), "\n\t", " "), "\n") {
		out.Errors = append(out.Errors, problem{kind, line})
	}
	if asJSON { // on one line, as those of the log are
		_ = json.NewEncoder(w).Encode(out) // there is nobody left to tell
		return
	}
	for _, p := range out.Errors {
		fmt.Fprintln(w, "usher:", p.Detail)
	}
	if code == exitUse {
		fmt.Fprintf(w, "See `%s --help`.\n", c.CommandPath())
	}
}

// plainError is a refusal in its own words alone, as people read it; its code is still there for programs.
type plainError struct{ refusal *identity.Error }

func (e plainError) Error() string { return e.refusal.Detail }
func (e plainError) Unwrap() error { return e.refusal }

// explainUser says what is wrong in the words of a refusal, without its code.
func explainUser(err error) error {
	var refusal *identity.Error
	switch {
	case errors.Is(err, identity.ErrNotFound):
		return plainError{&identity.Error{Code: identity.CodeNotFound, Detail: "there is no such user"}}
	case errors.As(err, &refusal) && refusal.Detail != "" && refusal.Err == nil:
		return plainError{refusal}
	}
	return err
}
