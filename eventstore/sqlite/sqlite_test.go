package sqlite_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/eventstore/sqlite"
	"usher.example/schema"
)

// migrated makes a migrated database and answers with its path.
func migrated(tb testing.TB) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "usher.db")
	m, err := schema.SQLite(path)
	if err != nil {
		tb.Fatal(err)
	}
	defer m.Close()
	if _, err := m.Up(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	return path
}

func open(tb testing.TB, path string) *sqlite.Store {
	tb.Helper()
	s, err := sqlite.Open(tb.Context(), path)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Close)
	return s
}

func TestOpenWithoutFile(t *testing.T) {
	t.Parallel()
	_, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "none.db"))
	if !errors.Is(err, eventstore.ErrUnavailable) {
		t.Errorf("Open = %v, want ErrUnavailable", err)
	}
}

func TestClosed(t *testing.T) {
	t.Parallel()
	s := open(t, migrated(t))
	s.Close()
	if _, err := s.Head(t.Context()); !errors.Is(err, eventstore.ErrUnavailable) {
		t.Errorf("Head = %v, want ErrUnavailable", err)
	}
	if _, err := s.Exec(t.Context(), "DELETE FROM leases"); !errors.Is(err, eventstore.ErrUnavailable) {
		t.Errorf("Exec = %v, want ErrUnavailable", err)
	}
	if _, err := s.Commit(t.Context(), nil); !errors.Is(err, eventstore.ErrUnavailable) {
		t.Errorf("Commit = %v, want ErrUnavailable", err)
	}
}

