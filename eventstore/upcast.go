package eventstore

import (
	"encoding/json"
	"fmt"
)

// Payload is the content of an event at one schema version.
type Payload struct{ Data, Personal json.RawMessage }

// Upcaster brings a payload from one schema version to the next. It is a pure function: stored events never change.
type Upcaster func(Payload) (Payload, error)

// Upcasters holds, by event type, the upcaster from schema version n at index n-1. They are chained.
type Upcasters map[string][]Upcaster

func (u Upcasters) apply(e *Event) error {
	chain := u[e.Type]
	for e.SchemaVersion-1 < len(chain) {
		p, err := chain[e.SchemaVersion-1](Payload{e.Data, e.Personal})
		if err != nil {
			return fmt.Errorf("upcast %s at %d from schema version %d: %w", e.Type, e.Position, e.SchemaVersion, err)
		}
		e.Data, e.Personal = p.Data, p.Personal
		e.SchemaVersion++
	}
	return nil
}

// Outdated says whether an event has an older schema version than it would have were it read from the log.
func (l *Log) Outdated(e Event) bool { return e.SchemaVersion-1 < len(l.upcasters[e.Type]) }
