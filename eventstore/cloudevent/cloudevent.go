// Package cloudevent writes events as messages and reads them back: CloudEvents 1.0 in the binary mode of its NATS
// protocol binding. For HTTP it writes the same as one JSON object, the structured mode: see [Document].
//
// The attributes are headers with the prefix "ce-", percent-encoded where the specification says so; the body is the
// event's payload as JSON. Beside the attributes of the specification there are these extensions:
//
//	ce-position       place in the log, and the message's JetStream sequence
//	ce-streamid       the stream, ce-streamkind its kind, ce-streamversion the event's number in it
//	ce-correlationid  the request that began it all
//	ce-causationid    the event or command that caused this one, where there is one
//	ce-actor          who did it, where that is known
//	ce-traceparent    W3C Trace Context, where there is one; also as the header traceparent
//	ce-address        the client's address and ce-useragent its user agent, where they are known; personal
//	ce-personal       "omitted" or "forgotten", where the event has personal fields and the message does not
//
// An event that is written and read back is the same, except that Decode leaves the body whole in Data: which of its
// fields are personal is for the reader to know. The package does not validate payloads.
package cloudevent

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"usher.example/eventstore"
)

// ErrMalformed: the headers are not those of an event.
var ErrMalformed = errors.New("malformed event message")

// Names that readers of messages need. A header's name is to be written in exactly this way.
const (
	HeaderID       = "ce-id"
	HeaderPosition = "ce-position"
	HeaderPersonal = "ce-personal"
	HeaderSource   = "ce-source"
	HeaderSubject  = "ce-subject" // the user
	HeaderType     = "ce-type"

	// SubjectPrefix begins every subject; the number is the version of the layout of subjects and messages.
	SubjectPrefix = "usher.v1."
	// SystemShard is the shard of the events that concern no user.
	SystemShard = "system"
	// PersonalOmitted is the value of HeaderPersonal where the log has personal fields that the message lacks.
	PersonalOmitted = "omitted"
	// MetadataSetBack is the key, in the metadata of a durable consumer, of the position that the consumer was set back to when
	// the log was restored from a backup: what it had been given after that is not in the log.
	MetadataSetBack = "usher-set-back"
	// MetadataPerUser is the key, in the metadata of a durable consumer, of a mark: its filter names a user's subjects, which
	// there are no longer, so the relay paused it where it was.
	MetadataPerUser = "usher-per-user-filter"
	// PersonalForgotten is the value of HeaderPersonal where the key to the personal fields has been destroyed.
	PersonalForgotten = "forgotten"

	headerSpecVersion   = "ce-specversion"
	headerTime          = "ce-time"
	headerSchema        = "ce-dataschema"
	headerStreamID      = "ce-streamid"
	headerStreamKind    = "ce-streamkind"
	headerStreamVersion = "ce-streamversion"
	headerCorrelation   = "ce-correlationid"
	headerCausation     = "ce-causationid"
	headerActor         = "ce-actor"
	headerTraceParent   = "ce-traceparent"
	headerTraceContext  = "traceparent" // the same, where tracing libraries look for it
	headerAddress       = "ce-address"
	headerUserAgent     = "ce-useragent"
	headerContentType   = "content-type"

	specVersion  = "1.0"
	contentType  = "application/json"
	schemaPrefix = "urn:usher:event:"
)

// headerCount is room for every header above and the two that a publisher adds.
const headerCount = 23

// Options of Encode.
type Options struct {
	Source       string // the attribute source: a URI reference that names the deployment
	OmitPersonal bool   // leave personal fields out
}

// Encode writes an event, which must have been opened, as the headers and body of a message. The body may share memory
// with the event. The header has room for a few more entries.
func Encode(e eventstore.Event, o Options) (header nats.Header, body []byte) {
	w := writer{text: make([]byte, 0, 640)}
	w.plain(headerSpecVersion, specVersion)
	w.uuid(HeaderID, e.ID)
	w.escaped(HeaderSource, o.Source)
	w.escaped(HeaderType, e.Type)
	w.text = e.RecordedAt.UTC().AppendFormat(w.text, time.RFC3339Nano)
	w.end(headerTime)
	if e.Stream.Subject != uuid.Nil {
		w.uuid(HeaderSubject, e.Stream.Subject)
	}
	w.text = append(w.text, schemaPrefix...)
	w.text = appendEscaped(w.text, e.Type)
	w.text = append(w.text, ":v"...)
	w.number(headerSchema, int64(e.SchemaVersion))
	w.plain(headerContentType, contentType)
	w.number(HeaderPosition, e.Position)
	w.uuid(headerStreamID, e.Stream.ID)
	w.escaped(headerStreamKind, string(e.Stream.Kind))
	w.number(headerStreamVersion, int64(e.Version))
	if e.Metadata.Correlation != uuid.Nil {
		w.uuid(headerCorrelation, e.Metadata.Correlation)
	}
	if e.Metadata.Causation != uuid.Nil {
		w.uuid(headerCausation, e.Metadata.Causation)
	}
	w.optional(headerActor, e.Metadata.Actor)
	w.optional(headerTraceParent, e.Metadata.TraceParent)
	w.optional(headerTraceContext, e.Metadata.TraceParent)

	if mark := personalMark(e, o); mark != "" {
		w.plain(HeaderPersonal, mark)
	} else {
		w.optional(headerAddress, e.Metadata.Address)
		w.optional(headerUserAgent, e.Metadata.UserAgent)
	}
	if o.OmitPersonal {
		e.Personal = nil
	}
	return w.finish(), e.Payload()
}

