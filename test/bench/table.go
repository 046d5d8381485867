package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
)

// table prints results as they come, in columns.
type table struct {
	out    io.Writer
	begun  bool
	status *os.File // a terminal to show progress on, or nil
}

const (
	columns = "%-22s %11s %11s  %-19s  %9s %9s  %-19s  %6s  %s\n"
	none    = "–"
)

func newTable() *table {
	t := &table{out: os.Stdout}
	if info, err := os.Stderr.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
		t.status = os.Stderr
	}
	return t
}

// progress shows on a terminal what is going on.
func (t *table) progress(format string, args ...any) {
	if t.status != nil {
		fmt.Fprintf(t.status, "\r\x1b[K  "+format, args...)
	}
}

func (t *table) clear() {
	if t.status != nil {
		fmt.Fprint(t.status, "\r\x1b[K")
	}
}

func (t *table) heading(text string) {
	t.clear()
	fmt.Fprintln(t.out, text)
	fmt.Fprintln(t.out)
}

func (t *table) print(r result) {
	t.clear()
	if !t.begun {
		t.begun = true
		fmt.Fprintf(t.out, columns, "", "", "", "", "CPU µs an", "operation", "", "others", "")
		fmt.Fprintf(t.out, columns, "row", "usher", "yardstick", "ratio (range)", "usher", "yardstick", "ratio (range)", "CPU", "must reach")
	}
	yard, ratio := none, none
	if r.yardstick != "" {
		yard, ratio = r.show.print(r.yard.median), r.ratio.String()
	}
	ownCPU, yardCPU, cpuRatio := none, none, none
	if !r.noCPU {
		ownCPU = printCount(r.ownCPU.median)
		if r.yardstick != "" {
			yardCPU, cpuRatio = printCount(r.yardCPU.median), r.cpuRatio.String()
		}
	}
	fmt.Fprintf(t.out, columns, r.name, r.show.print(r.own.median), yard, ratio, ownCPU, yardCPU, cpuRatio,
		fmt.Sprintf("%.0f %%", 100*r.others), verdicts(r))
}

func verdicts(r result) string {
	if len(r.targets) == 0 {
		return none
	}
	texts := make([]string, len(r.targets))
	for i, t := range r.targets {
		texts[i] = t.String() + " " + r.verdict(t)
	}
	return strings.Join(texts, ", ")
}

// list prints what there is to measure.
func (t *table) list(benches []bench) error {
	w := tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ROW\tWHAT\tYARDSTICK\tMUST REACH")
	for _, b := range benches {
		about := b.about
		for _, l := range b.lines {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", l.name, about, orNone(l.against), orNone(targetList(l.targets)))
			about = ""
		}
	}
	return w.Flush()
}

func orNone(text string) string {
	if text == "" {
		return none
	}
	return text
}

func (s spread) String() string {
	return fmt.Sprintf("%.2fx (%.2f–%.2f)", s.median, s.low, s.high)
}

func printRate(v float64) string { return printCount(v) + "/s" }

// printCount prints three figures or more, with a comma every three digits.
func printCount(v float64) string {
	if v < 99.5 {
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	digits := strconv.FormatInt(int64(math.Round(v)), 10)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

func printMillis(v float64) string {
	if v < 99.5 {
		return fmt.Sprintf("%.2f ms", v)
	}
	return printCount(v) + " ms"
}

func printMebibytes(v float64) string { return printCount(v) + " MiB" }
