package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// health is how a thing is that was checked.
type health string

const (
	healthy health = "ok"
	warning health = "warning" // it works, and somebody should look
	failed  health = "failed"
)

// finding is what one check came to.
type finding struct {
	Component string         `json:"component"`
	Check     string         `json:"check"`
	Status    health         `json:"status"`
	Detail    string         `json:"detail,omitempty"` // what is wrong, and what to do
	Figures   map[string]any `json:"figures,omitempty"`
}

// check looks at one component. It says what it found with the functions of report.
type check struct {
	component string
	run       func(ctx context.Context, d *deployment, r *report)
}

// checks are all there are, in the order in which a deployment is put together.
func checks() []check {
	return []check{
		{"database", checkDatabase}, {"database", checkLog}, {"database", checkPrivileges}, {"database", checkReplication},
		{"database", checkErasures}, {"database", checkMasterKey},
		{"auth", checkAuth}, {"auth", checkPublicURL},
		{"outbox", checkOutbox},
		{"broker", checkBroker},
		{"projections", checkProjections}, {"projections", checkPulls(projectionPulls)},
		{"webhooks", checkWebhooks}, {"webhooks", checkPulls(webhookPulls)},
		{"mail", checkMail}, {"mail", checkPulls(mailPulls)},
	}
}

// report gathers what is found.
type report struct {
	component string
	findings  []finding
}

func (r *report) add(name string, s health, detail string, figures map[string]any) {
	r.findings = append(r.findings, finding{r.component, name, s, detail, figures})
}

func (r *report) ok(name string, figures map[string]any) { r.add(name, healthy, "", figures) }

func (r *report) warn(name, detail string, figures map[string]any) {
	r.add(name, warning, detail, figures)
}

func (r *report) fail(name, detail string, figures map[string]any) {
	r.add(name, failed, detail, figures)
}

// checkTime bounds one check.
const checkTime = 10 * time.Second

var components = []string{"all", "database", "auth", "outbox", "broker", "projections", "webhooks", "mail"}

func checkCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "check",
		Short: "Check that the deployment is well",
		Long: "Check that the deployment is well, from the database to the webhooks and mail. The exit code is 0 if nothing failed; a\n" +
			"warning is no failure.",
		Example: "  usher check\n  usher check --component outbox --verbose",
	}
	dir := dirFlag(c)
	component := c.Flags().String("component", "all", strings.Join(components, ", "))
	verbose := c.Flags().Bool("verbose", false, "show what is well too, and the figures")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		if !slices.Contains(components, *component) {
			return fmt.Errorf("%w: --component takes %s", errUse, strings.Join(components, ", "))
		}
		findings := inspect(cmd, *dir, *component)
		worst := healthy
		for _, f := range findings {
			worst = worse(worst, f.Status)
		}
		err := tell(cmd, struct {
			Status   health    `json:"status"`
			Findings []finding `json:"checks"`
		}{worst, findings}, func(w io.Writer) error { return printFindings(w, findings, *verbose) })
		if err == nil && worst == failed {
			err = errUnhealthy
		}
		return err
	}
	return c
}

// errUnhealthy: a check failed, and what it found was printed.
var errUnhealthy = errors.New("the deployment is not well")

// inspect runs the checks of a component, or all of them. A deployment that can't be opened is a finding too.
func inspect(cmd *cobra.Command, dir, component string) []finding {
	d, err := open(cmd, dir)
	if err != nil {
		var findings []finding
		for _, line := range strings.Split(err.Error(), "\n") {
			findings = append(findings, finding{Component: "database", Check: "open", Status: failed, Detail: line})
		}
		return findings
	}
	defer d.close()
	var findings []finding
	for _, c := range checks() {
		if component != "all" && component != c.component {
			continue
		}
		r := &report{component: c.component}
		ctx, cancel := context.WithTimeout(cmd.Context(), checkTime)
		c.run(ctx, d, r)
		cancel()
		findings = append(findings, r.findings...)
	}
	return findings
}

func worse(a, b health) health {
	order := []health{healthy, warning, failed}
	return order[max(slices.Index(order, a), slices.Index(order, b))]
}

func printFindings(w io.Writer, findings []finding, verbose bool) error {
	var rows [][]any
	for _, f := range findings {
		if verbose || f.Status != healthy {
			rows = append(rows, []any{f.Component, f.Check, f.Status, cmp.Or(f.Detail, figuresText(f.Figures))})
			if verbose && f.Detail != "" && len(f.Figures) > 0 {
				rows = append(rows, []any{"", "", "", figuresText(f.Figures)})
			}
		}
	}
	if len(rows) == 0 {
		_, err := fmt.Fprintf(w, "all %s ok\n", counted(len(findings), "check is", "checks are"))
		return err
	}
	return printTable(w, []string{"COMPONENT", "CHECK", "STATUS", "DETAIL"}, rows)
}

func figuresText(figures map[string]any) string {
	parts := make([]string, 0, len(figures))
	for name, value := range figures {
		parts = append(parts, fmt.Sprintf("%s=%v", name, value))
	}
	sort.Strings(parts)
	return strings.Join(parts, " ")
}
