package userfile

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"usher.example/eventstore"
	"usher.example/eventstore/sqlite"
	"usher.example/identity"
	"usher.example/identity/password"
	"usher.example/internal/devstack"
	"usher.example/schema"
)

func TestMain(m *testing.M) { os.Exit(devstack.Main(m)) }

// deployment is users on a database of their own.
type deployment struct {
	store  *sqlite.Store
	master eventstore.MasterKey
}

func deploy(t *testing.T) deployment {
	t.Helper()
	path := devstack.SQLite(t, "userfile", func(ctx context.Context, path string) error {
		m, err := schema.SQLite(path)
		if err != nil {
			return err
		}
		defer m.Close()
		_, err = m.Up(ctx)
		return err
	})
	store, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	master, _ := eventstore.NewMasterKey()
	return deployment{store, master}
}

// imported has a process that has nobody in memory import a file, and answers with the results.
func (d deployment) imported(t *testing.T, file string) (results []Result, err error) {
	t.Helper()
	pool, err := password.NewPool(password.PoolConfig{Cost: password.MinCost})
	if err != nil {
		t.Fatal(err)
	}
	users := identity.New(identity.Config{Log: eventstore.New(d.store, d.master, eventstore.Options{}), Store: d.store, DB: d.store, Passwords: pool,
		RefreshKey: d.master.Derive("refresh-tokens"), CodeKey: d.master.Derive("codes")})
	r, err := NewReader(strings.NewReader(file), JSONLines)
	if err != nil {
		t.Fatal(err)
	}
	err = Import(t.Context(), users, r, eventstore.Metadata{Actor: identity.ActorOperator}, false, func(r Result) { results = append(results, r) })
	return results, err
}

// spoil makes the users before a position unreadable.
func (d deployment) spoil(t *testing.T, before int) {
	t.Helper()
	if _, err := d.store.Exec(t.Context(), "UPDATE events SET data = '[1]' WHERE position < $1", before); err != nil {
		t.Fatal(err)
	}
}

func lines(n int) string {
	var file strings.Builder
	for i := range n {
		fmt.Fprintf(&file, `{"email": "user%d@example.org"}`+"\n", i)
	}
	return file.String()
}

// A user who is there and can't be read holds up nobody else in the file.
func TestImportGoesOn(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	if _, err := d.imported(t, lines(1)); err != nil {
		t.Fatal(err)
	}
	d.spoil(t, 2)
	results, err := d.imported(t, lines(3))
	if err != nil {
		t.Fatal(err)
	}
	var outcomes []Outcome
	for _, r := range results {
		outcomes = append(outcomes, r.Outcome)
	}
	if diff := cmp.Diff([]Outcome{Refused, Imported, Imported}, outcomes); diff != "" {
		t.Errorf("outcomes (-want +got):\n%s", diff)
	}
	if r := results[0]; r.Err == nil || strings.Contains(r.String(), "user0") || strings.Contains(r.String(), r.Err.Error()) {
		t.Errorf("the first line: %s, of %v", r, r.Err)
	}
}

// Where usher fails on line after line, no more are tried.
func TestImportThatFailsThroughout(t *testing.T) {
	t.Parallel()
	const n = maxFailed + 50
	d := deploy(t)
	if _, err := d.imported(t, lines(n)); err != nil {
		t.Fatal(err)
	}
	d.spoil(t, n+1)
	if results, err := d.imported(t, lines(n)); err == nil || len(results) != maxFailed {
		t.Errorf("Import() = %v after %d lines, want an error after %d", err, len(results), maxFailed)
	}
}
