package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// tick is the unit of /proc: USER_HZ, which is 100 on every Linux that Go runs on.
const tick = 10 * time.Millisecond

// usage is the CPU time of a process: its own, and that of its children that have ended and were waited for.
type usage struct{ own, reaped time.Duration }

// parseStat reads /proc/<pid>/stat: see proc(5), fields 14 to 17. The program's name may hold spaces and parentheses.
func parseStat(stat []byte) (usage, error) {
	end := bytes.LastIndexByte(stat, ')')
	if end < 0 {
		return usage{}, errors.New("not the state of a process")
	}
	fields := strings.Fields(string(stat[end+1:]))
	const first = 11 // utime, where the state that follows the name is 0
	if len(fields) < first+4 {
		return usage{}, errors.New("not the state of a process")
	}
	var ticks [4]int64
	for i := range ticks {
		var err error
		if ticks[i], err = strconv.ParseInt(fields[first+i], 10, 64); err != nil {
			return usage{}, fmt.Errorf("the state of a process: %w", err)
		}
	}
	return usage{own: time.Duration(ticks[0]+ticks[1]) * tick, reaped: time.Duration(ticks[2]+ticks[3]) * tick}, nil
}

func readStat(pid int) (usage, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return usage{}, err
	}
	return parseStat(stat)
}

// process is one whose CPU time is accounted for.
type process struct {
	name string
	time func() (time.Duration, error)
}

// residentBytes is how much memory of a process is in use.
func residentBytes(pid int) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	return parseResident(status)
}

// parseResident reads VmRSS in /proc/<pid>/status: see proc(5).
func parseResident(status []byte) (int64, error) {
	for line := range strings.Lines(string(status)) {
		fields := strings.Fields(line)
		if len(fields) == 3 && fields[0] == "VmRSS:" && fields[2] == "kB" {
			kibibytes, err := strconv.ParseInt(fields[1], 10, 64)
			return kibibytes << 10, err
		}
	}
	return 0, errors.New("the status of a process has no VmRSS")
}

// single is a process without its children.
func single(name string, pid int) *process {
	return &process{name, func() (time.Duration, error) {
		u, err := readStat(pid)
		return u.own, err
	}}
}

// tree is a process, its children that run, and those that have ended. pids answers with the parent first.
//
// Births and deaths during a measurement are counted rightly without being noticed: a child begins at nothing, and what
// it had used when it ends is the parent's from then on. Only a death between the reads of the parent and of the child
// would count twice or not at all, so the whole is read again then.
func tree(name string, pids func() []int) *process {
	return &process{name, func() (time.Duration, error) { return treeTime(pids, readStat) }}
}

func treeTime(pids func() []int, read func(pid int) (usage, error)) (time.Duration, error) {
	for range 100 {
		sum, settled, err := sumTree(pids(), read)
		if err != nil || settled {
			return sum, err
		}
	}
	return 0, errors.New("children come and go too fast for their CPU time to be read")
}

func sumTree(pids []int, read func(pid int) (usage, error)) (sum time.Duration, settled bool, err error) {
	if len(pids) == 0 {
		return 0, false, errors.New("the process is down")
	}
	before, err := read(pids[0])
	if err != nil {
		return 0, false, err
	}
	for _, pid := range pids[1:] {
		u, err := read(pid)
		switch {
		case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH):
			return 0, false, nil
		case err != nil:
			return 0, false, err
		}
		sum += u.own
	}
	after, err := read(pids[0])
	if err != nil {
		return 0, false, err
	}
	return sum + after.own + after.reaped, before.reaped == after.reaped, nil
}

// parseBusy reads how long all processors together have not been idle, from /proc/stat.
func parseBusy(stat []byte) (time.Duration, error) {
	line, _, _ := strings.Cut(string(stat), "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return 0, errors.New("/proc/stat is not what is expected")
	}
	var busy int64
	for _, i := range []int{1, 2, 3, 6, 7, 8} { // user, nice, system, irq, softirq, steal; 4 and 5 are idle and iowait
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		busy += n
	}
	return time.Duration(busy) * tick, nil
}

// accounts are the processes of the benchmark. Every other one on the machine is a stranger.
type accounts struct {
	processes []*process
	busy      func() (time.Duration, error)
}

func newAccounts() *accounts {
	return &accounts{
		busy: func() (time.Duration, error) {
			stat, err := os.ReadFile("/proc/stat")
			if err != nil {
				return 0, err
			}
			return parseBusy(stat)
		},
	}
}

// add accounts for one more process until the function that it answers with is called.
func (a *accounts) add(p *process) (remove func()) {
	a.processes = append(a.processes, p)
	return func() {
		for i := range a.processes {
			if a.processes[i] == p {
				a.processes = append(a.processes[:i:i], a.processes[i+1:]...)
				return
			}
		}
	}
}

// reading is the CPU time used up to a moment.
type reading struct {
	at   time.Time
	of   map[*process]time.Duration
	busy time.Duration
}

func (a *accounts) read() (reading, error) {
	r := reading{at: time.Now(), of: make(map[*process]time.Duration, len(a.processes))}
	for _, p := range a.processes {
		t, err := p.time()
		if err != nil {
			return r, fmt.Errorf("read the CPU time of %s: %w", p.name, err)
		}
		r.of[p] = t
	}
	var err error
	r.busy, err = a.busy()
	return r, err
}

// since is the CPU time that the given processes used since an earlier reading (all of the benchmark's when none is
// given), and the share of the machine's capacity that strangers used.
func (r reading) since(start reading, counts []*process) (used time.Duration, others float64) {
	var ours time.Duration
	for p, t := range r.of {
		ours += t - start.of[p]
	}
	used = ours
	if len(counts) > 0 {
		used = 0
		for _, p := range counts {
			used += r.of[p] - start.of[p]
		}
	}
	capacity := capacityIn(r.at.Sub(start.at))
	strangers := r.busy - start.busy - ours
	return used, max(0, float64(strangers)/float64(capacity))
}

// capacityIn is the CPU time that there is in some time.
func capacityIn(wall time.Duration) time.Duration { return time.Duration(runtime.NumCPU()) * wall }
