package test

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

var memoryUsers = flag.Int("memory-users", 0, "how many users the test of memory imports, of ordinary size; as few of the largest as show the same when 0")

// mostMemory is what each process has to do with, half of what deploy/kubernetes gives the smallest.
const mostMemory = 256 << 20

// While many users are imported, a read model is filled from the log beside its live generation and a standby, and everything is
// published. No process takes more memory than it is given for that, however large the log is, or the users.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	users, attributes := *memoryUsers, 0
	if users == 0 {
		users, attributes = 6000, 8000
	}
	d, _ := newRunningServer(t)
	serve, c := d.startServe("--with", "publisher,projections,webhooks")
	project := d.start("project")
	project.listening(t)
	d.command("projections", "rebuild", "users") // and the generation before is the standby

	imports := d.start("users", "import", writeUsers(t, users, attributes))
	peaks := map[*process]func() int64{serve: watchMemory(serve), project: watchMemory(project), imports: watchMemory(imports)}
	for running := true; running; {
		select {
		case <-imports.ended: // the last rebuild has all of them to read
			running = false
		default:
		}
		d.command("projections", "rebuild", "users")
	}
	imports.wantStopped(t)
	begin, tick := time.Now(), time.NewTicker(time.Second)
	defer tick.Stop()
	for err := d.caughtUp(int64(users)); err != nil; err = d.caughtUp(int64(users)) {
		if <-tick.C; time.Since(begin) > 10*time.Minute {
			t.Fatalf("the users are not everywhere: %v", err)
		}
	}
	for p, peak := range peaks {
		t.Logf("%s took %d MiB", p.name, peak()>>20)
		if most := peak(); most > mostMemory {
			t.Errorf("%s took %d MiB, more than %d", p.name, most>>20, mostMemory>>20)
		}
	}
	c.waitReady()
}

// watchMemory follows a process until it ends, or the test does. What it answers with tells the most memory that the process ever had,
// in bytes, as the kernel keeps it.
func watchMemory(p *process) (peak func() int64) {
	var most atomic.Int64
	go func() {
		tick := time.NewTicker(20 * time.Millisecond) // it only grows, so the last look is as good as one at the end
		defer tick.Stop()
		for {
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
			if _, after, found := strings.Cut(string(status), "VmHWM:"); err == nil && found {
				if kib, err := strconv.ParseInt(strings.Fields(after)[0], 10, 64); err == nil {
					most.Store(kib << 10)
				}
			}
			select {
			case <-p.ended:
				return
			case <-tick.C:
			}
		}
	}()
	return most.Load
}

// writeUsers makes a file to import, with so many bytes of attributes a user.
func writeUsers(t *testing.T, n, attributes int) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "users.jsonl")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w := bufio.NewWriter(f)
	encoder := json.NewEncoder(w)
	for i := range n {
		u := map[string]any{
			"email": fmt.Sprintf("first.last-%d@example.org", i), "name": fmt.Sprintf("First Last %d", i), "email_verified": true,
			"password_hash": "$2a$04$qGBq9IcYH2C7ZEDnDkZJ0uM0q5pL3Ihe5oN6f2m9q6vGm3C9yQ0Zm",
		}
		if attributes > 0 {
			u["attributes"] = map[string]string{"note": strings.Repeat(strconv.Itoa(i)+" ", attributes/len(strconv.Itoa(i)+" "))}
		}
		if err := encoder.Encode(u); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}
