package webhook

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/eventstore/sqlite"
	"usher.example/identity"
	"usher.example/internal/devstack"
	"usher.example/schema"
)

// The database gives way to another whose log has other events from some position on, and has got past where the webhook was: what
// comes then is all in the log, and not what follows what was sent. The webhook begins anew where that database says.
func TestLogOfAnotherHistory(t *testing.T) {
	t.Parallel()
	ctx, path := t.Context(), filepath.Join(t.TempDir(), "usher.db")
	m, err := schema.SQLite(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = m.Up(ctx); errors.Join(err, m.Close()) != nil {
		t.Fatal(err)
	}
	db, err := sqlite.Open(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	master, _ := eventstore.NewMasterKey()
	log := eventstore.New(db, master, eventstore.Options{})
	grow := func(n int) {
		t.Helper()
		for range n {
			if _, err := log.Append(ctx, eventstore.Append{
				Stream: eventstore.SystemStream("keys"), Expected: eventstore.AnyVersion,
				Events: []eventstore.NewEvent{identity.NewEvent(identity.KeyRotated{KeyID: "k", Algorithm: "ES256"})},
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
	service := New(Config{Log: log, DB: db, Source: "urn:usher:test"})
	hook, _, err := service.Create(ctx, Wish{URL: "https://93.184.215.14/"})
	if err != nil {
		t.Fatal(err)
	}
	e := newEndpoint(&Worker{Service: service}, hook.ID, &target{filters: []string{"*"}})
	devstack.Background(t, func(ctx context.Context) error {
		for {
			select {
			case o := <-e.offers:
				o.taken <- nil
			case <-ctx.Done():
				return nil
			}
		}
	})
	hand := func(after int64, want error) {
		t.Helper()
		events, err := log.ReadAll(ctx, after, 10)
		if err != nil {
			t.Fatal(err)
		}
		if err := e.hand(ctx, events); !errors.Is(err, want) {
			t.Errorf("hand() after %d = %v, want %v", after, err, want)
		}
	}
	takeOver := func(checkpoint int64) {
		t.Helper()
		if _, err := db.Exec(ctx, "UPDATE webhook_progress SET checkpoint = $1", checkpoint); err != nil {
			t.Fatal(err)
		}
		if err := e.takeOver(ctx); err != nil {
			t.Fatal(err)
		}
	}
	fork := func(at int64) {
		t.Helper()
		if _, err := db.Exec(ctx, "UPDATE events SET event_id = $1 WHERE position = $2", uuid.New(), at); err != nil {
			t.Fatal(err)
		}
	}

	takeOver(0)
	grow(2)
	hand(0, nil)
	grow(1)
	hand(2, nil)
	grow(1)
	fork(3)
	hand(3, errOther)
	takeOver(2)
	hand(2, nil)

	// Also where nothing was taken since the webhook was taken over.
	takeOver(4)
	grow(1)
	fork(4)
	hand(4, errOther)
	takeOver(3)
	hand(3, nil)
}
