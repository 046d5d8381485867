package storetest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
)

// The test binary, started again with this in its environment, appends to the database that it names until it is killed.
const (
	writerDatabase = "USHER_STORETEST_WRITER"
	writerMaster   = "USHER_STORETEST_MASTER_KEY"
)

// Child makes the test binary a writer if it was started as one, and does not return then. TestMain calls it first.
func Child(b Backend) {
	name := os.Getenv(writerDatabase)
	if name == "" {
		return
	}
	if err := writeUntilKilled(b, name); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(1)
}

// killed is an append as the writer tells of it once it was answered.
type killed struct {
	Stream   uuid.UUID
	Position int64
	Events   int
}

func writeUntilKilled(b Backend, name string) error {
	master, err := eventstore.ParseMasterKey(os.Getenv(writerMaster))
	if err != nil {
		return err
	}
	db, err := b.Open(context.Background(), name)
	if err != nil {
		return err
	}
	log := eventstore.New(db, master, eventstore.Options{})
	var mu sync.Mutex
	failed := make(chan error)
	for range 16 {
		go func() {
			for {
				user := newID()
				a := registration(user, user.String()+"@example.org")
				for n := range rand.IntN(4) {
					a.Events = append(a.Events, fact(n))
				}
				a.Events[0].Data = fmt.Appendf(nil, `{"events": %d}`, len(a.Events))
				r, err := log.Append(context.Background(), a)
				if err != nil {
					failed <- err
					return
				}
				mu.Lock()
				err = json.NewEncoder(os.Stdout).Encode(killed{user, r.Position, len(a.Events)})
				mu.Unlock()
				if err != nil {
					failed <- err
					return
				}
			}
		}()
	}
	return <-failed
}

// A process killed in the midst of its appends leaves whole ones, without gaps, and all those that were answered.
func testKilled(t *testing.T, b Backend) {
	master, text := eventstore.NewMasterKey()
	d := deployment{b, b.Fresh(t), master}
	log := d.process(t)
	for range dose(6) {
		var answered [2][]killed
		var group sync.WaitGroup
		for i := range answered {
			group.Go(func() { answered[i] = d.killWriter(t, text) })
		}
		group.Wait()
		at := map[int64]eventstore.Event{}
		rest := map[uuid.UUID]int{} // events that are still to come of an append
		for _, e := range readAll(t, log.Log) {
			at[e.Position] = e
			if e.Version > 1 {
				rest[e.Stream.ID]--
				continue
			}
			var first struct{ Events int }
			if err := e.Decode(&first, nil); err != nil {
				t.Fatal(err)
			}
			rest[e.Stream.ID] = first.Events - 1
		}
		for stream, n := range rest {
			if n != 0 {
				t.Errorf("%d events of an append to %s are missing", n, stream)
			}
		}
		for _, a := range append(answered[0], answered[1]...) {
			for i := range a.Events {
				e := at[a.Position-int64(a.Events)+int64(i)+1]
				if e.Stream.ID != a.Stream || e.Version != i+1 {
					t.Errorf("answered at %d, and there is %+v", a.Position, e)
				}
			}
		}
		if len(answered[0])+len(answered[1]) == 0 {
			t.Error("no append was answered")
		}
		for _, table := range []string{"streams", "reservations", "user_keys", "credentials"} {
			wantRows(t, log.db, 0, "SELECT (SELECT count(*) FROM events WHERE version = 1) - (SELECT count(*) FROM "+table+")")
		}
	}
}

// killWriter starts a writer, kills it a moment after its first answer, and tells what it was answered.
func (d deployment) killWriter(t *testing.T, master string) (answered []killed) {
	binary, err := os.Executable()
	if err != nil {
		t.Error(err)
		return nil
	}
	cmd := exec.CommandContext(t.Context(), binary)
	cmd.Env = append(os.Environ(), writerDatabase+"="+d.name, writerMaster+"="+master)
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Error(err)
		return nil
	}
	defer cmd.Wait() // it was killed: its error says that
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var a killed
		if json.Unmarshal(lines.Bytes(), &a) != nil {
			break // cut off by the kill
		}
		if answered = append(answered, a); len(answered) == 1 {
			time.AfterFunc(rand.N(120*time.Millisecond), func() { cmd.Process.Kill() })
		}
	}
	if len(answered) == 0 {
		t.Errorf("the writer did not write: %s", complaint.String())
	}
	return answered
}
