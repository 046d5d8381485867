package schema_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"

	"usher.example/schema"
)

// The AsyncAPI document has every version of every event, with its schema, and nothing else; every reference in it leads
// somewhere.
func TestAsyncAPIHasEveryEvent(t *testing.T) {
	t.Parallel()
	type reference struct {
		Ref string `yaml:"$ref"`
	}
	var doc struct {
		AsyncAPI string `yaml:"asyncapi"`
		Channels map[string]struct {
			Messages map[string]reference `yaml:"messages"`
		} `yaml:"channels"`
		Components struct {
			Traits   map[string]any `yaml:"messageTraits"`
			Messages map[string]struct {
				Name    string      `yaml:"name"`
				Summary string      `yaml:"summary"`
				Traits  []reference `yaml:"traits"`
				Payload reference   `yaml:"payload"`
			} `yaml:"messages"`
		} `yaml:"components"`
	}
	if err := yaml.Unmarshal(schema.AsyncAPI, &doc); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(doc.AsyncAPI, "3.") {
		t.Errorf("asyncapi: %q, want 3.x", doc.AsyncAPI)
	}
	var sent, described []string
	for name, r := range doc.Channels["events"].Messages {
		sent = append(sent, name)
		if want := "#/components/messages/" + name; r.Ref != want {
			t.Errorf("channel: %s is %s, want %s", name, r.Ref, want)
		}
	}
	for name, m := range doc.Components.Messages {
		described = append(described, name)
		eventType := name[:max(strings.LastIndex(name, ".v"), 0)]
		if want := "./events/" + name + ".json"; m.Name != eventType || m.Payload.Ref != want {
			t.Errorf("message %s: name %s, payload %s, want %s and %s", name, m.Name, m.Payload.Ref, eventType, want)
		}
		if len(m.Traits) != 1 || doc.Components.Traits[strings.TrimPrefix(m.Traits[0].Ref, "#/components/messageTraits/")] == nil {
			t.Errorf("message %s: traits %v lead nowhere", name, m.Traits)
		}
		raw, err := schema.Event(eventType, 1)
		if err != nil {
			t.Errorf("message %s: %v", name, err)
			continue
		}
		var s struct {
			ID          string `json:"$id"`
			Title       string `json:"title"`
			Description string `json:"description"`
		}
		if err := json.Unmarshal(raw, &s); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if s.ID != "urn:usher:event:"+eventType+":"+name[len(eventType)+1:] || s.Title != eventType || s.Description != m.Summary {
			t.Errorf("%s: schema %s, %q: %q; message: %q", name, s.ID, s.Title, s.Description, m.Summary)
		}
	}
	slices.Sort(sent)
	slices.Sort(described)
	if diff := cmp.Diff(schema.Events(), sent); diff != "" {
		t.Errorf("events and the channel's messages differ (-events +channel):\n%s", diff)
	}
	if diff := cmp.Diff(schema.Events(), described); diff != "" {
		t.Errorf("events and messages differ (-events +messages):\n%s", diff)
	}
}
