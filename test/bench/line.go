package main

import (
	"fmt"
	"strings"
)

// The share of the machine's CPU used by strangers above which the clock says little: of a rate, and of a quantile, which
// the worst moments make.
const (
	busy     = 0.30
	busyTail = 0.10
)

// line is one line of the table: a subject against a yardstick.
type line struct {
	name      string
	subject   string // names of sides
	yardstick string // "" where there is none
	against   string // what the yardstick is, for people
	show      quantity
	noCPU     bool // operations of the two sides are not alike
	targets   []target
}

// target is what a line must reach.
type target struct {
	what    string // "rate", "CPU" or a quantile's name
	atLeast bool
	limit   float64 // of the ratio, or of the subject's own value where there is a unit
	unit    string  // "ms" of what a clock says, or another
	// byClock: the sides wait for a disk or a broker most of the time, so that their CPU says nothing about their rates.
	byClock bool
}

func rateAtLeast(ratio float64) target {
	return target{what: rate.name, atLeast: true, limit: ratio}
}

// waitingRateAtLeast is the target of sides that have one caller, who waits.
func waitingRateAtLeast(ratio float64) target {
	return target{what: rate.name, atLeast: true, limit: ratio, byClock: true}
}

func cpuAtMost(ratio float64) target { return target{what: cpu.name, limit: ratio} }

func quantileAtMost(name string, ratio float64) target { return target{what: name, limit: ratio} }

func millisAtMost(name string, ms float64) target { return target{what: name, limit: ms, unit: millis} }

func mebibytesAtMost(name string, limit float64) target {
	return target{what: name, limit: limit, unit: mebibytes}
}

// The units of targets.
const (
	millis    = "ms"
	mebibytes = "MiB"
)

func (t target) String() string {
	sign := "≤"
	if t.atLeast {
		sign = "≥"
	}
	if t.unit != "" {
		return fmt.Sprintf("%s %s %g %s", t.what, sign, t.limit, t.unit)
	}
	return fmt.Sprintf("%s %s %gx", t.what, sign, t.limit)
}

func targetList(targets []target) string {
	texts := make([]string, len(targets))
	for i, t := range targets {
		texts[i] = t.String()
	}
	return strings.Join(texts, ", ")
}

// result is a line, measured.
type result struct {
	line
	own, yard       spread // the quantity shown
	ratio           spread
	ownCPU, yardCPU spread // microseconds an operation
	cpuRatio        spread
	others          float64
}

func (l line) result(samples map[string][]sample) result {
	own, yard := samples[l.subject], samples[l.yardstick]
	r := result{
		line:   l,
		own:    spreadOf(l.show.values(own)),
		yard:   spreadOf(l.show.values(yard)),
		ratio:  spreadOf(l.show.ratios(own, yard)),
		ownCPU: spreadOf(cpu.values(own)), yardCPU: spreadOf(cpu.values(yard)),
		cpuRatio: spreadOf(cpu.ratios(own, yard)),
	}
	for _, s := range append(own[:len(own):len(own)], yard...) {
		r.others += s.others / float64(len(own)+len(yard))
	}
	return r
}

// verdict says whether a target is reached. On a busy machine the clock is not asked: the CPU ratio decides in the place
// of the rate, with the inverse limit unless it has one of its own. What only a clock can tell is undecided there, unless
// it is good enough even so.
func (r result) verdict(t target) string {
	reached := func(yes bool) string {
		if yes {
			return "reached"
		}
		return "missed"
	}
	meets := func(v float64) bool {
		if t.atLeast {
			return v >= t.limit
		}
		return v <= t.limit
	}
	switch {
	case t.what == cpu.name:
		return reached(meets(r.cpuRatio.median))
	case t.what == rate.name && r.others <= busy:
		return reached(meets(r.ratio.median))
	case t.what == rate.name && r.judgedByCPU():
		return "(the CPU decides)"
	case t.what == rate.name && !t.byClock:
		return reached(meets(1/r.cpuRatio.median)) + " by CPU"
	}
	value := r.ratio.median
	if t.unit != "" {
		value = r.own.median
	}
	limit := busyTail
	if t.what == rate.name {
		limit = busy
	}
	if r.others > limit && !meets(value) && t.unit != mebibytes {
		return "undecided"
	}
	return reached(meets(value))
}

func (r result) judgedByCPU() bool {
	for _, t := range r.targets {
		if t.what == cpu.name {
			return true
		}
	}
	return false
}