// Every kind of value comes out as it went in, and times sort.
func TestValues(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := open(t, migrated(t))
	if _, err := s.Exec(ctx, "CREATE TABLE things (id TEXT PRIMARY KEY, at TIMESTAMP, raw BLOB, body TEXT, n INTEGER, flag BOOLEAN)"); err != nil {
		t.Fatal(err)
	}
	type thing struct {
		ID   uuid.UUID
		At   *time.Time
		Raw  []byte
		Body json.RawMessage
		N    int
		Flag bool
	}
	at := time.Date(2026, 11, 23, 20, 45, 11, 120_000, time.FixedZone("east", 3600))
	utc := at.UTC()
	for _, want := range []thing{
		{uuid.New(), &at, []byte{0, 1, 0xff}, json.RawMessage(`{"a":1}`), 7, true},
		{ID: uuid.New()},
	} {
		n, err := s.Exec(ctx, "INSERT INTO things (flag, n, body, raw, at, id) VALUES ($6, $5, $4, $3, $2, $1)",
			want.ID, want.At, want.Raw, want.Body, want.N, want.Flag)
		if n != 1 || err != nil {
			t.Fatalf("Exec = %d, %v", n, err)
		}
		var got thing
		err = s.QueryRow(ctx, "SELECT id, at, raw, body, n, flag FROM things WHERE id = $1", want.ID).
			Scan(&got.ID, &got.At, &got.Raw, &got.Body, &got.N, &got.Flag)
		if err != nil {
			t.Fatal(err)
		}
		if want.At != nil {
			want.At = &utc
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
	}
	var first, last time.Time
	if _, err := s.Exec(ctx, "UPDATE things SET at = $1 WHERE at IS NULL", at.Add(-time.Microsecond)); err != nil {
		t.Fatal(err)
	}
	if err := s.QueryRow(ctx, "SELECT min(at), max(at) FROM things").Scan(&first, &last); err != nil {
		t.Fatal(err)
	}
	if !last.Equal(at) || last.Sub(first) != time.Microsecond {
		t.Errorf("min, max = %v, %v, want %v a microsecond apart", first, last, at)
	}
}

// A cancelled transaction gives the writer back.
func TestTransactCancelled(t *testing.T) {
	t.Parallel()
	s := open(t, migrated(t))
	ctx, cancel := context.WithCancel(t.Context())
	err := s.Transact(ctx, func(tx eventstore.DB) error {
		cancel()
		_, err := tx.Exec(ctx, "DELETE FROM leases")
		return err
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Transact = %v, want %v", err, context.Canceled)
	}
	if _, err := s.Exec(t.Context(), "DELETE FROM leases"); err != nil {
		t.Errorf("Exec = %v", err)
	}
}

func TestReturning(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := open(t, migrated(t))
	lease := eventstore.Lease{DB: s, Name: "relay", Holder: "a", TTL: time.Minute}
	if held, err := lease.Acquire(ctx); !held || err != nil {
		t.Fatalf("Acquire = %v, %v", held, err)
	}
	if err := s.QueryRow(ctx, "DELETE FROM leases WHERE name = 'none' RETURNING epoch").Scan(new(int)); !errors.Is(err, eventstore.ErrNoRows) {
		t.Errorf("Scan = %v, want ErrNoRows", err)
	}
	// Another process sees it: it was committed.
	other := open(t, pathOf(t, s))
	var epoch int
	if err := other.QueryRow(ctx, "SELECT epoch FROM leases").Scan(&epoch); err != nil || epoch != 1 {
		t.Errorf("epoch = %d, %v, want 1", epoch, err)
	}
	if _, err := s.Query(ctx, "DELETE FROM leases"); err == nil {
		t.Error("a write without RETURNING went through Query")
	}
}

func pathOf(tb testing.TB, s *sqlite.Store) (path string) {
	tb.Helper()
	if err := s.QueryRow(tb.Context(), "SELECT file FROM pragma_database_list").Scan(&path); err != nil {
		tb.Fatal(err)
	}
	return path
}

// A commit that was answered survives a power failure only in this mode.
func TestDurable(t *testing.T) {
	t.Parallel()
	s := open(t, migrated(t))
	err := s.Transact(t.Context(), func(tx eventstore.DB) error { // on the writer's connection
		var mode string
		var synchronous int
		if err := tx.QueryRow(t.Context(), "SELECT journal_mode, synchronous FROM pragma_journal_mode, pragma_synchronous").Scan(&mode, &synchronous); err != nil {
			return err
		}
		if mode != "wal" || synchronous != 2 {
			t.Errorf("journal mode %s, synchronous %d, want wal, 2 (FULL)", mode, synchronous)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// No file of the database holds what is personal, while it is open and after.
func TestFilesHoldNothingPersonal(t *testing.T) {
	t.Parallel()
	path := migrated(t)
	s := open(t, path)
	master, _ := eventstore.NewMasterKey()
	log := eventstore.New(s, master, eventstore.Options{})
	user := uuid.New()
	if _, err := log.Append(t.Context(), eventstore.Append{
		Stream: eventstore.UserStream(user), CreateKey: true,
		Events:   []eventstore.NewEvent{{Type: "user.registered", Data: json.RawMessage(`{"open": "in the clear"}`), Personal: json.RawMessage(`{"email": "secret@example.org"}`)}},
		Metadata: eventstore.Metadata{Address: "192.0.2.77"},
		Reserve:  []eventstore.Reservation{{Scope: "email", Value: "secret@example.org"}},
	}); err != nil {
		t.Fatal(err)
	}
	look := func(when string) {
		t.Helper()
		// By another process: closing a file would drop this one's locks on it.
		files, err := exec.CommandContext(t.Context(), "sh", "-c", `cat "$0"*`, path).Output()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(files, []byte("in the clear")) {
			t.Errorf("%s: the open fields are not in the files", when)
		}
		for _, secret := range []string{"secret@", "192.0.2.77"} {
			if bytes.Contains(files, []byte(secret)) {
				t.Errorf("%s: the files hold %q", when, secret)
			}
		}
	}
	look("open")
	s.Close()
	look("closed")
}

// What may pass is told apart from what a statement brought about.
func TestErrors(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	path := migrated(t)
	s, other := open(t, path), open(t, path)
	for _, statement := range []string{"nonsense", "INSERT INTO leases (name) VALUES ('x')", "INSERT INTO none VALUES (1)"} {
		if _, err := s.Exec(ctx, statement); err == nil || errors.Is(err, eventstore.ErrUnavailable) {
			t.Errorf("%s: %v, want an error that blames it", statement, err)
		}
	}
	err := other.Transact(ctx, func(eventstore.DB) error { // holds the lock of the file
		waiting, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		defer cancel()
		_, err := s.Exec(waiting, "DELETE FROM leases")
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Exec: %v, want %v", err, context.DeadlineExceeded)
		}
		_, err = s.Head(ctx) // readers do not wait
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
