package eventstore_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"usher.example/eventstore"
)

// countedRanges is a store that counts the ranges that are read, and fails to read the next while told to.
type countedRanges struct {
	eventstore.Store
	n    atomic.Int64
	fail atomic.Bool
}

var errDisk = errors.New("the disk is gone")

func (s *countedRanges) ReadRange(ctx context.Context, after, to int64, kinds []eventstore.Kind, bytes int) (events []eventstore.Event, through, n int64, err error) {
	s.n.Add(1)
	if s.fail.Load() {
		return nil, after, 0, errDisk
	}
	return s.Store.ReadRange(ctx, after, to, kinds, bytes)
}

// reading is a log of users with sessions, and readers of all of it, of the users and of the sessions without personal fields.
type reading struct {
	log        *eventstore.Log
	db         eventstore.DB
	store      *countedRanges
	selections []eventstore.Selection
	readers    []*eventstore.Reader
	head       int64
}

func setupReading(t *testing.T) *reading {
	t.Helper()
	r := &reading{selections: []eventstore.Selection{
		{Kinds: []eventstore.Kind{eventstore.KindUser}},
		{},
		{Kinds: []eventstore.Kind{eventstore.KindSession}, Sealed: true},
	}}
	r.log, r.db = setup(t, eventstore.Options{}, func(s eventstore.Store) eventstore.Store {
		r.store = &countedRanges{Store: s}
		return r.store
	})
	for n := range 10 {
		user := newID()
		for i, a := range []eventstore.Append{
			{Stream: eventstore.UserStream(user), Expected: eventstore.NoStream, CreateKey: true,
				Events: []eventstore.NewEvent{{Type: "thing.happened", Personal: []byte(`{"name":"Ada"}`)}}},
			{Stream: eventstore.SessionStream(newID(), user), Expected: eventstore.NoStream, Metadata: eventstore.Metadata{Address: "192.0.2.1"},
				Events: []eventstore.NewEvent{{Type: "thing.began"}, {Type: "thing.ended"}}},
			{Stream: eventstore.UserStream(user), Expected: 1, Events: []eventstore.NewEvent{{Type: eventstore.TypeErased}}},
		} {
			if i == 2 && n != 7 {
				continue
			}
			result, err := r.log.Append(t.Context(), a)
			if err != nil {
				t.Fatal(err)
			}
			r.head = result.Position
		}
	}
	for _, s := range r.selections {
		reader := r.log.Reader(s)
		t.Cleanup(reader.Close)
		r.readers = append(r.readers, reader)
	}
	return r
}

// read reads a part by one of the readers, which has to have what it selects, and answers with how often the store was read for it.
func (r *reading) read(t *testing.T, reader int, after, to int64) int64 {
	t.Helper()
	before := r.store.n.Load()
	events, _, err := r.readers[reader].ReadRange(t.Context(), after, to)
	reads := r.store.n.Load() - before
	if err != nil {
		t.Fatalf("ReadRange(%d, %d) of reader %d: %v", after, to, reader, err)
	}
	want, _, err := r.log.ReadRange(t.Context(), after, to, r.selections[reader])
	if err != nil {
		t.Fatal(err)
	}
	if r.selections[reader].Sealed { // which may be opened all the same
		for _, list := range [][]eventstore.Event{events, want} {
			for i := range list {
				list[i].Personal, list[i].Sealed, list[i].Metadata.Address, list[i].Forgotten = nil, nil, "", false
			}
		}
	}
	if diff := cmp.Diff(want, events); diff != "" {
		t.Errorf("ReadRange(%d, %d) of reader %d: -want +got\n%s", after, to, reader, diff)
	}
	return reads
}

// What one reader reads the others are handed, whatever of it they select, and whoever comes first.
func TestReadersShare(t *testing.T) {
	t.Parallel()
	r := setupReading(t)
	for i := range r.head / 5 {
		var reads int64
		for n := range r.readers {
			reads += r.read(t, (n+int(i))%len(r.readers), i*5, i*5+5)
		}
		if reads != 1 {
			t.Errorf("the store was read %d times for part %d, want once", reads, i)
		}
	}
}

// A reader that fails, or that ends, is no trouble to the others.
func TestReadersDoNotDependOnEachOther(t *testing.T) {
	t.Parallel()
	r := setupReading(t)
	r.store.fail.Store(true)
	if _, _, err := r.readers[0].ReadRange(t.Context(), 0, 5); !errors.Is(err, errDisk) {
		t.Errorf("ReadRange() = %v, want %v", err, errDisk)
	}
	r.store.fail.Store(false)
	r.read(t, 1, 0, 5)
	ended, end := context.WithCancel(t.Context())
	end()
	if _, _, err := r.readers[0].ReadRange(ended, 5, 10); err == nil {
		t.Error("ReadRange() succeeds for one that was told to end")
	}
	r.read(t, 1, 5, 10)
	// What one of them can't open is left alone by one who does not ask for it to be opened.
	if n, err := r.db.Exec(t.Context(), "UPDATE events SET personal = $1 WHERE position = 11", []byte("altered")); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if _, _, err := r.readers[1].ReadRange(t.Context(), 10, 15); err == nil {
		t.Error("ReadRange() succeeds with an event that does not open")
	}
	r.read(t, 2, 10, 15)
	r.readers[0].Close()
	r.readers[2].Close()
	if reads := r.read(t, 1, 15, 20); reads != 1 {
		t.Errorf("the store was read %d times for the last reader, want once", reads)
	}
}
