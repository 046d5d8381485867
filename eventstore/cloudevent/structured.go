package cloudevent

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
)

// StructuredType is the media type of a Document.
const StructuredType = "application/cloudevents+json"

// Document is an event in the structured mode of CloudEvents' JSON format: one JSON object with the attributes and, as
// "data", the payload. Its attributes are those of a message, without the prefix "ce-". Position and StreamVersion are
// strings as they are there: an integer of CloudEvents has 32 bits, and a position may be larger.
type Document struct {
	SpecVersion   string          `json:"specversion"`
	ID            uuid.UUID       `json:"id"`
	Source        string          `json:"source"`
	Type          string          `json:"type"`
	Time          time.Time       `json:"time"`
	Subject       uuid.UUID       `json:"subject,omitzero"`
	DataSchema    string          `json:"dataschema,omitempty"`
	ContentType   string          `json:"datacontenttype"`
	Position      string          `json:"position,omitempty"`
	StreamID      uuid.UUID       `json:"streamid,omitzero"`
	StreamKind    eventstore.Kind `json:"streamkind,omitempty"`
	StreamVersion string          `json:"streamversion,omitempty"`
	Correlation   uuid.UUID       `json:"correlationid,omitzero"`
	Causation     uuid.UUID       `json:"causationid,omitzero"`
	Actor         string          `json:"actor,omitempty"`
	TraceParent   string          `json:"traceparent,omitempty"`
	Address       string          `json:"address,omitempty"`
	UserAgent     string          `json:"useragent,omitempty"`
	Personal      string          `json:"personal,omitempty"`
	Data          json.RawMessage `json:"data"`
}

// NewDocument is a document of something that is not in the log, and so has no position and no stream.
func NewDocument(id uuid.UUID, source, eventType string, at time.Time, data json.RawMessage) Document {
	return Document{
		SpecVersion: specVersion, ID: id, Source: source, Type: eventType, Time: at.UTC(), ContentType: contentType, Data: data,
	}
}

// Structured writes an event, which must have been opened, as a document: what Encode writes as a message.
func Structured(e eventstore.Event, o Options) Document {
	d := NewDocument(e.ID, o.Source, e.Type, e.RecordedAt, nil)
	d.Subject = e.Stream.Subject
	d.DataSchema = schemaPrefix + e.Type + ":v" + strconv.Itoa(e.SchemaVersion)
	d.Position = strconv.FormatInt(e.Position, 10)
	d.StreamID, d.StreamKind, d.StreamVersion = e.Stream.ID, e.Stream.Kind, strconv.Itoa(e.Version)
	d.Correlation, d.Causation = e.Metadata.Correlation, e.Metadata.Causation
	d.Actor, d.TraceParent = e.Metadata.Actor, e.Metadata.TraceParent
	if d.Personal = personalMark(e, o); d.Personal == "" {
		d.Address, d.UserAgent = e.Metadata.Address, e.Metadata.UserAgent
	}
	if o.OmitPersonal {
		e.Personal = nil
	}
	d.Data = e.Payload()
	return d
}

// AppendJSON appends the document as encoding/json writes it, but for the payload, whose characters stay as they are. It
// fails where that is not JSON.
func (d Document) AppendJSON(b []byte) ([]byte, error) {
	b = append(b, '{')
	text := func(name, value string) {
		b = appendText(append(append(b, name...), ':'), value)
		b = append(b, ',')
	}
	optional := func(name, value string) {
		if value != "" {
			text(name, value)
		}
	}
	id := func(name string, value uuid.UUID) {
		if value != uuid.Nil {
			b = appendUUID(append(append(b, name...), ':', '"'), value)
			b = append(b, '"', ',')
		}
	}
	text(`"specversion"`, d.SpecVersion)
	id(`"id"`, d.ID)
	text(`"source"`, d.Source)
	text(`"type"`, d.Type)
	b = d.Time.AppendFormat(append(b, `"time":"`...), time.RFC3339Nano)
	b = append(b, '"', ',')
	id(`"subject"`, d.Subject)
	optional(`"dataschema"`, d.DataSchema)
	text(`"datacontenttype"`, d.ContentType)
	optional(`"position"`, d.Position)
	id(`"streamid"`, d.StreamID)
	optional(`"streamkind"`, string(d.StreamKind))
	optional(`"streamversion"`, d.StreamVersion)
	id(`"correlationid"`, d.Correlation)
	id(`"causationid"`, d.Causation)
	optional(`"actor"`, d.Actor)
	optional(`"traceparent"`, d.TraceParent)
	optional(`"address"`, d.Address)
	optional(`"useragent"`, d.UserAgent)
	optional(`"personal"`, d.Personal)
	whole := bytes.NewBuffer(append(b, `"data":`...))
	if err := json.Compact(whole, d.Data); err != nil {
		return nil, fmt.Errorf("encode %s %s: %w", d.Type, d.ID, err)
	}
	whole.WriteByte('}')
	return whole.Bytes(), nil
}

// appendText appends a text as JSON.
func appendText(b []byte, text string) []byte {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, err := json.Marshal(text)
			if err != nil { // texts can be expressed in JSON
				panic(err)
			}
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), text...), '"')
}

// personalMark is the value of HeaderPersonal: why the message lacks personal fields of the event, "" if it does not.
func personalMark(e eventstore.Event, o Options) string {
	switch {
	case e.Forgotten:
		return PersonalForgotten
	case o.OmitPersonal && (len(e.Personal) > len("{}") || e.Metadata.Address != "" || e.Metadata.UserAgent != ""):
		return PersonalOmitted
	}
	return ""
}
