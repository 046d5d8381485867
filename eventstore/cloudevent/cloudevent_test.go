package cloudevent

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"usher.example/eventstore"
)

var (
	user    = uuid.MustParse("01980000-0000-7000-8000-000000000001")
	session = uuid.MustParse("01980000-0000-7000-8000-000000000002")
	request = uuid.MustParse("01980000-0000-7000-8000-000000000003")
	eventID = uuid.MustParse("01980000-0000-7000-8000-000000000004")
)

func fullEvent() eventstore.Event {
	return eventstore.Event{
		Position:      1234567,
		Stream:        eventstore.SessionStream(session, user),
		Version:       3,
		ID:            eventID,
		Type:          "session.started",
		SchemaVersion: 2,
		Data:          json.RawMessage(`{"methods":["password"]}`),
		Personal:      json.RawMessage(`{"name":"Zoë"}`),
		Metadata: eventstore.Metadata{
			Correlation: request,
			Causation:   session,
			Actor:       "user:" + user.String(),
			TraceParent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
			Address:     "2001:db8::1",
			UserAgent:   `Mozilla/5.0 (100% "quoted" 日本 😀)`,
		},
		RecordedAt: time.Date(2026, 2, 3, 4, 5, 6, 789000, time.UTC),
	}
}

func TestEncode(t *testing.T) {
	t.Parallel()
	e := fullEvent()
	header, body := Encode(e, Options{Source: "https://id.example.org/"})
	want := nats.Header{
		"ce-specversion":   {"1.0"},
		"ce-id":            {eventID.String()},
		"ce-source":        {"https://id.example.org/"},
		"ce-type":          {"session.started"},
		"ce-time":          {"2026-02-03T04:05:06.000789Z"},
		"ce-subject":       {user.String()},
		"ce-dataschema":    {"urn:usher:event:session.started:v2"},
		"content-type":     {"application/json"},
		"ce-position":      {"1234567"},
		"ce-streamid":      {session.String()},
		"ce-streamkind":    {"session"},
		"ce-streamversion": {"3"},
		"ce-correlationid": {request.String()},
		"ce-causationid":   {session.String()},
		"ce-actor":         {"user:" + user.String()},
		"ce-traceparent":   {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
		"traceparent":      {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
		"ce-address":       {"2001:db8::1"},
		"ce-useragent":     {"Mozilla/5.0%20(100%25%20%22quoted%22%20%E6%97%A5%E6%9C%AC%20%F0%9F%98%80)"},
	}
	if diff := cmp.Diff(want, header); diff != "" {
		t.Errorf("Encode header (-want +got):\n%s", diff)
	}
	if want := `{"methods":["password"],"name":"Zoë"}`; string(body) != want {
		t.Errorf("Encode body = %s, want %s", body, want)
	}
	for name := range header {
		for _, c := range name {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
				t.Errorf("header %q has a character that CloudEvents does not allow", name)
			}
		}
	}
}

func TestSubject(t *testing.T) {
	t.Parallel()
	id := user.String()
	if got, want := Subject(fullEvent()), "usher.v1."+id[len(id)-2:]+".session.started"; got != want {
		t.Errorf("Subject() = %s, want %s", got, want)
	}
	system := eventstore.Event{Stream: eventstore.SystemStream("keys"), Type: "key.rotated"}
	if got, want := Subject(system), "usher.v1.system.key.rotated"; got != want {
		t.Errorf("Subject() = %s, want %s", got, want)
	}
	for id, want := range map[string]string{
		"0198b7a0-4b1e-7c3f-9d27-5f0d8a6c1e00": "00", "0198b7a0-4b1e-7c3f-9d27-5f0d8a6c1e0a": "0a",
		"0198b7a0-4b1e-7c3f-9d27-5f0d8a6c1ea0": "a0", "0198b7a0-4b1e-7c3f-9d27-5f0d8a6c1eff": "ff",
		"00000000-0000-0000-0000-000000000000": "system",
	} {
		if got := Shard(uuid.MustParse(id)); got != want {
			t.Errorf("Shard(%s) = %s, want %s", id, got, want)
		}
		if got := ShardSubjects(want); got != "usher.v1."+want+".>" {
			t.Errorf("ShardSubjects(%s) = %s", want, got)
		}
	}
	for subject, want := range map[string]bool{
		"usher.v1." + id + ".user.registered": true, "usher.v1." + id + ".>": true, "usher.v1." + id: true,
		"usher.v1.a3.user.registered": false, "usher.v1.system.key.rotated": false, "usher.v1.*.user.>": false, "usher.v1.>": false,
		"usher.v1." + strings.ReplaceAll(id, "-", "") + ".>": false, "orders." + id + ".>": false, ">": false,
	} {
		if got := PerUser(subject); got != want {
			t.Errorf("PerUser(%s) = %v, want %v", subject, got, want)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	minimal := eventstore.Event{
		Position: 1, Stream: eventstore.SystemStream("keys"), Version: 1, ID: eventID, Type: "key.rotated",
		SchemaVersion: 1, Data: json.RawMessage(`{}`), RecordedAt: time.Unix(0, 0).UTC(),
	}
	forgotten := fullEvent()
	forgotten.Personal, forgotten.Forgotten = nil, true
	forgotten.Metadata.Address, forgotten.Metadata.UserAgent = "", ""
	for name, e := range map[string]eventstore.Event{"full": fullEvent(), "minimal": minimal, "forgotten": forgotten} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			header, body := Encode(e, Options{Source: "urn:x"})
			got, err := Decode(header, body)
			if err != nil {
				t.Fatal(err)
			}
			want := e
			want.Data, want.Personal = e.Payload(), nil
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("Decode(Encode(e)) (-want +got):\n%s", diff)
			}
		})
	}
}

