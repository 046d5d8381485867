package storetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"usher.example/eventstore"
)

// Pages of any size, after any place, are in order and complete.
func testPages(t *testing.T, b Backend) {
	log := setup(t, b)
	users := []uuid.UUID{newID(), newID()}
	streams := []eventstore.Stream{
		eventstore.UserStream(users[0]), eventstore.UserStream(users[1]), eventstore.SessionStream(newID(), users[0]),
		eventstore.SystemStream("pages"),
	}
	const rounds = 5
	type place struct {
		Position int64
		Version  int
	}
	var all []place
	inStream, ofUser := map[uuid.UUID][]place{}, map[uuid.UUID][]place{}
	for n := range rounds {
		for _, s := range streams {
			r := mustAppend(t, log, facts(s))
			p := place{int64(n*len(streams) + len(all)%len(streams) + 1), n + 1}
			if r.Position != p.Position || r.Version != p.Version {
				t.Fatalf("Append = %+v, want %+v", r, p)
			}
			all = append(all, p)
			inStream[s.ID] = append(inStream[s.ID], p)
			ofUser[s.Subject] = append(ofUser[s.Subject], p)
		}
	}
	pages := func(read func(after place, limit int) ([]eventstore.Event, error), limit int) (got []place) {
		t.Helper()
		var after place
		for {
			events, err := read(after, limit)
			if err != nil {
				t.Fatal(err)
			}
			if len(events) > limit {
				t.Fatalf("%d events, at most %d", len(events), limit)
			}
			if len(events) == 0 {
				return got
			}
			for _, e := range events {
				after = place{e.Position, e.Version}
				got = append(got, after)
			}
		}
	}
	for _, limit := range []int{1, 3, 7, 1000} {
		got := pages(func(after place, limit int) ([]eventstore.Event, error) {
			return log.ReadAll(t.Context(), after.Position, limit)
		}, limit)
		if diff := cmp.Diff(all, got); diff != "" {
			t.Errorf("ReadAll by %d: -want +got\n%s", limit, diff)
		}
		for _, s := range streams {
			got := pages(func(after place, limit int) ([]eventstore.Event, error) {
				return log.ReadStream(t.Context(), s.ID, after.Version, limit)
			}, limit)
			if diff := cmp.Diff(inStream[s.ID], got); diff != "" {
				t.Errorf("ReadStream by %d: -want +got\n%s", limit, diff)
			}
		}
		for _, u := range append(users, newID()) {
			got := pages(func(after place, limit int) ([]eventstore.Event, error) {
				return log.ReadSubject(t.Context(), u, after.Position, limit)
			}, limit)
			if diff := cmp.Diff(ofUser[u], got); diff != "" {
				t.Errorf("ReadSubject by %d: -want +got\n%s", limit, diff)
			}
		}
	}
	some, err := log.ReadAt(t.Context(), []int64{1, 4, 6})
	if err != nil {
		t.Fatal(err)
	}
	var at []place
	for _, e := range some {
		at = append(at, place{e.Position, e.Version})
	}
	if diff := cmp.Diff([]place{all[0], all[3], all[5]}, at); diff != "" {
		t.Errorf("ReadAt: -want +got\n%s", diff)
	}
	for name, c := range map[string]struct {
		after, to int64
		eventstore.Selection
	}{
		"everything":       {0, int64(len(all)), eventstore.Selection{}},
		"a part":           {2, 5, eventstore.Selection{}},
		"users":            {1, int64(len(all)), eventstore.Selection{Kinds: []eventstore.Kind{eventstore.KindUser}}},
		"sessions, sealed": {0, int64(len(all)), eventstore.Selection{Kinds: []eventstore.Kind{eventstore.KindSession}, Sealed: true}},
	} {
		got, through, err := log.ReadRange(t.Context(), c.after, c.to, c.Selection)
		if err != nil || through != c.to {
			t.Fatalf("ReadRange, %s: through %d, %v, want %d", name, through, err, c.to)
		}
		reader := log.Reader(c.Selection)
		alone, through, err := reader.ReadRange(t.Context(), c.after, c.to)
		reader.Close()
		if diff := cmp.Diff(got, alone); diff != "" || through != c.to || err != nil {
			t.Errorf("ReadRange of a reader, %s: through %d, %v, -want +got\n%s", name, through, err, diff)
		}
		whole, err := log.ReadAll(t.Context(), c.after, int(c.to-c.after))
		if err != nil {
			t.Fatal(err)
		}
		var want []eventstore.Event
		for _, e := range whole {
			if e.Position == c.to || len(c.Kinds) == 0 || slices.Contains(c.Kinds, e.Stream.Kind) {
				want = append(want, e)
			}
		}
		if c.Sealed {
			for i := range want {
				want[i].Personal, want[i].Metadata.Address, want[i].Metadata.UserAgent = nil, "", ""
				want[i].Sealed = got[i].Sealed
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("ReadRange, %s: -want +got\n%s", name, diff)
		}
	}
	for name, read := range map[string]func() ([]eventstore.Event, error){
		"no position":     func() ([]eventstore.Event, error) { return log.ReadAt(t.Context(), nil) },
		"beyond the head": func() ([]eventstore.Event, error) { return log.ReadAll(t.Context(), int64(len(all)), 10) },
		"no such stream":  func() ([]eventstore.Event, error) { return log.ReadStream(t.Context(), newID(), 0, 10) },
		"limit 0":         func() ([]eventstore.Event, error) { return log.ReadAll(t.Context(), 0, 0) },
	} {
		if events, err := read(); len(events) != 0 || err != nil {
			t.Errorf("%s: %d events, %v", name, len(events), err)
		}
	}
	// A missing event stops the reader.
	change(t, log.db, "DELETE FROM events WHERE position = 6")
	_, err = log.ReadAll(t.Context(), 4, 10)
	wantError(t, "ReadAll over a gap", err, eventstore.ErrGap)
	_, _, err = log.ReadRange(t.Context(), 0, int64(len(all)), eventstore.Selection{Kinds: []eventstore.Kind{eventstore.KindSession}})
	wantError(t, "ReadRange over a gap", err, eventstore.ErrGap)
	_, err = log.ReadAt(t.Context(), []int64{5, 6, 7})
	wantError(t, "ReadAt of a gap", err, eventstore.ErrGap)
	_, err = log.ReadStream(t.Context(), streams[1].ID, 0, 10)
	wantError(t, "ReadStream over a gap", err, eventstore.ErrGap)
}

// Large events are read a few MiB at a time, of one kind or of all, and none is left out.
func testLargeParts(t *testing.T, b Backend) {
	log := deploy(t, b).process(t)
	const streams, large = 12, 200 << 10
	text := []byte(`{"text": "` + strings.Repeat("x", large) + `"}`)
	for range streams {
		user := newID()
		for _, stream := range []eventstore.Stream{eventstore.UserStream(user), eventstore.SessionStream(newID(), user)} {
			a := eventstore.Append{Stream: stream, Expected: eventstore.NoStream, Events: []eventstore.NewEvent{{Type: "thing.happened", Data: text}}}
			if _, err := log.Append(t.Context(), a); err != nil {
				t.Fatal(err)
			}
		}
	}
	const head, most = 2 * streams, 4 << 20
	for name, c := range map[string]struct {
		read func(after int64) (events []eventstore.Event, through int64, err error)
		want int
	}{
		"everything": {func(after int64) ([]eventstore.Event, int64, error) {
			return log.ReadRange(t.Context(), after, head, eventstore.Selection{})
		}, head},
		"users": {func(after int64) ([]eventstore.Event, int64, error) {
			events, through, err := log.ReadRange(t.Context(), after, head, eventstore.Selection{Kinds: []eventstore.Kind{eventstore.KindUser}, Sealed: true})
			if n := len(events); n > 0 && events[n-1].Stream.Kind != eventstore.KindUser { // the last one of the log is among them, whatever it is
				events = events[:n-1]
			}
			return events, through, err
		}, streams},
		"some": {func(after int64) ([]eventstore.Event, int64, error) {
			events, more, err := log.ReadSome(t.Context(), after, 1000)
			through := after + int64(len(events))
			if more != (through < head) {
				t.Errorf("ReadSome through %d says that there may be more: %v", through, more)
			}
			return events, through, err
		}, head},
	} {
		got, parts := 0, 0
		for at := int64(0); at < head; parts++ {
			events, through, err := c.read(at)
			if err != nil || through <= at {
				t.Fatalf("%s: read after %d through %d, %v", name, at, through, err)
			}
			if len(events)*large > most {
				t.Errorf("%s: %d events of %d KiB are read at once", name, len(events), large>>10)
			}
			for _, e := range events {
				if e.Position <= at || e.Position > through {
					t.Errorf("%s: the event at %d is read after %d through %d", name, e.Position, at, through)
				}
			}
			at, got = through, got+len(events)
		}
		if got != c.want || parts < 2 {
			t.Errorf("%s: %d events in %d parts, want %d in several", name, got, parts, c.want)
		}
	}
}

func testHead(t *testing.T, b Backend) {
	d := deploy(t, b)
	log, other := d.process(t), d.process(t)
	wantHead(t, log.db, 0)
	committed, stop := log.Watch()
	defer stop()
	for n := range int64(5) {
		mustAppend(t, log, facts(eventstore.SystemStream("head")))
		// What was answered is there for everybody at once.
		wantHead(t, log.db, n+1)
		wantHead(t, other.db, n+1)
		if head, err := other.Head(t.Context()); head != n+1 || err != nil {
			t.Errorf("Head = %d, %v, want %d", head, err, n+1)
		}
	}
	select {
	case <-committed:
	default:
		t.Error("no signal of a commit")
	}
}

func testUpcast(t *testing.T, b Backend) {
	d := deploy(t, b)
	up := func(p eventstore.Payload) (eventstore.Payload, error) {
		return eventstore.Payload{Data: fmt.Appendf(nil, `{"was": %s}`, p.Data), Personal: json.RawMessage(`{"up": 1}`)}, nil
	}
	broken := errors.New("broken")
	fail := func(eventstore.Payload) (eventstore.Payload, error) { return eventstore.Payload{}, broken }
	log := d.processOn(t, d.open(t), eventstore.Options{Upcasters: eventstore.Upcasters{"thing.happened": {up, up}, "thing.broke": {fail}}})
	stream := eventstore.SystemStream("old")
	for _, version := range []int{1, 2, 3} {
		a := facts(stream)
		a.Events[0].SchemaVersion = version
		mustAppend(t, log, a)
	}
	want := []string{`{"was": {"was": {"n": 1}}}`, `{"was": {"n": 1}}`, `{"n": 1}`}
	for i, e := range readAll(t, log.Log) {
		if string(e.Data) != want[i] || e.SchemaVersion != 3 {
			t.Errorf("event %d: version %d, %s, want 3, %s", i, e.SchemaVersion, e.Data, want[i])
		}
	}
	a := facts(stream)
	a.Events[0].Type = "thing.broke"
	mustAppend(t, log, a)
	_, err := log.ReadAll(t.Context(), 3, 1)
	wantError(t, "ReadAll", err, broken)
}
