package postgres_test

import (
	"errors"
	"testing"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/eventstore/postgres"
	"usher.example/internal/devstack"
)

// A batch is written at once. Where one of its appends does not fit, a second round trip finds out which, and the others
// are written all the same. What nobody can decide without looking is looked at in the first.
func TestUnfitAppends(t *testing.T) {
	t.Parallel()
	known := prepared(eventstore.UserStream(uuid.New()), eventstore.NoStream)
	known.Reserve, known.ReserveKeys = []eventstore.Reservation{{Scope: "email"}}, [][]byte{[]byte("held")}
	known.CommandID = uuid.New()
	erased := prepared(eventstore.UserStream(uuid.New()), eventstore.NoStream)
	erased.Erase = true
	tests := map[string]struct {
		append *eventstore.Prepared
		change func(*eventstore.Prepared)
		want   error
		trips  int64
	}{
		"a new stream":               {append: prepared(eventstore.UserStream(uuid.New()), eventstore.NoStream), trips: 1},
		"the next version":           {append: prepared(known.Stream, 1), trips: 1},
		"any version":                {append: prepared(known.Stream, eventstore.AnyVersion), trips: 1},
		"a stream that is not new":   {append: prepared(known.Stream, eventstore.NoStream), want: eventstore.ErrWrongExpectedVersion, trips: 2},
		"a stream that is not there": {append: prepared(eventstore.UserStream(uuid.New()), 1), want: eventstore.ErrWrongExpectedVersion, trips: 2},
		"another version":            {append: prepared(known.Stream, 2), want: eventstore.ErrWrongExpectedVersion, trips: 2},
		"an erased user":             {append: prepared(erased.Stream, 1), want: eventstore.ErrStreamClosed, trips: 2},
		"an erased user's session": {
			append: prepared(eventstore.SessionStream(uuid.New(), erased.Stream.ID), eventstore.NoStream), want: eventstore.ErrStreamClosed, trips: 2,
		},
		"a held value": {
			append: prepared(eventstore.UserStream(uuid.New()), eventstore.NoStream),
			change: func(p *eventstore.Prepared) { p.Reserve, p.ReserveKeys = known.Reserve, known.ReserveKeys },
			want:   eventstore.ErrReserved, trips: 2,
		},
		"its own value": {
			append: prepared(known.Stream, 1),
			change: func(p *eventstore.Prepared) { p.Reserve, p.ReserveKeys = known.Reserve, known.ReserveKeys }, trips: 2,
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var count devstack.RoundTrips
			s := open(t, migrated(t), postgres.Options{Configure: count.Configure})
			for _, p := range []*eventstore.Prepared{known, erased} {
				if outcomes, err := s.Commit(t.Context(), []*eventstore.Prepared{p}); err != nil || outcomes[0].Err != nil {
					t.Fatalf("%v, %v", outcomes, err)
				}
			}
			if tc.change != nil {
				tc.change(tc.append)
			}
			before, after := prepared(eventstore.UserStream(uuid.New()), eventstore.NoStream), prepared(eventstore.UserStream(uuid.New()), eventstore.NoStream)
			began := count.Count()
			outcomes, err := s.Commit(t.Context(), []*eventstore.Prepared{before, tc.append, after})
			if err != nil {
				t.Fatal(err)
			}
			if trips := count.Count() - began; trips != tc.trips {
				t.Errorf("%d round trips, want %d", trips, tc.trips)
			}
			if got := outcomes[1].Err; !errors.Is(got, tc.want) || (got == nil) != (tc.want == nil) {
				t.Errorf("%v, want %v", got, tc.want)
			}
			want := int64(5) // known, erased, before, append, after
			if tc.want != nil {
				want = 4
			}
			head, err := s.Head(t.Context())
			if err != nil || outcomes[0].Position != 3 || outcomes[2].Position != want || head != want || outcomes[2].Err != nil {
				t.Errorf("its neighbours: %+v, head %d, %v; want positions 3 and %d", outcomes, head, err, want)
			}
		})
	}
}

func prepared(stream eventstore.Stream, expected eventstore.Expected) *eventstore.Prepared {
	return &eventstore.Prepared{
		Append: eventstore.Append{
			Stream: stream, Expected: expected, Events: []eventstore.NewEvent{{ID: uuid.New(), Type: "user.locked", SchemaVersion: 1, Data: []byte("{}")}},
		},
		Meta: []byte("{}"), Sealed: make([][]byte, 1),
	}
}
