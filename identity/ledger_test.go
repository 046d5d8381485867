package identity

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

func TestLedger(t *testing.T) {
	t.Parallel()
	l := Ledger{filepath.Join(t.TempDir(), "erasures.log")}
	if list, err := l.Read(); len(list) != 0 || err != nil {
		t.Errorf("Read() = %v, %v where there is no file, want none", list, err)
	}
	if err := l.Check(); err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 7, 1, 12, 30, 0, 0, time.UTC)
	first, second, third := Erasure{uuid.Must(uuid.NewV7()), at}, Erasure{uuid.Must(uuid.NewV7()), at.Add(time.Hour)}, Erasure{uuid.Must(uuid.NewV7()), at.Add(2 * time.Hour)}
	record := func(erasures ...Erasure) {
		t.Helper()
		if err := l.Record(t.Context(), erasures...); err != nil {
			t.Fatal(err)
		}
	}
	read := func(want ...Erasure) {
		t.Helper()
		got, err := l.Read()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("Read() (-want +got):\n%s", diff)
		}
	}
	record(first, Erasure{second.User, second.At.In(time.FixedZone("east", 3600))})
	read(first, second)
	record(Erasure{first.User, at.Add(3 * time.Hour)}) // again: the first stays
	read(first, second)

	// A crash cut the last line short, and whoever comes next begins a new one.
	raw, err := os.ReadFile(l.Path)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("2026-07-01T12:30:00Z %s\n2026-07-01T13:30:00Z %s\n2026-07-01T15:30:00Z %s\n", first.User, second.User, first.User)
	if string(raw) != want {
		t.Errorf("the file is\n%s\nwant\n%s", raw, want)
	}
	for cut := 1; cut < len(want)/3; cut++ {
		if err := os.WriteFile(l.Path, raw[:len(raw)-cut], 0o600); err != nil {
			t.Fatal(err)
		}
		read(first, second)
		record(third)
		read(first, second, third)
	}

	// What was damaged otherwise is not passed over: it may stand for somebody.
	for _, damaged := range []string{strings.Replace(want, "12:30", "12-30", 1), strings.Replace(want, first.User.String()[:8], "who?????", 1), want + strings.Repeat("x", 100)} {
		if err := os.WriteFile(l.Path, []byte(damaged), 0o600); err != nil {
			t.Fatal(err)
		}
		if list, err := l.Read(); err == nil {
			t.Errorf("Read() = %v of\n%s\nwant an error", list, damaged)
		}
	}
}

func TestLedgerOfManyWriters(t *testing.T) {
	t.Parallel()
	l := Ledger{filepath.Join(t.TempDir(), "erasures.log")}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				if err := l.Record(t.Context(), Erasure{uuid.Must(uuid.NewV7()), time.Now()}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if list, err := l.Read(); len(list) != 160 || err != nil {
		t.Errorf("Read() = %d erasures, %v, want 160", len(list), err)
	}
}

func TestLedgerThatCantBeWritten(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, path := range map[string]string{"no directory": filepath.Join(dir, "none", "erasures.log"), "a directory": dir} {
		l := Ledger{path}
		if err := l.Check(); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: Check() = %v, want an error that names the file", name, err)
		}
		if err := l.Record(t.Context(), Erasure{uuid.Must(uuid.NewV7()), time.Now()}); err == nil {
			t.Errorf("%s: recorded", name)
		}
	}
	if _, err := (Ledger{dir}).Read(); err == nil {
		t.Error("read a directory")
	}
}