// Decode reads an event back from the headers and body of a message. Data is the whole body and shares its memory.
// Forgotten is set where the message says so; HeaderPersonal also tells when personal fields were left out, which the
// log still has. It fails with ErrMalformed.
func Decode(header nats.Header, body []byte) (eventstore.Event, error) {
	r := reader{header: header}
	if v := r.text(headerSpecVersion); v != specVersion {
		return eventstore.Event{}, fmt.Errorf("%w: %s is %q", ErrMalformed, headerSpecVersion, v)
	}
	e := eventstore.Event{
		Position: r.number(HeaderPosition),
		Stream: eventstore.Stream{
			ID:      r.uuid(headerStreamID),
			Kind:    eventstore.Kind(r.text(headerStreamKind)),
			Subject: r.optionalUUID(HeaderSubject),
		},
		Version: int(r.number(headerStreamVersion)),
		ID:      r.uuid(HeaderID),
		Type:    r.text(HeaderType),
		Data:    body,
		Metadata: eventstore.Metadata{
			Correlation: r.optionalUUID(headerCorrelation),
			Causation:   r.optionalUUID(headerCausation),
			Actor:       r.optional(headerActor),
			TraceParent: r.optional(headerTraceParent),
			Address:     r.optional(headerAddress),
			UserAgent:   r.optional(headerUserAgent),
		},
		RecordedAt: r.time(headerTime),
		Forgotten:  r.optional(HeaderPersonal) == PersonalForgotten,
	}
	e.SchemaVersion = r.schemaVersion(e.Type)
	if r.err != nil {
		return eventstore.Event{}, r.err
	}
	return e, nil
}

// writer gathers the values of the headers in one buffer, which becomes one string that they all are parts of.
type writer struct {
	text  []byte
	count int
	names [headerCount]string
	ends  [headerCount]int // of the values in text
}

func (w *writer) end(name string) {
	w.names[w.count], w.ends[w.count] = name, len(w.text)
	w.count++
}

func (w *writer) plain(name, value string) {
	w.text = append(w.text, value...)
	w.end(name)
}

func (w *writer) escaped(name, value string) {
	w.text = appendEscaped(w.text, value)
	w.end(name)
}

func (w *writer) optional(name, value string) {
	if value != "" {
		w.escaped(name, value)
	}
}

func (w *writer) number(name string, value int64) {
	w.text = strconv.AppendInt(w.text, value, 10)
	w.end(name)
}

func (w *writer) uuid(name string, value uuid.UUID) {
	w.text = appendUUID(w.text, value)
	w.end(name)
}

func (w *writer) finish() nats.Header {
	header := make(nats.Header, headerCount)
	values := make([]string, w.count)
	text, start := string(w.text), 0
	for i, name := range w.names[:w.count] {
		values[i] = text[start:w.ends[i]]
		header[name] = values[i : i+1 : i+1]
		start = w.ends[i]
	}
	return header
}

// reader reads headers and keeps the first error.
type reader struct {
	header nats.Header
	err    error
}

func (r *reader) fail(name, value string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s is %q", ErrMalformed, name, value)
	}
}

func (r *reader) optional(name string) string {
	values := r.header[name]
	if len(values) == 0 {
		return ""
	}
	text, ok := unescape(values[0])
	if !ok || len(values) > 1 {
		r.fail(name, strings.Join(values, ", "))
	}
	return text
}

func (r *reader) text(name string) string {
	text := r.optional(name)
	if text == "" {
		r.fail(name, text)
	}
	return text
}

// number reads a position or version: a whole number from 1 up, in its one decimal form.
func (r *reader) number(name string) int64 {
	text := r.text(name)
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 || text[0] < '1' {
		r.fail(name, text)
	}
	return n
}

func (r *reader) uuid(name string) uuid.UUID {
	id := r.optionalUUID(name)
	if id == uuid.Nil {
		r.fail(name, "")
	}
	return id
}

func (r *reader) optionalUUID(name string) uuid.UUID {
	text := r.optional(name)
	if text == "" {
		return uuid.Nil
	}
	id, err := uuid.Parse(text)
	if err != nil || len(text) != 36 || id == uuid.Nil {
		r.fail(name, text)
	}
	return id
}

func (r *reader) time(name string) time.Time {
	text := r.text(name)
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		r.fail(name, text)
	}
	return t.UTC()
}

func (r *reader) schemaVersion(eventType string) int {
	text := r.text(headerSchema)
	version, ok := strings.CutPrefix(text, schemaPrefix)
	if ok {
		version, ok = strings.CutPrefix(version, eventType)
	}
	if ok {
		version, ok = strings.CutPrefix(version, ":v")
	}
	n, err := strconv.Atoi(version)
	if !ok || err != nil || n < 1 {
		r.fail(headerSchema, text)
	}
	return n
}

const hexDigits = "0123456789abcdef"

func appendUUID(b []byte, id uuid.UUID) []byte {
	for i, c := range id {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			b = append(b, '-')
		}
		b = append(b, hexDigits[c>>4], hexDigits[c&15])
	}
	return b
}
