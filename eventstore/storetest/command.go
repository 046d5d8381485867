package storetest

import (
	"testing"

	"golang.org/x/sync/errgroup"

	"usher.example/eventstore"
)

// An append repeated with its command id answers as the first time and changes nothing.
func testCommands(t *testing.T, b Backend) {
	d := deploy(t, b)
	log, other := d.process(t), d.process(t)
	a := registration(newID(), "ada@example.org")
	a.CommandID = newID()
	a.Events = append(a.Events, fact(2))
	mustAppend(t, log, facts(eventstore.SystemStream("before")))
	want := mustAppend(t, log, a)
	if want != (eventstore.Result{Position: 3, Version: 2}) {
		t.Fatalf("Append = %+v", want)
	}
	mustAppend(t, other, facts(eventstore.UserStream(a.Stream.ID)))
	want.Repeated = true

	different := registration(newID(), "bob@example.org")
	different.CommandID = a.CommandID
	different.Expected, different.CreateKey, different.Metadata = 17, false, eventstore.Metadata{}
	different.Events = []eventstore.NewEvent{fact(3)}
	for _, c := range []struct {
		name string
		log  process
		a    eventstore.Append
	}{
		{"same process", log, a},
		{"another process", other, a},
		{"another append", log, different},
	} {
		got, err := c.log.Append(t.Context(), c.a)
		if got != want || err != nil {
			t.Errorf("%s: %+v, %v, want %+v", c.name, got, err, want)
		}
	}
	wantHead(t, log.db, 4)
	wantRows(t, log.db, 1, "SELECT count(*) FROM commands")
	wantRows(t, log.db, 1, "SELECT count(*) FROM credentials")
	wantRows(t, log.db, 1, "SELECT count(*) FROM reservations")

	// A command that failed was not carried out, and may be tried again.
	failed := facts(eventstore.SystemStream("before"))
	failed.CommandID, failed.Expected = newID(), 9
	_, err := log.Append(t.Context(), failed)
	wantError(t, "append", err, eventstore.ErrWrongExpectedVersion)
	failed.Expected = 1
	if got := mustAppend(t, log, failed); got.Repeated {
		t.Errorf("Append = %+v, want it written", got)
	}
}

// The same command from many callers at once, in several processes and within one batch, is carried out once.
func testCommandsAtOnce(t *testing.T, b Backend) {
	const callers, commands = 12, 8
	d := deploy(t, b)
	logs := []process{d.process(t), d.process(t), d.process(t)}
	for n := range commands {
		a := facts(eventstore.UserStream(newID()))
		a.CommandID = newID()
		results := make([]eventstore.Result, callers)
		var group errgroup.Group
		for i := range callers {
			group.Go(func() (err error) {
				mine := a
				if i%2 == 1 { // a batch takes one append a stream, but also one a command
					mine.Stream = eventstore.UserStream(newID())
				}
				results[i], err = logs[i%len(logs)].Append(t.Context(), mine)
				return err
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		written := 0
		for _, r := range results {
			if !r.Repeated {
				written++
			}
			if r.Position != int64(n+1) || r.Version != 1 {
				t.Errorf("command %d: %+v, want position %d", n, r, n+1)
			}
		}
		if written != 1 {
			t.Errorf("command %d: written %d times", n, written)
		}
	}
	wantHead(t, logs[0].db, commands)
}
