package main

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSpreadOf(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		values []float64
		want   spread
	}{
		{nil, spread{}},
		{[]float64{3}, spread{3, 3, 3}},
		{[]float64{3, 1, 2}, spread{2, 1, 3}},
		{[]float64{4, 1, 3, 2}, spread{2.5, 1, 4}},
	} {
		if got := spreadOf(c.values); got != c.want {
			t.Errorf("spreadOf(%v) = %v, want %v", c.values, got, c.want)
		}
	}
}

func TestQuantileOf(t *testing.T) {
	t.Parallel()
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[len(hundred)-1-i] = time.Duration(i + 1)
	}
	for _, c := range []struct {
		values []time.Duration
		q      float64
		want   time.Duration
	}{
		{nil, 0.5, 0},
		{[]time.Duration{7}, 0.99, 7},
		{[]time.Duration{2, 1}, 0.5, 1},
		{hundred, 0.5, 50},
		{hundred, 0.99, 99},
		{hundred, 1, 100},
		{hundred, 0, 1},
	} {
		if got := quantileOf(c.values, c.q); got != c.want {
			t.Errorf("quantileOf(%d values, %v) = %d, want %d", len(c.values), c.q, got, c.want)
		}
	}
}

func round(ops int, wall, cpu time.Duration) sample {
	return sample{tally: tally{ops: ops}, wall: wall, cpu: cpu}
}

func TestLineResult(t *testing.T) {
	t.Parallel()
	l := line{subject: usher, yardstick: bare, show: rate}
	samples := map[string][]sample{
		usher: {round(200, time.Second, time.Millisecond), round(300, time.Second, 3*time.Millisecond), round(400, 2*time.Second, 4*time.Millisecond)},
		bare:  {round(100, time.Second, time.Millisecond), round(100, time.Second, 2*time.Millisecond), round(200, time.Second, 4*time.Millisecond)},
	}
	samples[usher][0].others = 0.6
	want := result{
		line:   l,
		own:    spread{200, 200, 300},
		yard:   spread{100, 100, 200},
		ratio:  spread{2, 1, 3},
		ownCPU: spread{10, 5, 10}, yardCPU: spread{20, 10, 20},
		cpuRatio: spread{0.5, 0.5, 0.5},
		others:   0.1,
	}
	got := l.result(samples)
	got.show, want.show = quantity{}, quantity{}
	near := cmp.Comparer(func(a, b float64) bool { return a-b < 1e-9 && b-a < 1e-9 })
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(result{}, line{}, spread{}, quantity{}), near); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
}

func TestVerdict(t *testing.T) {
	t.Parallel()
	both := []target{cpuAtMost(0.35), rateAtLeast(1.5)}
	for _, c := range []struct {
		name   string
		of     target
		all    []target
		wall   float64 // ratio
		cpu    float64 // ratio
		own    float64 // value
		others float64
		want   string
	}{
		{"rate", rateAtLeast(1.5), nil, 1.5, 9, 0, 0.3, "reached"},
		{"rate too low", rateAtLeast(1.5), nil, 1.49, 0, 0, 0, "missed"},
		{"CPU", cpuAtMost(0.35), both, 0, 0.35, 0, 0, "reached"},
		{"CPU too high", cpuAtMost(0.35), both, 9, 0.36, 0, 0.9, "missed"},
		{"rate, busy, with a limit of CPU", rateAtLeast(1.5), both, 9, 0, 0, 0.31, "(the CPU decides)"},
		{"rate, busy", rateAtLeast(0.8), nil, 0.1, 1.25, 0, 0.31, "reached by CPU"},
		{"rate, busy, too much CPU", rateAtLeast(0.8), nil, 9, 1.26, 0, 0.31, "missed by CPU"},
		{"rate of who waits, busy", waitingRateAtLeast(5), nil, 4, 0.1, 0, 0.31, "undecided"},
		{"rate of who waits, busy and good", waitingRateAtLeast(5), nil, 6, 9, 0, 0.31, "reached"},
		{"quantile", quantileAtMost("p99", 3), nil, 3, 0, 0, 0, "reached"},
		{"quantile too high", quantileAtMost("p99", 3), nil, 3.1, 0, 0, 0.1, "missed"},
		{"quantile, busy", quantileAtMost("p99", 3), nil, 3.1, 0, 0, 0.11, "undecided"},
		{"milliseconds", millisAtMost("p50", 3), nil, 99, 0, 2.9, 0.9, "reached"},
		{"milliseconds too many", millisAtMost("p50", 3), nil, 0, 0, 3.1, 0, "missed"},
		{"milliseconds too many, busy", millisAtMost("p50", 3), nil, 0, 0, 3.1, 0.2, "undecided"},
		{"mebibytes", mebibytesAtMost("memory", 80), nil, 99, 0, 79, 0.9, "reached"},
		{"mebibytes too many, busy", mebibytesAtMost("memory", 80), nil, 0, 0, 81, 0.9, "missed"},
	} {
		r := result{
			line: line{targets: c.all}, own: spread{median: c.own}, ratio: spread{median: c.wall},
			cpuRatio: spread{median: c.cpu}, others: c.others,
		}
		if got := r.verdict(c.of); got != c.want {
			t.Errorf("%s: verdict(%v) = %q, want %q", c.name, c.of, got, c.want)
		}
	}
}

