package main

import (
	"errors"
	"io/fs"
	"os"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	t.Parallel()
	stat := "4242 (post gres) (x) S 1 4242 4242 0 -1 4194304 100 0 0 0 12 34 56 78 20 0 1 0 315860 3133440 416\n"
	got, err := parseStat([]byte(stat))
	want := usage{own: 460 * time.Millisecond, reaped: 1340 * time.Millisecond}
	if err != nil || got != want {
		t.Errorf("parseStat = %v, %v, want %v", got, err, want)
	}
	for _, bad := range []string{"", "4242 (x", "4242 (x) S 1 2 3", "4242 (x) S 1 2 3 4 5 6 7 8 9 10 a b c d 20"} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("parseStat(%q) succeeded", bad)
		}
	}
}

func TestReadOwnStat(t *testing.T) {
	t.Parallel()
	deadline := time.Now().Add(30 * time.Second)
	for {
		u, err := readStat(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if u.own > 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("this process has used no CPU time")
		}
	}
}

func TestParseBusy(t *testing.T) {
	t.Parallel()
	stat := "cpu  1 2 4 1000 2000 8 16 32 64 128\ncpu0 1 1 1 1 1 1 1 1 1 1\n"
	if got, err := parseBusy([]byte(stat)); err != nil || got != 630*time.Millisecond {
		t.Errorf("parseBusy = %v, %v, want 630ms", got, err)
	}
	for _, bad := range []string{"", "cpu 1 2 3", "intr 1 2 3 4 5 6 7 8 9", "cpu 1 2 x 4 5 6 7 8 9"} {
		if _, err := parseBusy([]byte(bad)); err == nil {
			t.Errorf("parseBusy(%q) succeeded", bad)
		}
	}
}

// A child's time must count once while it runs, when it ends, and when it ends between two reads.
func TestTreeTime(t *testing.T) {
	t.Parallel()
	const parent, child, other = 1, 2, 3
	pids := []int{parent, child, other}
	procs := map[int]usage{
		parent: {own: 5 * time.Second, reaped: 100 * time.Second},
		child:  {own: 7 * time.Second},
		other:  {own: time.Second},
	}
	dies := func() {
		procs[parent] = usage{own: 5 * time.Second, reaped: 107 * time.Second}
		delete(procs, child)
		pids = []int{parent, other}
	}
	reads := 0
	diesAt := 0
	read := func(pid int) (usage, error) {
		if reads++; reads == diesAt {
			dies()
		}
		u, ok := procs[pid]
		if !ok {
			return usage{}, fs.ErrNotExist
		}
		return u, nil
	}
	list := func() []int { return append([]int(nil), pids...) }
	const want = 113 * time.Second
	if got, err := treeTime(list, read); err != nil || got != want {
		t.Errorf("while all run: treeTime = %v, %v, want %v", got, err, want)
	}
	for _, at := range []int{2, 3, 4} { // before the child is read; after it; as the parent is read again
		procs = map[int]usage{
			parent: {own: 5 * time.Second, reaped: 100 * time.Second},
			child:  {own: 7 * time.Second},
			other:  {own: time.Second},
		}
		pids = []int{parent, child, other}
		reads, diesAt = 0, at
		if got, err := treeTime(list, read); err != nil || got != want {
			t.Errorf("a child ends at read %d: treeTime = %v, %v, want %v", at, got, err, want)
		}
	}
	if _, err := treeTime(func() []int { return nil }, read); err == nil {
		t.Error("treeTime of no process succeeded")
	}
	refused := errors.New("refused")
	if _, err := treeTime(list, func(int) (usage, error) { return usage{}, refused }); !errors.Is(err, refused) {
		t.Errorf("treeTime = %v, want %v", err, refused)
	}
}

func TestReadingSince(t *testing.T) {
	t.Parallel()
	us, server := &process{name: "us"}, &process{name: "server"}
	start := reading{at: time.Unix(0, 0), of: map[*process]time.Duration{us: time.Second, server: 10 * time.Second}, busy: time.Hour}
	capacity := capacityIn(10 * time.Second)
	end := reading{
		at:   time.Unix(10, 0),
		of:   map[*process]time.Duration{us: 2 * time.Second, server: 13 * time.Second},
		busy: time.Hour + 4*time.Second + capacity/4,
	}
	if used, others := end.since(start, nil); used != 4*time.Second || others != 0.25 {
		t.Errorf("since = %v, %v, want 4s, 0.25", used, others)
	}
	if used, others := end.since(start, []*process{server}); used != 3*time.Second || others != 0.25 {
		t.Errorf("since, of the server = %v, %v, want 3s, 0.25", used, others)
	}
}

func TestParseResident(t *testing.T) {
	t.Parallel()
	got, err := parseResident([]byte("Name:\tusher\nVmPeak:\t 9999 kB\nVmRSS:\t   61440 kB\nThreads:\t9\n"))
	if err != nil || got != 60<<20 {
		t.Errorf("parseResident = %d, %v, want %d", got, err, 60<<20)
	}
	if _, err := parseResident([]byte("Name:\tusher\n")); err == nil {
		t.Error("parseResident of a status without VmRSS succeeded")
	}
}
