package devstack_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"usher.example/internal/devstack"
)

func query[T any](t *testing.T, dsn, sql string, args ...any) T {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	defer conn.Close(context.Background())
	var v T
	if err := conn.QueryRow(t.Context(), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func exec(ctx context.Context, dsn, sql string) error {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = conn.Exec(ctx, sql)
	return err
}

func TestPostgresSettings(t *testing.T) {
	t.Parallel()
	p := devstack.OwnPostgres(t, devstack.PostgresOptions{Settings: map[string]string{"synchronous_commit": "off"}})
	for name, want := range map[string]string{
		"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "max_connections": "500",
		"server_encoding": "UTF8", "TimeZone": "UTC",
	} {
		if got := query[string](t, p.DSN("postgres"), "SELECT current_setting($1)", name); got != want {
			t.Errorf("setting %s = %q, want %q", name, got, want)
		}
	}
}

// What was committed before a SIGKILL is there after Restart, on the same port; Stop then leaves nothing.
func TestPostgresSurvivesKill(t *testing.T) {
	t.Parallel()
	p, err := devstack.StartPostgres(t.Context(), devstack.PostgresOptions{Durable: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Stop() })
	dsn := p.DSN("postgres")
	if got := query[string](t, dsn, "SHOW fsync"); got != "on" {
		t.Fatalf("fsync = %s, want on", got)
	}
	data := query[string](t, dsn, "SHOW data_directory")
	if err := exec(t.Context(), dsn, "CREATE TABLE kept AS SELECT 42 AS n"); err != nil {
		t.Fatal(err)
	}
	first := p.PID()
	backends := len(p.PIDs())
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	if p.PID() != 0 || len(p.PIDs()) != 0 {
		t.Errorf("PID after Kill = %d, want 0", p.PID())
	}
	if err := exec(t.Context(), dsn, "SELECT 1"); err == nil {
		t.Error("connected to a killed server")
	}
	for range 2 { // from a crash, and while it runs
		if err := p.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := query[int](t, dsn, "SELECT n FROM kept"); got != 42 {
			t.Errorf("n = %d, want 42", got)
		}
	}
	if p.PID() == first || backends < 2 {
		t.Errorf("PID = %d as before the kill, or %d processes, want more than one", p.PID(), backends)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	id := sharedMemory(t, data)
	for range 2 {
		if err := p.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	dir := strings.TrimSuffix(data, "/data")
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("Stat(%s) = %v, want that it does not exist", dir, err)
	}
	// It is there until the last process that was killed is gone.
	devstack.Eventually(t, "the shared memory segment "+id+" is gone", func() bool {
		segments, err := os.ReadFile("/proc/sysvipc/shm")
		return err != nil || !strings.Contains(string(segments), " "+id+" ")
	})
}

// sharedMemory returns the id of the segment that the server on data last used.
func sharedMemory(t *testing.T, data string) string {
	t.Helper()
	b, err := os.ReadFile(data + "/postmaster.pid")
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(strings.Split(string(b), "\n")[6])
	if len(fields) != 2 {
		t.Fatalf("postmaster.pid has shared memory %q, want key and id", fields)
	}
	return fields[1]
}

func TestPostgresHaltKeepsData(t *testing.T) {
	t.Parallel()
	p := devstack.OwnPostgres(t, devstack.PostgresOptions{})
	dsn := p.DSN("postgres")
	if err := exec(t.Context(), dsn, "CREATE TABLE kept AS SELECT 42 AS n"); err != nil {
		t.Fatal(err)
	}
	if err := p.Halt(); err != nil {
		t.Fatal(err)
	}
	if err := exec(t.Context(), dsn, "SELECT 1"); err == nil {
		t.Error("connected to a halted server")
	}
	if err := p.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := query[int](t, dsn, "SELECT n FROM kept"); got != 42 {
		t.Errorf("n = %d, want 42", got)
	}
}

func TestPostgresRefusesBadSetting(t *testing.T) {
	t.Parallel()
	_, err := devstack.StartPostgres(t.Context(), devstack.PostgresOptions{Settings: map[string]string{"no_such_setting": "1"}})
	if err == nil || !strings.Contains(err.Error(), "no_such_setting") {
		t.Errorf("StartPostgres with an unknown setting = %v, want an error that names it", err)
	}
}

func TestPostgresStartCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := devstack.StartPostgres(ctx, devstack.PostgresOptions{}); err == nil {
		t.Error("StartPostgres with an ended context = nil, want an error")
	}
}

func BenchmarkStartPostgres(b *testing.B) {
	for b.Loop() {
		p, err := devstack.StartPostgres(b.Context(), devstack.PostgresOptions{})
		if err != nil {
			b.Fatal(err)
		}
		if err := p.Stop(); err != nil {
			b.Fatal(err)
		}
	}
}
