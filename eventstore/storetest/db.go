package storetest

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"usher.example/eventstore"
)

// A transaction is kept whole or not at all, one inside it too, and values come out as they went in.
func testTransact(t *testing.T, b Backend) {
	d := deploy(t, b)
	db, other := d.open(t), d.open(t)
	ctx := t.Context()
	at := time.Date(2026, 3, 1, 12, 0, 0, 120_000, time.FixedZone("east", 3600))
	durables := json.RawMessage(`{"a": [1, "ä"]}`)
	put := func(db eventstore.DB, stream string, durables json.RawMessage) error {
		n, err := db.Exec(ctx, "INSERT INTO relay (state, stream, published, durables, updated_at) VALUES ('x', $3, $1, $4, $2)",
			int64(7), at, stream, durables)
		if err == nil && n != 1 {
			t.Errorf("%d rows, want 1", n)
		}
		return err
	}
	stop := errors.New("stop")
	err := db.Transact(ctx, func(tx eventstore.DB) error {
		if err := put(tx, "lost", durables); err != nil {
			return err
		}
		wantRows(t, tx, 1, "SELECT count(*) FROM relay")
		wantRows(t, other, 0, "SELECT count(*) FROM relay")
		return stop
	})
	wantError(t, "Transact", err, stop)
	err = db.Transact(ctx, func(tx eventstore.DB) error {
		err := tx.Transact(ctx, func(inner eventstore.DB) error { return errors.Join(put(inner, "lost inside", durables), stop) })
		wantError(t, "Transact inside", err, stop)
		return errors.Join(put(tx, "kept", durables), tx.Transact(ctx, func(inner eventstore.DB) error { return put(inner, "kept inside", nil) }))
	})
	if err != nil {
		t.Fatal(err)
	}
	type row struct {
		Stream    string
		Published int64
		Durables  json.RawMessage
		Updated   time.Time
	}
	rows, err := other.Query(ctx, "SELECT stream, published, durables, updated_at FROM relay ORDER BY stream")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var got []row
	for rows.Next() {
		var r row
		if err := rows.Scan(&r.Stream, &r.Published, &r.Durables, &r.Updated); err != nil {
			t.Fatal(err)
		}
		r.Updated = r.Updated.UTC()
		got = append(got, r)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	want := []row{{"kept", 7, durables, at.UTC()}, {"kept inside", 7, nil, at.UTC()}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	err = db.QueryRow(ctx, "SELECT published FROM relay WHERE stream = $1", "none").Scan(new(int64))
	wantError(t, "Scan", err, eventstore.ErrNoRows)
	err = db.QueryRow(ctx, "UPDATE relay SET published = 8 WHERE stream = $1 RETURNING published", "none").Scan(new(int64))
	wantError(t, "Scan", err, eventstore.ErrNoRows)
	var published int64
	if err := db.QueryRow(ctx, "UPDATE relay SET published = 8 WHERE stream = $1 RETURNING published", "kept").Scan(&published); err != nil || published != 8 {
		t.Errorf("published = %d, %v, want 8", published, err)
	}
	wantRows(t, other, 1, "SELECT count(*) FROM relay WHERE published = 8")
	if n, err := db.Exec(ctx, "DELETE FROM relay"); n != 2 || err != nil {
		t.Errorf("Exec = %d, %v, want 2", n, err)
	}
	if _, err := db.Exec(ctx, "DELETE FROM nothing"); err == nil || errors.Is(err, eventstore.ErrUnavailable) {
		t.Errorf("Exec on no table: %v", err)
	}
}

func testLease(t *testing.T, b Backend) {
	d := deploy(t, b)
	ctx := t.Context()
	ada := &eventstore.Lease{DB: d.open(t), Name: "relay", Holder: "ada", TTL: time.Minute}
	bob := &eventstore.Lease{DB: d.open(t), Name: "relay", Holder: "bob", TTL: time.Minute}
	acquire := func(l *eventstore.Lease, want bool, epoch int64) {
		t.Helper()
		held, err := l.Acquire(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if held != want || held && l.Epoch != epoch {
			t.Errorf("%s: held %v at epoch %d, want %v at %d", l.Holder, held, l.Epoch, want, epoch)
		}
	}
	acquire(ada, true, 1)
	acquire(bob, false, 0)
	acquire(ada, true, 1)
	if err := bob.Release(ctx); err != nil { // not his
		t.Fatal(err)
	}
	acquire(bob, false, 0)
	if err := ada.Release(ctx); err != nil {
		t.Fatal(err)
	}
	bob.TTL = time.Millisecond
	acquire(bob, true, 2)
	waitFor(t, "the lease to run out", func() bool {
		held, err := ada.Acquire(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return held
	})
	if ada.Epoch != 3 {
		t.Errorf("epoch %d, want 3", ada.Epoch)
	}
	acquire(bob, false, 0)
	racers := make([]*eventstore.Lease, 20)
	for i := range racers {
		racers[i] = &eventstore.Lease{DB: ada.DB, Name: "fresh", Holder: newID().String(), TTL: time.Minute}
	}
	held := racing(t, len(racers), eventstore.ErrNoRows, func(i int) error {
		held, err := racers[i].Acquire(ctx)
		if err == nil && !held {
			return eventstore.ErrNoRows
		}
		return err
	})
	if held != 1 {
		t.Errorf("%d hold it, want 1", held)
	}
}
