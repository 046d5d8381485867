package storetest

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"usher.example/eventstore"
)

func testExpected(t *testing.T, b Backend) {
	log := setup(t, b)
	stream := eventstore.UserStream(newID())
	for i, c := range []struct {
		expected eventstore.Expected
		actual   int // of the conflict; 0 where it is written
		want     eventstore.Result
	}{
		{expected: 1, actual: -1},
		{expected: eventstore.NoStream, want: eventstore.Result{Position: 1, Version: 1}},
		{expected: eventstore.NoStream, actual: 1},
		{expected: 2, actual: 1},
		{expected: 1, want: eventstore.Result{Position: 2, Version: 2}},
		{expected: eventstore.AnyVersion, want: eventstore.Result{Position: 3, Version: 3}},
		{expected: 1, actual: 3},
	} {
		got, err := log.Append(t.Context(), eventstore.Append{Stream: stream, Expected: c.expected, Events: []eventstore.NewEvent{fact(i)}})
		if c.actual == 0 {
			if got != c.want || err != nil {
				t.Errorf("append %d = %+v, %v, want %+v", i, got, err, c.want)
			}
			continue
		}
		wantError(t, "append", err, eventstore.ErrWrongExpectedVersion)
		var conflict *eventstore.VersionError
		if errors.As(err, &conflict) {
			want := eventstore.VersionError{Stream: stream, Expected: c.expected, Actual: max(c.actual, 0)}
			if *conflict != want {
				t.Errorf("append %d: %+v, want %+v", i, *conflict, want)
			}
		}
	}
	// A stream that does not exist yet can be appended to at any version.
	if got := mustAppend(t, log, facts(eventstore.UserStream(newID()))); got.Version != 1 {
		t.Errorf("version = %d, want 1", got.Version)
	}
	wantHead(t, log.db, 4)
	for _, c := range []struct {
		stream uuid.UUID
		want   int
	}{{stream.ID, 3}, {newID(), 0}} {
		if v, err := log.db.StreamVersion(t.Context(), c.stream); v != c.want || err != nil {
			t.Errorf("StreamVersion = %d, %v, want %d", v, err, c.want)
		}
	}
}

func testSeveralEvents(t *testing.T, b Backend) {
	log := setup(t, b)
	stream := eventstore.UserStream(newID())
	mustAppend(t, log, facts(eventstore.SystemStream("before")))
	a := eventstore.Append{Stream: stream}
	for n := range eventstore.MaxEvents {
		a.Events = append(a.Events, fact(n))
	}
	want := eventstore.Result{Position: int64(eventstore.MaxEvents) + 1, Version: eventstore.MaxEvents}
	if got := mustAppend(t, log, a); got != want {
		t.Errorf("Append = %+v, want %+v", got, want)
	}
	for i, e := range readAll(t, log.Log)[1:] {
		var data struct{ N int }
		if err := e.Decode(&data, nil); err != nil {
			t.Fatal(err)
		}
		if e.Stream != stream || e.Version != i+1 || e.Position != int64(i+2) || data.N != i {
			t.Fatalf("event %d is %+v", i, e)
		}
	}
}