func TestOmitPersonal(t *testing.T) {
	t.Parallel()
	header, body := Encode(fullEvent(), Options{Source: "urn:x", OmitPersonal: true})
	if got := header.Get(HeaderPersonal); got != PersonalOmitted {
		t.Errorf("%s = %q, want %q", HeaderPersonal, got, PersonalOmitted)
	}
	if want := `{"methods":["password"]}`; string(body) != want {
		t.Errorf("body = %s, want %s", body, want)
	}
	e, err := Decode(header, body)
	if err != nil {
		t.Fatal(err)
	}
	if e.Forgotten || e.Metadata.Address != "" || e.Metadata.UserAgent != "" {
		t.Errorf("Decode() = %+v, want no personal metadata and not forgotten", e)
	}

	open := fullEvent()
	open.Personal = nil
	open.Metadata.Address, open.Metadata.UserAgent = "", ""
	if header, _ := Encode(open, Options{OmitPersonal: true}); header.Get(HeaderPersonal) != "" {
		t.Errorf("%s = %q for an event without personal fields", HeaderPersonal, header.Get(HeaderPersonal))
	}
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	for name, value := range map[string]string{
		"ce-specversion":   "0.3",
		"ce-id":            "not-a-uuid",
		"ce-type":          "",
		"ce-time":          "yesterday",
		"ce-subject":       "00000000-0000-0000-0000-000000000000",
		"ce-dataschema":    "urn:usher:event:another.type:v1",
		"ce-position":      "+5",
		"ce-streamid":      "{01980000-0000-7000-8000-000000000002}",
		"ce-streamkind":    "%zz",
		"ce-streamversion": "0",
		"ce-actor":         "%FF",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			header, body := Encode(fullEvent(), Options{Source: "urn:x"})
			header.Set(name, value)
			if _, err := Decode(header, body); !errors.Is(err, ErrMalformed) {
				t.Errorf("Decode with %s %q = %v, want ErrMalformed", name, value, err)
			}
		})
	}
	t.Run("empty", func(t *testing.T) {
		t.Parallel()
		if _, err := Decode(nil, nil); !errors.Is(err, ErrMalformed) {
			t.Errorf("Decode(nil, nil) = %v, want ErrMalformed", err)
		}
	})
}

// Not parallel: testing.AllocsPerRun counts the allocations of the whole process.
func TestEncodeAllocations(t *testing.T) {
	e := fullEvent()
	// The map, the buffer, its string, the values and the payload; the map takes several.
	if got := testing.AllocsPerRun(100, func() { Encode(e, Options{Source: "urn:x"}) }); got > 12 {
		t.Errorf("Encode allocates %v times, want at most 12", got)
	}
}

func BenchmarkEncode(b *testing.B) {
	e := fullEvent()
	b.ReportAllocs()
	for b.Loop() {
		Encode(e, Options{Source: "https://id.example.org/"})
	}
}

func BenchmarkDecode(b *testing.B) {
	header, body := Encode(fullEvent(), Options{Source: "https://id.example.org/"})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(header, body); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzDecode changes one header, or every value that goes into them, and holds that what Decode accepts survives being
// written and read again.
func FuzzDecode(f *testing.F) {
	header, _ := Encode(fullEvent(), Options{Source: "urn:x"})
	for _, name := range slices.Sorted(maps.Keys(header)) {
		f.Add(name, header.Get(name), `{"a":1}`)
	}
	f.Add("ce-actor", "%E6%97%A5%zz", "{}")
	f.Add("ce-time", "2026-02-03T04:05:06.789+02:00", "")
	f.Fuzz(func(t *testing.T, name, value, body string) {
		header, _ := Encode(fullEvent(), Options{Source: "urn:x"})
		header[name] = []string{value}
		first, err := Decode(header, []byte(body))
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("Decode() = %v, want ErrMalformed", err)
			}
			return
		}
		header, again := Encode(first, Options{Source: "urn:x"})
		second, err := Decode(header, again)
		if err != nil {
			t.Fatalf("Decode(Encode(%+v)) = %v", first, err)
		}
		if len(first.Data) == 0 {
			first.Data = json.RawMessage("{}")
		}
		if first.Forgotten { // personal metadata is not written then
			first.Metadata.Address, first.Metadata.UserAgent = "", ""
		}
		if diff := cmp.Diff(first, second); diff != "" {
			t.Errorf("Decode(Encode(e)) (-want +got):\n%s", diff)
		}
	})
}
