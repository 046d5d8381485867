package identity

import (
	"encoding/hex"

	"usher/eventstore"
)

// stateRow is the state change that stores a row of a state table, with a value for each of its columns, whether or not it
// is there already.
func stateRow(table string, row map[string]any) eventstore.StateChange {
	return eventstore.StateChange{Table: table, Row: marshal(row)}
}

// newRow is stateRow for a row that is not there yet.
func newRow(table string, row map[string]any) eventstore.StateChange {
	return eventstore.StateChange{Table: table, Row: marshal(row), New: true}
}

// dropRow is the state change that deletes the row with a primary key, if it is there.
func dropRow(table string, key map[string]any) eventstore.StateChange {
	return eventstore.StateChange{Table: table, Row: marshal(key), Delete: true}
}

// bytea is bytes as rows of state tables have them.
func bytea(raw []byte) string { return `\x` + hex.EncodeToString(raw) }
