package eventstore_test

import (
	"path/filepath"
	"testing"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/eventstore/sqlite"
	"usher.example/schema"
)

// setup makes a log on a fresh SQLite database, with a hook between the two.
func setup(t *testing.T, o eventstore.Options, hook func(eventstore.Store) eventstore.Store) (*eventstore.Log, *sqlite.Store) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "usher.db")
	m, err := schema.SQLite(path)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if _, err := m.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	store := eventstore.Store(s)
	if hook != nil {
		store = hook(s)
	}
	master, _ := eventstore.NewMasterKey()
	return eventstore.New(store, master, o), s
}

func newID() uuid.UUID { return uuid.Must(uuid.NewV7()) }

func fact(stream uuid.UUID) eventstore.Append {
	return eventstore.Append{
		Stream: eventstore.UserStream(stream), Expected: eventstore.AnyVersion,
		Events: []eventstore.NewEvent{{Type: "thing.happened"}},
	}
}
