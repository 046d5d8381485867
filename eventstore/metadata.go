package eventstore

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/google/uuid"
)

// Metadata says how an event came to be.
type Metadata struct {
	Correlation uuid.UUID `json:"correlation_id"`        // of the request that began it all
	Causation   uuid.UUID `json:"causation_id,omitzero"` // of the event or command that caused this one
	Actor       string    `json:"actor,omitempty"`       // "user:<id>", "client:<id>", "anonymous", "operator", "system"
	TraceParent string    `json:"traceparent,omitempty"` // W3C Trace Context
	Address     string    `json:"-"`                     // personal: the client's address
	UserAgent   string    `json:"-"`                     // personal: the client's user agent
}

// personalMetadata is the part of the metadata that is stored sealed.
type personalMetadata struct {
	Address   string `json:"address,omitempty"`
	UserAgent string `json:"user_agent,omitempty"`
}

// ParseMetadata reads metadata as it is stored. Every event that is read passes here, so the usual form, a flat object
// of strings without escapes, is read without reflection; encoding/json reads any other.
func ParseMetadata(raw []byte) (Metadata, error) {
	if m, ok := parseFlat(raw); ok {
		return m, nil
	}
	var m Metadata
	if err := json.Unmarshal(raw, &m); err != nil {
		return m, fmt.Errorf("decode metadata: %w", err)
	}
	return m, nil
}

func parseFlat(raw []byte) (m Metadata, ok bool) {
	rest := bytes.TrimSpace(raw)
	if len(rest) < 2 || rest[0] != '{' || rest[len(rest)-1] != '}' || bytes.IndexByte(rest, '\\') >= 0 {
		return m, false
	}
	rest = rest[1 : len(rest)-1]
	for len(bytes.TrimSpace(rest)) > 0 {
		var name, value []byte
		if name, rest, ok = quoted(rest, ""); !ok {
			return m, false
		}
		if value, rest, ok = quoted(rest, ":"); !ok {
			return m, false
		}
		var err error
		switch string(name) {
		case "correlation_id":
			m.Correlation, err = uuid.ParseBytes(value)
		case "causation_id":
			m.Causation, err = uuid.ParseBytes(value)
		case "actor":
			m.Actor = string(value)
		case "traceparent":
			m.TraceParent = string(value)
		}
		if err != nil {
			return m, false
		}
		if rest = bytes.TrimLeft(rest, " "); len(rest) > 0 {
			if rest[0] != ',' {
				return m, false
			}
			rest = rest[1:]
		}
	}
	return m, true
}

// quoted reads a string without escapes that follows the given mark.
func quoted(in []byte, mark string) (text, rest []byte, ok bool) {
	in = bytes.TrimLeft(in, " ")
	if !bytes.HasPrefix(in, []byte(mark)) {
		return nil, nil, false
	}
	in = bytes.TrimLeft(in[len(mark):], " ")
	if len(in) == 0 || in[0] != '"' {
		return nil, nil, false
	}
	end := bytes.IndexByte(in[1:], '"')
	if end < 0 {
		return nil, nil, false
	}
	return in[1 : 1+end], in[end+2:], true
}
