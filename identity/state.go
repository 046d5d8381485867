package identity

import (
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"usher.example/eventstore"
)

// stateRow is the state change that stores a row of a state table, whether or not it is there already. The row is a map or a
// struct with a value for each of the columns.
func stateRow(table string, row any) eventstore.StateChange {
	return eventstore.StateChange{Table: table, Row: marshal(row)}
}

// newRow is stateRow for a row that is not there yet.
func newRow(table string, row any) eventstore.StateChange {
	return eventstore.StateChange{Table: table, Row: marshal(row), New: true}
}

// dropRow is the state change that deletes the row with a primary key, if it is there.
func dropRow(table string, key any) eventstore.StateChange {
	return eventstore.StateChange{Table: table, Row: marshal(key), Delete: true}
}

// inList is what follows the IN of a statement that has no other arguments, and the arguments. There has to be an id.
func inList(ids []uuid.UUID) (in string, args []any) {
	places := make([]string, len(ids))
	for i, id := range ids {
		places[i] = fmt.Sprintf("$%d", i+1)
		args = append(args, id)
	}
	return "(" + strings.Join(places, ", ") + ")", args
}

// bytea is bytes as rows of state tables have them.
func bytea(raw []byte) string { return `\x` + hex.EncodeToString(raw) }
