package main

import (
	"strings"
	"sync"
	"testing"
)

func TestMigrateUpStatusZero(t *testing.T) {
	t.Parallel()
	for name, setup := range map[string]func(*testing.T) (env, args []string){
		"postgres": func(t *testing.T) (env, args []string) { return settingsFor(emptyPostgres(t)), nil },
		"sqlite": func(t *testing.T) (env, args []string) {
			dir := devDirectory(t)
			usher(t, dir, nil, "migrate", "zero", "--yes", "--dir", dir).wantDone(t)
			return nil, []string{"--dir", dir}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env, where := setup(t)
			migrate := func(args ...string) outcome {
				t.Helper()
				return usher(t, t.TempDir(), env, append(append([]string{"migrate"}, args...), where...)...)
			}
			pending := func() int {
				t.Helper()
				return strings.Count(migrate("status").wantDone(t).stdout, "pending")
			}
			all := pending()
			if all < 2 {
				t.Fatalf("an empty database has %d pending migrations", all)
			}
			usher(t, t.TempDir(), env, append([]string{"users", "list"}, where...)...).wantRefused(t, "usher migrate up")
			if n := strings.Count(migrate("up").wantDone(t).stdout, "applied "); n != all {
				t.Errorf("migrate up applied %d migrations, want %d", n, all)
			}
			if n := pending(); n != 0 {
				t.Errorf("%d migrations are pending after migrate up", n)
			}
			if text := migrate("up").wantDone(t).stdout; text != "nothing to apply\n" {
				t.Errorf("a second migrate up says %q", text)
			}
			if o := migrate("zero"); o.code != exitUse || pending() != 0 {
				t.Errorf("migrate zero without the flag: exit code %d, want %d", o.code, exitUse)
			}
			migrate("zero", "--yes").wantDone(t)
			if n := pending(); n != all {
				t.Errorf("%d migrations are pending after migrate zero, want %d", n, all)
			}
			migrate("up").wantDone(t)
		})
	}
}

func TestMigrateUpByManyProcesses(t *testing.T) {
	t.Parallel()
	for name, setup := range map[string]func(*testing.T) (env, args []string){
		"postgres": func(t *testing.T) (env, args []string) { return settingsFor(emptyPostgres(t)), nil },
		"sqlite": func(t *testing.T) (env, args []string) {
			dir := devDirectory(t)
			usher(t, dir, nil, "migrate", "zero", "--yes", "--dir", dir).wantDone(t)
			return nil, []string{"--dir", dir}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env, where := setup(t)
			const processes = 4
			outcomes := make([]outcome, processes)
			var wg sync.WaitGroup
			for i := range processes {
				wg.Go(func() { outcomes[i] = usher(t, t.TempDir(), env, append([]string{"migrate", "up"}, where...)...) })
			}
			wg.Wait()
			migrated := 0
			for _, o := range outcomes {
				if o.code != exitDone {
					t.Errorf("exit code %d; stderr:\n%s", o.code, o.stderr)
				}
				if strings.Contains(o.stdout, "applied ") {
					migrated++
				} else if o.stdout != "nothing to apply\n" {
					t.Errorf("a process said %q", o.stdout)
				}
			}
			if migrated != 1 {
				t.Errorf("%d processes migrated, want 1", migrated)
			}
		})
	}
}
