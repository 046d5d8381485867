package test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"usher.example/eventstore"
	"usher.example/eventstore/postgres"
	"usher.example/eventstore/sqlite"
	"usher.example/internal/eventcheck"
)

// checkEvents reads the log at the end of a deployment's life and fails the test if an event is not as the schema of its
// type and version says: whatever its processes did, this is what they stored.
func (d *deployment) checkEvents() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	store, master, err := d.openStore(ctx)
	if err != nil {
		d.t.Errorf("open the database: %v", err)
		return
	}
	defer store.Close()
	log := eventstore.New(store, master, eventstore.Options{})
	for position := int64(0); ; {
		events, err := log.ReadAll(ctx, position, 1000)
		if err != nil {
			d.t.Errorf("read the log: %v", err)
			return
		}
		for _, e := range events {
			position = e.Position
			if e.Forgotten { // what its schema asks for is gone
				continue
			}
			if err := eventcheck.Event(eventstore.NewEvent{Type: e.Type, SchemaVersion: e.SchemaVersion, Data: e.Data, Personal: e.Personal}); err != nil {
				d.t.Errorf("position %d: %v", position, err)
			}
		}
		if len(events) == 0 {
			if position == 0 {
				d.t.Error("the log is empty: nothing was checked")
			}
			return
		}
	}
}

// openStore opens the deployment's database, and reads its master key.
func (d *deployment) openStore(ctx context.Context) (store interface {
	eventstore.Store
	eventstore.DB
	Close()
}, master eventstore.MasterKey, err error) {
	text := d.setting("MASTER_KEY")
	if text == "" {
		raw, err := os.ReadFile(filepath.Join(d.dir, "data", "master.key"))
		if err != nil {
			return nil, master, err
		}
		text = string(raw)
	}
	if master, err = eventstore.ParseMasterKey(text); err != nil {
		return nil, master, err
	}
	if d.onSQLite() {
		store, err = sqlite.Open(ctx, filepath.Join(d.dir, "data", "usher.db"))
	} else {
		store, err = postgres.Open(ctx, d.setting("DATABASE_URL"), postgres.Options{})
	}
	if err != nil {
		return nil, master, err
	}
	master, err = eventstore.Unlock(ctx, store, master)
	return store, master, err
}

// setting is the value of an environment variable of the deployment's processes, empty where it is not set.
func (d *deployment) setting(name string) string {
	i := slices.IndexFunc(d.env, func(v string) bool { return strings.HasPrefix(v, name+"=") })
	if i < 0 {
		return ""
	}
	return strings.TrimPrefix(d.env[i], name+"=")
}
