package storetest

import (
	"testing"

	"github.com/google/uuid"

	"usher.example/eventstore"
)

// What came another way than from the log is told from what the log has, wherever in a batch it is.
func testConfirm(t *testing.T, b Backend) {
	p := setup(t, b)
	for range 10 {
		mustAppend(t, p, facts(eventstore.UserStream(newID())))
	}
	for name, c := range map[string]struct {
		change func([]eventstore.Event) []eventstore.Event
		want   error
	}{
		"all of it":           {func(e []eventstore.Event) []eventstore.Event { return e }, nil},
		"nothing":             {func(e []eventstore.Event) []eventstore.Event { return nil }, nil},
		"some of it":          {func(e []eventstore.Event) []eventstore.Event { return append(e[1:3:3], e[7:]...) }, nil},
		"another first":       {func(e []eventstore.Event) []eventstore.Event { e[0].ID = uuid.New(); return e }, eventstore.ErrForeign},
		"another in between":  {func(e []eventstore.Event) []eventstore.Event { e[4].ID = uuid.New(); return e }, eventstore.ErrForeign},
		"another last":        {func(e []eventstore.Event) []eventstore.Event { e[9].ID = uuid.New(); return e }, eventstore.ErrForeign},
		"beyond the head":     {func(e []eventstore.Event) []eventstore.Event { e[9].Position = 11; return e[9:] }, eventstore.ErrForeign},
		"at another position": {func(e []eventstore.Event) []eventstore.Event { e[3].Position = 5; return e[3:4] }, eventstore.ErrForeign},
	} {
		wantError(t, name, eventstore.Confirm(t.Context(), p.db, c.change(readAll(t, p.Log))), c.want)
	}
}
