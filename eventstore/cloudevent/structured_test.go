package cloudevent

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"usher.example/eventstore"
)

func TestStructured(t *testing.T) {
	t.Parallel()
	raw, err := json.Marshal(Structured(fullEvent(), Options{Source: "https://id.example.org/"}))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"specversion":"1.0","id":"` + eventID.String() + `","source":"https://id.example.org/","type":"session.started",` +
		`"time":"2026-02-03T04:05:06.000789Z","subject":"` + user.String() + `","dataschema":"urn:usher:event:session.started:v2",` +
		`"datacontenttype":"application/json","position":"1234567","streamid":"` + session.String() + `","streamkind":"session",` +
		`"streamversion":"3","correlationid":"` + request.String() + `","causationid":"` + session.String() + `",` +
		`"actor":"user:` + user.String() + `","traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",` +
		`"address":"2001:db8::1","useragent":"Mozilla/5.0 (100% \"quoted\" 日本 😀)",` +
		`"data":{"methods":["password"],"name":"Zoë"}}`
	if string(raw) != want {
		t.Errorf("Structured(e) =\n%s\nwant\n%s", raw, want)
	}
}

// AppendJSON knows every field, and writes them as encoding/json does.
func TestAppendJSON(t *testing.T) {
	t.Parallel()
	sparse := NewDocument(eventID, "urn:x", "webhook.test", time.Unix(0, 0), json.RawMessage(`{}`))
	odd := Structured(fullEvent(), Options{Source: "https://id.example.org/?a=<b>&c"})
	odd.Actor, odd.Personal, odd.UserAgent = "a\"\\b\n\u2028", PersonalOmitted, "broken \xff"
	for name, d := range map[string]Document{"full": Structured(fullEvent(), Options{Source: "urn:x"}), "sparse": sparse, "odd": odd} {
		want, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := d.AppendJSON(nil); err != nil || string(got) != string(want) {
			t.Errorf("%s: AppendJSON() =\n%s, %v, want\n%s", name, got, err, want)
		}
	}
	sparse.Data = json.RawMessage(`{"a":`)
	if got, err := sparse.AppendJSON(nil); err == nil {
		t.Errorf("AppendJSON() of a broken payload = %s, want an error", got)
	}
}

// A document has the attributes that a message has, each with the same value.
func TestStructuredHasWhatMessagesHave(t *testing.T) {
	t.Parallel()
	forgotten := fullEvent()
	forgotten.Personal, forgotten.Forgotten = nil, true
	system := eventstore.Event{
		Position: 1, Stream: eventstore.SystemStream("keys"), Version: 1, ID: eventID, Type: "key.rotated",
		SchemaVersion: 1, Data: json.RawMessage(`{}`), RecordedAt: time.Unix(0, 0).UTC(),
	}
	for name, e := range map[string]eventstore.Event{"full": fullEvent(), "forgotten": forgotten, "system": system} {
		for _, o := range []Options{{Source: "urn:x"}, {Source: "urn:x", OmitPersonal: true}} {
			header, body := Encode(e, o)
			raw, err := json.Marshal(Structured(e, o))
			if err != nil {
				t.Fatal(err)
			}
			var document map[string]json.RawMessage
			if err := json.Unmarshal(raw, &document); err != nil {
				t.Fatal(err)
			}
			want := map[string]string{"data": string(body), "datacontenttype": header.Get("content-type")}
			for attribute := range maps.Keys(header) {
				if bare, ok := strings.CutPrefix(attribute, "ce-"); ok {
					want[bare], _ = unescape(header[attribute][0])
				}
			}
			got := map[string]string{}
			for attribute, value := range document {
				var text string
				if json.Unmarshal(value, &text) != nil {
					text = string(value)
				}
				got[attribute] = text
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s, %+v (-message +document):\n%s", name, o, diff)
			}
		}
	}
}

func TestNewDocument(t *testing.T) {
	t.Parallel()
	raw, err := json.Marshal(NewDocument(uuid.MustParse("01980000-0000-7000-8000-000000000009"), "urn:x", "webhook.test", time.Unix(1, 0), json.RawMessage(`{}`)))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"data", "datacontenttype", "id", "source", "specversion", "time", "type"}, slices.Sorted(maps.Keys(got))); diff != "" {
		t.Errorf("attributes (-want +got):\n%s", diff)
	}
}
