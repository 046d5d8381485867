// Package eventcheck holds every event that a test appends against the JSON Schema of its type and version.
//
// It stands between a Log and its Store, so that no code path of a test can go round it. It is for tests only, and says
// nothing about events that were stored already.
package eventcheck

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"usher.example/eventstore"
	"usher.example/schema"
)

// TB is the part of testing.TB that this package needs.
type TB interface {
	Helper()
	Errorf(format string, args ...any)
}

// Store is s, with every event checked on its way in: it has a schema, its content is valid, and what the schema marks
// "x-personal", and nothing else, is among its personal fields. A violation fails the test and the append.
func Store(tb TB, s eventstore.Store) eventstore.Store { return checked{s, tb} }

type checked struct {
	eventstore.Store
	tb TB
}

func (c checked) Commit(ctx context.Context, batch []*eventstore.Prepared) ([]eventstore.Outcome, error) {
	for _, p := range batch {
		for _, e := range p.Events {
			if err := Event(e); err != nil {
				c.tb.Errorf("append to %s: %v", p.Stream, err)
				return nil, err
			}
		}
	}
	return c.Store.Commit(ctx, batch)
}

// Event checks one event.
func Event(e eventstore.NewEvent) error {
	name := e.Type + ".v" + strconv.Itoa(max(e.SchemaVersion, 1))
	known, err := schemas()
	if err != nil {
		return err
	}
	s, ok := known[name]
	if !ok {
		return fmt.Errorf("event %s: there is no such schema in schema/events", name)
	}
	whole := map[string]any{}
	for _, part := range []struct {
		raw      json.RawMessage
		personal bool
	}{{e.Data, false}, {e.Personal, true}} {
		if len(part.raw) == 0 {
			continue
		}
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(part.raw))
		if err != nil {
			return fmt.Errorf("event %s: %w", name, err)
		}
		object, ok := value.(map[string]any)
		if !ok {
			return fmt.Errorf("event %s: its content is not a JSON object", name)
		}
		for field, v := range object {
			if s.personal[field] != part.personal {
				return fmt.Errorf("event %s: %s is stored as a personal field: %v, marked as one: %v", name, field, part.personal, s.personal[field])
			}
			whole[field] = v
		}
	}
	if err := s.Validate(whole); err != nil {
		return fmt.Errorf("event %s: %w", name, err)
	}
	return nil
}

// Personal names the personal fields of an event's schema, as "<type>.v<version>".
func Personal(name string) (map[string]bool, error) {
	known, err := schemas()
	if err != nil {
		return nil, err
	}
	s, ok := known[name]
	if !ok {
		return nil, fmt.Errorf("event %s: %w", name, fs.ErrNotExist)
	}
	return s.personal, nil
}

type eventSchema struct {
	*jsonschema.Schema
	personal map[string]bool
}

// schemas compiles every event schema, once.
var schemas = sync.OnceValues(func() (map[string]eventSchema, error) {
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	known := map[string]eventSchema{}
	for _, name := range schema.Events() {
		at := strings.LastIndex(name, ".v")
		version, err := strconv.Atoi(name[at+2:])
		if err != nil {
			return nil, fmt.Errorf("event schema %s: %w", name, err)
		}
		raw, err := schema.Event(name[:at], version)
		if err != nil {
			return nil, err
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
		if err != nil {
			return nil, fmt.Errorf("event schema %s: %w", name, err)
		}
		var marks struct {
			Properties map[string]struct {
				Personal bool `json:"x-personal"`
			} `json:"properties"`
			Additional *bool `json:"additionalProperties"`
		}
		if err := json.Unmarshal(raw, &marks); err != nil {
			return nil, fmt.Errorf("event schema %s: %w", name, err)
		}
		if marks.Additional == nil || *marks.Additional {
			return nil, fmt.Errorf("event schema %s: %w", name, errOpen)
		}
		url := "events/" + name + ".json"
		if err := compiler.AddResource(url, doc); err != nil {
			return nil, fmt.Errorf("event schema %s: %w", name, err)
		}
		compiled, err := compiler.Compile(url)
		if err != nil {
			return nil, fmt.Errorf("event schema %s: %w", name, err)
		}
		s := eventSchema{Schema: compiled, personal: map[string]bool{}}
		for field, p := range marks.Properties {
			if p.Personal {
				s.personal[field] = true
			}
		}
		known[name] = s
	}
	return known, nil
})

var errOpen = errors.New("additionalProperties is not false")
