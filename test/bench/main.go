// Command bench measures usher against yardsticks: the same work done by the shortest code that does it.
//
//	go run ./test/bench [-rounds N] [-seconds S] [-events N] [-list] [NAME…]
//
// Each line of its table is one comparison. Subject and yardstick take turns in one run, on the same servers, and what
// counts is the median of the rounds' ratios; a figure of another machine, or of another hour, says little. CPU time is
// that of all processes that worked for a side: this one, PostgreSQL with all its backends, nats-server, and the HTTP
// servers, which are children of this process. Where strangers used more than 30 % of the machine, the rates are shown
// and the CPU decides. What a clock alone can tell is undecided on a busy machine, unless it is good enough even so.
//
// A name picks the lines that begin with it. Nothing here passes or fails: the exit code is 1 only if something could
// not be measured.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"usher.example/internal/devstack"
)

// gcPercent is what usher's commands run with. All that is measured has it, the yardsticks too.
const gcPercent = 400

// bench is a group of lines that are measured together, on databases of their own.
type bench struct {
	about   string // what is measured
	lines   []line
	seconds float64 // the least length of a round
	setup   func(s *stage) ([]side, error)
}

func benches() []bench {
	return slices.Concat(appendBenches(), relayBenches(), shardBenches(), catchUpBenches(), loginBenches(), stormBenches(), meBenches(), signInBenches(), sessionBenches(), clientBenches(), latencyBenches(), importBenches(), searchBenches(),
		rebuildBenches(), webhookBenches(), watermillBenches(), idleBenches())
}

func main() {
	devstack.RunIfChild()
	runServerIfChild()
	debug.SetGCPercent(gcPercent)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// flags are the settings of a run.
type flags struct {
	rounds  int
	seconds float64
	events  int
}

func run(ctx context.Context) (err error) {
	var f flags
	set := flag.NewFlagSet("bench", flag.ContinueOnError)
	set.IntVar(&f.rounds, "rounds", 5, "rounds of each side")
	set.Float64Var(&f.seconds, "seconds", 1, "length of a round; a few lines take longer ones")
	set.IntVar(&f.events, "events", 200_000, "events in the logs that the relay and the projection work through")
	list := set.Bool("list", false, "list what can be measured")
	if err := set.Parse(os.Args[1:]); err != nil {
		return err
	}
	if f.rounds < 1 || f.seconds <= 0 || f.events < 1000 {
		return errors.New("-rounds is at least 1, -seconds more than 0, -events at least 1,000")
	}
	picked, err := pick(benches(), set.Args())
	if err != nil {
		return err
	}
	t := newTable()
	if *list {
		return t.list(picked)
	}

	l, err := openLab(ctx, f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	version, err := l.postgresVersion(ctx)
	if err != nil {
		return err
	}
	t.heading(fmt.Sprintf("%d rounds of %g s · %d CPUs · PostgreSQL %s, durable · nats-server %s · %s",
		f.rounds, f.seconds, runtime.NumCPU(), version, server.VERSION, runtime.Version()))
	for _, b := range picked {
		if err := b.measure(ctx, l, t); err != nil {
			return fmt.Errorf("%s: %w", b.lines[0].name, err)
		}
	}
	return nil
}

// pick chooses the lines that begin with one of the names, or all where there are none.
func pick(all []bench, names []string) ([]bench, error) {
	if len(names) == 0 {
		return all, nil
	}
	var picked []bench
	known := map[string]bool{}
	for _, b := range all {
		var lines []line
		for _, l := range b.lines {
			for _, name := range names {
				if strings.HasPrefix(l.name, name) {
					known[name] = true
					lines = append(lines, l)
					break
				}
			}
		}
		if len(lines) > 0 {
			b.lines = lines
			picked = append(picked, b)
		}
	}
	for _, name := range names {
		if !known[name] {
			return nil, fmt.Errorf("nothing is called %q; -list shows what there is", name)
		}
	}
	return picked, nil
}

// measure runs the bench and prints its lines.
func (b bench) measure(ctx context.Context, l *lab, t *table) (err error) {
	t.progress("%s: setting up", b.lines[0].name)
	defer t.clear()
	s := &stage{lab: l, ctx: ctx}
	defer func() { err = errors.Join(err, s.clear()) }()
	sides, err := b.setup(s)
	if err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	sides = slices.DeleteFunc(sides, func(s side) bool { return !b.needs(s.name) })
	length := time.Duration(max(b.seconds, l.flags.seconds) * float64(time.Second))
	samples, err := rounds(ctx, l.accounts, sides, l.flags.rounds, length, func(side string, round int) {
		t.progress("%s: %s, round %d of %d", b.lines[0].name, side, round, l.flags.rounds)
	})
	if err != nil {
		return err
	}
	for _, line := range b.lines {
		t.print(line.result(samples))
	}
	return nil
}

// needs says whether any line compares a side.
func (b bench) needs(side string) bool {
	return slices.ContainsFunc(b.lines, func(l line) bool { return l.subject == side || l.yardstick == side })
}