// Everything comes out as it went in.
func testContent(t *testing.T, b Backend) {
	log := setup(t, b)
	user := newID()
	begin := time.Now().Truncate(time.Microsecond)
	register := registration(user, "ada@example.org")
	register.Metadata.TraceParent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	register.Metadata.Causation = newID()
	register.Events[0].ID = newID()
	mustAppend(t, log, register)
	session := eventstore.Append{
		Stream:   eventstore.SessionStream(newID(), user),
		Events:   []eventstore.NewEvent{{Type: "session.started", SchemaVersion: 3}},
		Metadata: eventstore.Metadata{Correlation: newID(), UserAgent: "Browser/2.0"},
	}
	mustAppend(t, log, session)
	system := eventstore.Append{
		Stream:   eventstore.SystemStream("keys"),
		Events:   []eventstore.NewEvent{{ID: newID(), Type: "key.rotated", Data: json.RawMessage(`{"note": "ä \"quoted\" \\ 𝄞 <&>"}`)}},
		Metadata: eventstore.Metadata{Correlation: newID(), Actor: `operator "x"`},
	}
	mustAppend(t, log, system)

	got := readAll(t, log.Log)
	if len(got) != 3 {
		t.Fatalf("%d events, want 3", len(got))
	}
	if got[1].ID.Version() != 7 {
		t.Errorf("id = %s, want a UUIDv7", got[1].ID)
	}
	want := []eventstore.Event{
		{
			Position: 1, Stream: register.Stream, Version: 1, ID: register.Events[0].ID, Type: "user.registered", SchemaVersion: 1,
			Data: register.Events[0].Data, Personal: register.Events[0].Personal, Metadata: register.Metadata,
		},
		{
			Position: 2, Stream: session.Stream, Version: 1, ID: got[1].ID, Type: "session.started", SchemaVersion: 3,
			Data: json.RawMessage("{}"), Metadata: session.Metadata,
		},
		{
			Position: 3, Stream: system.Stream, Version: 1, ID: system.Events[0].ID, Type: "key.rotated", SchemaVersion: 1,
			Data: system.Events[0].Data, Metadata: system.Metadata,
		},
	}
	for i := range got {
		if at := got[i].RecordedAt; at.Before(begin) || at.After(time.Now()) || at.Location() != time.UTC {
			t.Errorf("recorded at %v, want between %v and now, in UTC", at, begin)
		}
		want[i].RecordedAt = got[i].RecordedAt
	}
	// A database may lay JSON out in its own way.
	sameJSON := cmp.Transformer("json", func(raw json.RawMessage) (v any) {
		if raw != nil {
			if err := json.Unmarshal(raw, &v); err != nil {
				t.Errorf("%s: %v", raw, err)
			}
		}
		return v
	})
	if diff := cmp.Diff(want, got, sameJSON); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// The time of an event is never before that of an earlier one, even when the clock was set back.
func testRecordedAt(t *testing.T, b Backend) {
	log := setup(t, b)
	mustAppend(t, log, facts(eventstore.SystemStream("clock")))
	ahead := time.Now().Add(time.Hour).Truncate(time.Microsecond).UTC()
	change(t, log.db, "UPDATE events SET recorded_at = $1 WHERE position = 1", ahead)
	mustAppend(t, log, facts(eventstore.SystemStream("clock")))
	events := readAll(t, log.Log)
	if first, second := events[0].RecordedAt, events[1].RecordedAt; !first.Equal(ahead) || second.Before(first) {
		t.Errorf("recorded at %v and %v, want %v and not before it", first, second, ahead)
	}
}

func testSizes(t *testing.T, b Backend) {
	d := deploy(t, b)
	log := d.process(t)
	user := newID()
	mustAppend(t, log, registration(user, "large@example.org"))
	sized := func(data, personal int) eventstore.Append {
		e := eventstore.NewEvent{Type: "user.profile_updated"}
		if data > 0 {
			e.Data = json.RawMessage(`"` + strings.Repeat("d", data-2) + `"`)
		}
		if personal > 0 {
			e.Personal = json.RawMessage(`"` + strings.Repeat("p", personal-2) + `"`)
		}
		return eventstore.Append{Stream: eventstore.UserStream(user), Expected: eventstore.AnyVersion, Events: []eventstore.NewEvent{e}}
	}
	const room = 200 // for the metadata
	largest := eventstore.MaxEventBytes - room
	for _, c := range []struct {
		data, personal int
		want           error
	}{
		{largest, 0, nil},
		{largest / 2, largest / 2, nil},
		{eventstore.MaxEventBytes, 0, eventstore.ErrEventTooLarge},
		{0, eventstore.MaxEventBytes, eventstore.ErrEventTooLarge},
		{largest / 2, eventstore.MaxEventBytes / 2, eventstore.ErrEventTooLarge},
	} {
		if c.data == largest/2 && c.want != nil {
			c.data += room
		}
		a := sized(c.data, c.personal)
		if c.want != nil {
			_, err := log.Append(t.Context(), a)
			wantError(t, "append", err, c.want)
			continue
		}
		r := mustAppend(t, log, a)
		events, err := log.ReadAll(t.Context(), r.Position-1, 1)
		if err != nil {
			t.Fatal(err)
		}
		if e := events[0]; len(e.Data) < c.data || len(e.Personal) != c.personal {
			t.Errorf("%d and %d bytes came back, want %d and %d", len(e.Data), len(e.Personal), c.data, c.personal)
		}
	}
	address := sized(0, 0)
	address.Metadata.UserAgent = strings.Repeat("u", eventstore.MaxEventBytes)
	_, err := log.Append(t.Context(), address)
	wantError(t, "append with a large user agent", err, eventstore.ErrEventTooLarge)
	wantHead(t, log.db, 3)
}

func testInvalid(t *testing.T, b Backend) {
	log := setup(t, b)
	stream := eventstore.UserStream(newID())
	events := []eventstore.NewEvent{fact(1)}
	personal := []eventstore.NewEvent{{Type: "user.registered", Personal: json.RawMessage(`{"email": "a@example.org"}`)}}
	for name, c := range map[string]struct {
		a    eventstore.Append
		want error
	}{
		"no stream":                 {eventstore.Append{Events: events}, eventstore.ErrInvalid},
		"no events":                 {eventstore.Append{Stream: stream}, eventstore.ErrInvalid},
		"too many events":           {eventstore.Append{Stream: stream, Events: make([]eventstore.NewEvent, eventstore.MaxEvents+1)}, eventstore.ErrInvalid},
		"expected version":          {eventstore.Append{Stream: stream, Expected: -2, Events: events}, eventstore.ErrInvalid},
		"key without subject":       {eventstore.Append{Stream: eventstore.SystemStream("x"), Events: events, CreateKey: true}, eventstore.ErrInvalid},
		"personal without subject":  {eventstore.Append{Stream: eventstore.SystemStream("x"), Events: personal}, eventstore.ErrInvalid},
		"value reserved twice":      {eventstore.Append{Stream: stream, Events: events, Reserve: []eventstore.Reservation{{Scope: "email", Value: "a"}, {Scope: "email", Value: "a"}}}, eventstore.ErrInvalid},
		"its own stream given":      {eventstore.Append{Stream: stream, Events: events, Given: []eventstore.StreamVersion{{Stream: stream.ID}}}, eventstore.ErrInvalid},
		"NUL in data":               {eventstore.Append{Stream: stream, Events: []eventstore.NewEvent{{Type: "x.y", Data: json.RawMessage(`{"a":"\\\u0000"}`)}}}, eventstore.ErrInvalid},
		"personal without data key": {eventstore.Append{Stream: stream, Events: personal}, eventstore.ErrNoKey},
		"address without data key": {eventstore.Append{
			Stream: stream, Events: events, Metadata: eventstore.Metadata{Address: "192.0.2.1"},
		}, eventstore.ErrNoKey},
	} {
		_, err := log.Append(t.Context(), c.a)
		wantError(t, name, err, c.want)
	}
	wantHead(t, log.db, 0)
}

func testClosedStreams(t *testing.T, b Backend) {
	log := setup(t, b)
	for _, state := range []string{"archived", "erased"} {
		stream := eventstore.UserStream(newID())
		first := facts(stream)
		first.CommandID = newID()
		want := mustAppend(t, log, first)
		change(t, log.db, "UPDATE streams SET state = $1 WHERE stream = $2", state, stream.ID)
		a := facts(stream)
		a.State = []eventstore.StateChange{credential(stream.ID, state)}
		_, err := log.Append(t.Context(), a)
		wantError(t, state, err, eventstore.ErrStreamClosed)
		a.Expected = 7
		_, err = log.Append(t.Context(), a)
		wantError(t, state+" at a wrong version", err, eventstore.ErrStreamClosed)
		// What was written before it was closed can still be asked for.
		want.Repeated = true
		if got := mustAppend(t, log, first); got != want {
			t.Errorf("repeated append = %+v, want %+v", got, want)
		}
	}
	wantRows(t, log.db, 0, "SELECT count(*) FROM credentials")
	wantHead(t, log.db, 2)
}

// One batch holds appends of every fate; each has its own, and positions have no gaps.
func testBatch(t *testing.T, b Backend) {
	d := deploy(t, b)
	db := d.open(t)
	prepared := func(stream eventstore.Stream, expected eventstore.Expected, events int) *eventstore.Prepared {
		p := &eventstore.Prepared{Append: eventstore.Append{Stream: stream, Expected: expected}, Meta: []byte("{}")}
		for n := range events {
			e := fact(n)
			e.ID, e.SchemaVersion = newID(), 1
			p.Events = append(p.Events, e)
		}
		p.Sealed = make([][]byte, events)
		return p
	}
	reserving := func(p *eventstore.Prepared, values ...string) *eventstore.Prepared {
		for _, v := range values {
			p.Reserve = append(p.Reserve, eventstore.Reservation{Scope: "scope of " + v})
			p.ReserveKeys = append(p.ReserveKeys, []byte(v))
		}
		return p
	}
	commit := func(batch ...*eventstore.Prepared) []eventstore.Outcome {
		t.Helper()
		outcomes, err := db.Commit(t.Context(), batch)
		if err != nil {
			t.Fatal(err)
		}
		return outcomes
	}
	holder, other := eventstore.UserStream(newID()), eventstore.UserStream(newID())
	closed := eventstore.UserStream(newID())
	command := reserving(prepared(holder, 0, 2), "taken")
	command.CommandID = newID()
	want := []eventstore.Outcome{
		{Result: eventstore.Result{Position: 2, Version: 2}},
		{Result: eventstore.Result{Position: 3, Version: 1}},
	}
	if diff := cmp.Diff(want, commit(command, prepared(closed, 0, 1))); diff != "" {
		t.Fatalf("-want +got\n%s", diff)
	}
	change(t, db, "UPDATE streams SET state = 'archived' WHERE stream = $1", closed.ID)

	repeated := prepared(eventstore.UserStream(newID()), 0, 3)
	repeated.CommandID = command.CommandID
	want = []eventstore.Outcome{
		{Result: eventstore.Result{Position: 4, Version: 1}},
		{Err: &eventstore.VersionError{Stream: holder, Expected: 1, Actual: 2}},
		{Err: &eventstore.ReservationError{Scope: "scope of taken"}},
		{Result: eventstore.Result{Position: 2, Version: 2, Repeated: true}},
		{Err: eventstore.ErrStreamClosed},
		{Result: eventstore.Result{Position: 7, Version: 3}},
	}
	got := commit(
		prepared(other, eventstore.AnyVersion, 1),
		prepared(holder, 1, 5),
		reserving(prepared(eventstore.UserStream(newID()), 0, 1), "free", "taken"),
		repeated,
		prepared(closed, 1, 1),
		reserving(prepared(eventstore.UserStream(newID()), 0, 3), "another"),
	)
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b error) bool {
		return (a == nil) == (b == nil) && (a == nil || a.Error() == b.Error())
	})); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	wantHead(t, db, 7)
	wantRows(t, db, 2, "SELECT count(*) FROM reservations")
	if outcomes, err := db.Commit(t.Context(), nil); len(outcomes) != 0 || err != nil {
		t.Errorf("empty batch: %v, %v", outcomes, err)
	}
}
