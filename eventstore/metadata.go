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
	Actor       string    `json:"actor,omitempty"`       // "user:<id>", "client:<id>", "user:<id> via client:<id>", "anonymous", "operator", "system"
	TraceParent string    `json:"traceparent,omitempty"` // W3C Trace Context
	Address     string    `json:"-"`                     // personal: the client's address
	UserAgent   string    `json:"-"`                     // personal: the client's user agent
	// Network is what is counted as one client, where that is not the network of Address. It is not stored.
	Network string `json:"-"`
}

// personalMetadata is the part of the metadata that is stored sealed.
type personalMetadata struct {
	Address   string `json:"address,omitempty"`
	UserAgent string `json:"user_agent,omitempty"`
}

// ParseMetadata reads metadata as it is stored. Every event that is read passes here, so the usual form, a flat object
// of strings without escapes, is read without reflection; encoding/json reads any other.
func ParseMetadata(raw []byte) (m Metadata, err error) {
	if parseFlat(raw, m.set) {
		return m, nil
	}
	m = Metadata{}
	if err := json.Unmarshal(raw, &m); err != nil {
		return m, fmt.Errorf("decode metadata: %w", err)
	}
	return m, nil
}

func (m *Metadata) set(name, value []byte) (err error) {
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
	return err
}

// parsePersonal reads the part that was sealed, as ParseMetadata reads the other.
func parsePersonal(raw []byte) (m personalMetadata, err error) {
	if parseFlat(raw, m.set) {
		return m, nil
	}
	m = personalMetadata{}
	if err := json.Unmarshal(raw, &m); err != nil {
		return m, fmt.Errorf("decode personal metadata: %w", err)
	}
	return m, nil
}

func (m *personalMetadata) set(name, value []byte) error {
	switch string(name) {
	case "address":
		m.Address = string(value)
	case "user_agent":
		m.UserAgent = string(value)
	}
	return nil
}

// parseFlat hands over the fields of a flat object of strings without escapes. It answers with false for any other, of
// which it may have handed some fields over.
func parseFlat(raw []byte, set func(name, value []byte) error) bool {
	rest := bytes.TrimSpace(raw)
	if len(rest) < 2 || rest[0] != '{' || rest[len(rest)-1] != '}' || bytes.IndexByte(rest, '\\') >= 0 {
		return false
	}
	rest = rest[1 : len(rest)-1]
	for len(bytes.TrimSpace(rest)) > 0 {
		var name, value []byte
		var ok bool
		if name, rest, ok = quoted(rest, ""); !ok {
			return false
		}
		if value, rest, ok = quoted(rest, ":"); !ok {
			return false
		}
		if set(name, value) != nil {
			return false
		}
		if rest = bytes.TrimLeft(rest, " "); len(rest) > 0 {
			if rest[0] != ',' {
				return false
			}
			rest = rest[1:]
		}
	}
	return true
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
