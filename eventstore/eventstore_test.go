package eventstore_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"usher.example/eventstore"
)

func TestStreams(t *testing.T) {
	t.Parallel()
	user, session := newID(), newID()
	if got, want := eventstore.UserStream(user), (eventstore.Stream{ID: user, Kind: "user", Subject: user}); got != want {
		t.Errorf("UserStream = %+v, want %+v", got, want)
	}
	if got, want := eventstore.SessionStream(session, user), (eventstore.Stream{ID: session, Kind: "session", Subject: user}); got != want {
		t.Errorf("SessionStream = %+v, want %+v", got, want)
	}
	// Stored events refer to it: the id of a name must never change.
	keys := eventstore.SystemStream("keys")
	if want := "system/b19135bd-70a0-57c1-9ab0-5c2662a62ee1"; keys.String() != want || keys.Subject != uuid.Nil {
		t.Errorf("SystemStream = %+v, want %s", keys, want)
	}
}

func TestPayload(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ data, personal, want string }{
		{``, ``, `{}`},
		{`{}`, ``, `{}`},
		{`{"a":1}`, ``, `{"a":1}`},
		{`{}`, `{"b":2}`, `{"b":2}`},
		{`{"a":1}`, `{}`, `{"a":1}`},
		{`{"a":1}`, `{"b":2}`, `{"a":1,"b":2}`},
	} {
		e := eventstore.Event{Data: json.RawMessage(c.data), Personal: json.RawMessage(c.personal)}
		if got := string(e.Payload()); got != c.want {
			t.Errorf("Payload of %s and %s = %s, want %s", c.data, c.personal, got, c.want)
		}
		if string(e.Data) != c.data || string(e.Personal) != c.personal {
			t.Errorf("the event became %s and %s", e.Data, e.Personal)
		}
	}
}

func TestDecode(t *testing.T) {
	t.Parallel()
	type open struct{ A int }
	type personal struct{ B string }
	var o open
	p := personal{B: "as it was"}
	e := eventstore.Event{Data: json.RawMessage(`{"a":1}`)}
	if err := e.Decode(&o, &p); err != nil || o.A != 1 || p.B != "as it was" {
		t.Errorf("Decode = %+v, %+v, %v", o, p, err)
	}
	e.Personal = json.RawMessage(`{"b":"x"}`)
	if err := e.Decode(nil, &p); err != nil || p.B != "x" {
		t.Errorf("Decode = %+v, %v", p, err)
	}
	var wrong struct{ A, B bool }
	var mismatch *json.UnmarshalTypeError
	if err := e.Decode(&wrong, nil); !errors.As(err, &mismatch) {
		t.Errorf("Decode: %v", err)
	}
	if err := e.Decode(nil, &wrong); !errors.As(err, &mismatch) {
		t.Errorf("Decode: %v", err)
	}
}

func TestErrorsSayNoValues(t *testing.T) {
	t.Parallel()
	user := eventstore.UserStream(uuid.MustParse("0198c0de-0000-7000-8000-000000000001"))
	for _, c := range []struct {
		err, is error
		want    string
	}{
		{&eventstore.VersionError{Stream: user, Expected: 3, Actual: 5}, eventstore.ErrWrongExpectedVersion,
			"user/0198c0de-0000-7000-8000-000000000001 is at version 5, expected 3"},
		{&eventstore.ReservationError{Scope: "email"}, eventstore.ErrReserved, "email is already reserved"},
	} {
		wrapped := fmt.Errorf("append: %w", c.err)
		if !errors.Is(wrapped, c.is) || c.err.Error() != c.want {
			t.Errorf("%v, want %s, which is %v", c.err, c.want, c.is)
		}
	}
}

func TestParseMetadata(t *testing.T) {
	t.Parallel()
	id := uuid.MustParse("0198c0de-0000-7000-8000-000000000001")
	for _, c := range []struct {
		raw  string
		want eventstore.Metadata
	}{
		{`{}`, eventstore.Metadata{}},
		{` { } `, eventstore.Metadata{}},
		{`{"correlation_id":"0198c0de-0000-7000-8000-000000000001","actor":"system"}`, eventstore.Metadata{Correlation: id, Actor: "system"}},
		{`{"actor": "user:x", "causation_id": "0198c0de-0000-7000-8000-000000000001", "traceparent": "00-a-b-01"}`,
			eventstore.Metadata{Actor: "user:x", Causation: id, TraceParent: "00-a-b-01"}},
		{`{"actor": "a \"quoted\" \u00e4"}`, eventstore.Metadata{Actor: `a "quoted" ä`}},
		{`{"later": {"a": [1, "x"]}, "actor": "system"}`, eventstore.Metadata{Actor: "system"}},
	} {
		got, err := eventstore.ParseMetadata([]byte(c.raw))
		if err != nil {
			t.Errorf("%s: %v", c.raw, err)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: -want +got\n%s", c.raw, diff)
		}
	}
	for _, raw := range []string{``, `{`, `[]`, `{"correlation_id": "x"}`, `{"actor": 7}`, `{"actor" "x"}`} {
		if m, err := eventstore.ParseMetadata([]byte(raw)); err == nil {
			t.Errorf("%s: %+v", raw, m)
		}
	}
}

// The quick way reads what encoding/json wrote, laid out in whatever way, as encoding/json does; and survives the rest.
func FuzzParseMetadata(f *testing.F) {
	f.Add([]byte("0123456789abcdef"), []byte("0123456789abcdef"), "system", "00-a-b-01", []byte(`{"a":"b":"c"}`))
	f.Add([]byte(nil), []byte(nil), `user:"x" \ ä <&>`, "\x00\xff\u2028", []byte(`{"actor":"a" "b":"c",}`))
	f.Fuzz(func(t *testing.T, correlation, causation []byte, actor, trace string, raw []byte) {
		_, _ = eventstore.ParseMetadata(raw)
		m := eventstore.Metadata{Actor: actor, TraceParent: trace}
		copy(m.Correlation[:], correlation)
		copy(m.Causation[:], causation)
		written, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		var want eventstore.Metadata
		if err := json.Unmarshal(written, &want); err != nil {
			t.Fatal(err)
		}
		var spaced bytes.Buffer
		if err := json.Indent(&spaced, written, "", " "); err != nil {
			t.Fatal(err)
		}
		for _, raw := range [][]byte{written, spaced.Bytes()} {
			if got, err := eventstore.ParseMetadata(raw); got != want || err != nil {
				t.Errorf("%s: %+v, %v, want %+v", raw, got, err, want)
			}
		}
	})
}
