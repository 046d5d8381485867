package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"usher.example/eventstore"
)

// An event is shown alike, whichever database it was read from.
func TestPrintEvent(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	cmd := new(cobra.Command)
	cmd.SetOut(&out)
	event := eventstore.Event{Type: "user.imported", Data: json.RawMessage(`{"roles": ["editor"], "email_verified": false}`), Personal: json.RawMessage(`{"email":"ada@example.org"}`)}
	if err := printEvent(cmd, event); err != nil {
		t.Fatal(err)
	}
	if want := `{"roles":["editor"],"email_verified":false,"email":"ada@example.org"}` + "\n"; !strings.HasSuffix(out.String(), want) {
		t.Errorf("%s, want %s", &out, want)
	}
}