func TestPrint(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ got, want string }{
		{printCount(0.04), "0.0"},
		{printCount(99.4), "99.4"},
		{printCount(99.5), "100"},
		{printCount(999.6), "1,000"},
		{printCount(1234567), "1,234,567"},
		{printRate(8.25), "8.2/s"},
		{printMillis(0.4), "0.40 ms"},
		{printMillis(2865.5), "2,866 ms"},
		{printMebibytes(39.21), "39.2 MiB"},
	} {
		if c.got != c.want {
			t.Errorf("printed %q, want %q", c.got, c.want)
		}
	}
}

func TestHammer(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	done := make([]int, 4)
	got, err := hammer(t.Context(), len(done), time.Hour, func(_ context.Context, caller int) error {
		if done[caller] == 10*(caller+1) {
			return broken
		}
		done[caller]++
		return nil
	})
	sum := 0
	for _, n := range done {
		sum += n
	}
	if !errors.Is(err, broken) || got.ops != sum {
		t.Errorf("hammer = %d, %v, want %d, %v", got.ops, err, sum, broken)
	}
	if got, err := hammer(t.Context(), 2, 0, func(context.Context, int) error { return broken }); err != nil || got.ops != 0 {
		t.Errorf("hammer for no time = %d, %v, want 0, nil", got.ops, err)
	}
}

// The sides take turns, the order changes, and the first turn of each is not counted.
func TestRounds(t *testing.T) {
	t.Parallel()
	a := &accounts{busy: func() (time.Duration, error) { return 0, nil }}
	var order string
	one := func(name string) side {
		return side{name: name, run: func(context.Context, time.Duration) (tally, error) {
			order += name
			return tally{ops: 1}, nil
		}}
	}
	samples, err := rounds(t.Context(), a, []side{one("a"), one("b")}, 3, time.Second, func(string, int) {})
	if err != nil {
		t.Fatal(err)
	}
	if order != "baabbaab" || len(samples["a"]) != 3 || len(samples["b"]) != 3 {
		t.Errorf("order %s with %d and %d samples, want baabbaab with 3 and 3", order, len(samples["a"]), len(samples["b"]))
	}
	idle := side{name: "idle", run: func(context.Context, time.Duration) (tally, error) { return tally{}, nil }}
	if _, err := rounds(t.Context(), a, []side{idle}, 1, time.Second, func(string, int) {}); err == nil {
		t.Error("rounds of a side that does nothing succeeded")
	}
}

func TestPick(t *testing.T) {
	t.Parallel()
	all := []bench{{about: "a", lines: []line{{name: "append-1"}, {name: "append-64"}}}, {about: "b", lines: []line{{name: "me"}}}}
	got, err := pick(all, []string{"append-6"})
	if err != nil || len(got) != 1 || len(got[0].lines) != 1 || got[0].lines[0].name != "append-64" {
		t.Errorf("pick = %v, %v, want append-64", got, err)
	}
	if got, err := pick(all, nil); err != nil || len(got) != 2 {
		t.Errorf("pick of nothing = %v, %v, want all", got, err)
	}
	if _, err := pick(all, []string{"me", "nonsense"}); err == nil {
		t.Error("pick of an unknown name succeeded")
	}
}
