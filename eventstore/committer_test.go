package eventstore_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"usher.example/eventstore"
)

// watched is a store that shows the batches that are committed, and may hold or fail them.
type watched struct {
	eventstore.Store
	before func(batch []*eventstore.Prepared) error
}

func (w watched) Commit(ctx context.Context, batch []*eventstore.Prepared) ([]eventstore.Outcome, error) {
	if err := w.before(batch); err != nil {
		return nil, err
	}
	return w.Store.Commit(ctx, batch)
}

// behind runs appends in their order behind one that is on its way until all of them wait, and answers with the batches
// of correlation names in which they were committed, and with their errors.
func behind(t *testing.T, appends []eventstore.Append, fail func(batch []string) error) (batches [][]string, errs []error) {
	t.Helper()
	arrived, pass := make(chan struct{}, 1), make(chan struct{})
	log, _ := setup(t, eventstore.Options{}, func(s eventstore.Store) eventstore.Store {
		return watched{s, func(batch []*eventstore.Prepared) error {
			if batch[0].Metadata.Actor == "first" {
				arrived <- struct{}{}
				<-pass
				return nil
			}
			var names []string
			for _, p := range batch {
				names = append(names, p.Metadata.Actor)
			}
			batches = append(batches, names)
			if fail != nil {
				return fail(names)
			}
			return nil
		}}
	})
	var group sync.WaitGroup
	errs = make([]error, len(appends))
	first := fact(newID())
	first.Metadata.Actor = "first"
	group.Go(func() {
		if _, err := log.Append(t.Context(), first); err != nil {
			t.Error(err)
		}
	})
	<-arrived
	tick := time.NewTicker(100 * time.Microsecond)
	defer tick.Stop()
	for i, a := range appends {
		group.Go(func() { _, errs[i] = log.Append(t.Context(), a) })
		for log.Waiting() <= i {
			select {
			case <-tick.C:
			case <-t.Context().Done():
				t.Fatal("an append does not wait")
			}
		}
	}
	close(pass)
	group.Wait()
	if err := log.Close(t.Context()); err != nil {
		t.Error(err)
	}
	return batches, errs
}

// What waits goes in the order of arrival, with one append to a stream, for a value and for a command in each batch.
func TestBatches(t *testing.T) {
	t.Parallel()
	named := func(name string, stream, command uuid.UUID, reserve, release string) eventstore.Append {
		a := fact(stream)
		a.Metadata.Actor, a.CommandID = name, command
		if reserve != "" {
			a.Reserve = []eventstore.Reservation{{Scope: "email", Value: reserve}}
		}
		if release != "" {
			a.Release = []eventstore.Reservation{{Scope: "email", Value: release}}
		}
		return a
	}
	ada, bob, command := newID(), newID(), newID()
	batches, errs := behind(t, []eventstore.Append{
		named("ada 1", ada, uuid.Nil, "a@example.org", ""),
		named("bob 1", bob, command, "", ""),
		named("ada 2", ada, uuid.Nil, "", "a@example.org"), // after ada 1
		named("a third", newID(), uuid.Nil, "", "b@example.org"),
		named("same value", newID(), uuid.Nil, "a@example.org", ""), // after ada 1, and then after ada 2
		named("released value", newID(), uuid.Nil, "b@example.org", ""),
		named("same command", newID(), command, "", ""),
		named("ada 3", ada, uuid.Nil, "", ""),
		named("a fourth", newID(), uuid.Nil, "", ""),
	}, nil)
	want := [][]string{
		{"ada 1", "bob 1", "a third", "a fourth"},
		{"ada 2", "released value", "same command"},
		{"same value", "ada 3"},
	}
	if diff := cmp.Diff(want, batches); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
}

// A batch is bounded by what is in it, and who does not fit into one lets nobody pass.
func TestBatchesOfLargeAppends(t *testing.T) {
	t.Parallel()
	const most = 4 << 20 / eventstore.MaxEventBytes
	appends := make([]eventstore.Append, 2*most)
	for i := range appends {
		appends[i] = fact(newID())
		if i != 2*most-2 {
			appends[i] = large(newID())
		}
	}
	batches, errs := behind(t, appends, nil)
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
	var sizes []int
	for _, b := range batches {
		sizes = append(sizes, len(b))
	}
	if diff := cmp.Diff([]int{most, most}, sizes); diff != "" {
		t.Errorf("appends in each batch (-want +got)\n%s", diff)
	}
}

// What waits for another append to its stream is not in the batch, and keeps nobody else from it.
func TestLargeAppendsToOneStream(t *testing.T) {
	t.Parallel()
	const most = 4 << 20 / eventstore.MaxEventBytes
	stream := newID()
	var appends []eventstore.Append
	for range most + 1 {
		appends = append(appends, large(stream))
	}
	appends = append(appends, fact(newID()))
	batches, errs := behind(t, appends, nil)
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
	if len(batches) != most+1 || len(batches[0]) != 2 {
		t.Errorf("%d batches, %d appends in the first, want %d and 2", len(batches), len(batches[0]), most+1)
	}
}

// large is a fact about as large as one may be.
func large(stream uuid.UUID) eventstore.Append {
	a := fact(stream)
	a.Events[0].Data = json.RawMessage(`"` + strings.Repeat("d", eventstore.MaxEventBytes-1024) + `"`)
	return a
}

// An error that blames an append halves the batch; one that says that the database is gone, or that nobody knows, is
// everybody's, and nothing is sent again.
func TestFailedBatch(t *testing.T) {
	t.Parallel()
	blamed := errors.New("blamed")
	for _, c := range []struct {
		fault   error
		batches int
		failed  int
	}{
		{blamed, 7, 1}, // 8, 4 and 4, 2 and 2, 1 and 1
		{fmt.Errorf("gone: %w", eventstore.ErrUnavailable), 1, 8},
		{fmt.Errorf("gone: %w", eventstore.ErrOutcomeUnknown), 1, 8},
	} {
		t.Run(c.fault.Error(), func(t *testing.T) {
			t.Parallel()
			var appends []eventstore.Append
			for i := range 8 {
				a := fact(newID())
				a.Metadata.Actor = fmt.Sprint("caller ", i)
				appends = append(appends, a)
			}
			batches, errs := behind(t, appends, func(batch []string) error {
				for _, name := range batch {
					if name == "caller 5" {
						return c.fault
					}
				}
				return nil
			})
			failed := 0
			for i, err := range errs {
				if err != nil {
					failed++
					if !errors.Is(err, c.fault) {
						t.Errorf("caller %d: %v, want %v", i, err, c.fault)
					}
				}
			}
			if len(batches) != c.batches || failed != c.failed || errs[5] == nil {
				t.Errorf("%d batches, %d failed, want %d, %d: %v", len(batches), failed, c.batches, c.failed, batches)
			}
		})
	}
}

// A lone append is one commit of one append, at once.
func TestLoneAppend(t *testing.T) {
	t.Parallel()
	var stats []eventstore.CommitStats
	log, _ := setup(t, eventstore.Options{OnCommit: func(s eventstore.CommitStats) {
		if s.Duration <= 0 {
			t.Errorf("took %v", s.Duration)
		}
		s.Duration = 0
		stats = append(stats, s)
	}}, nil)
	stream := newID()
	a := fact(stream)
	a.CommandID = newID()
	a.Events = append(a.Events, a.Events[0])
	conflict := fact(stream)
	conflict.Expected = 9
	for _, a := range []eventstore.Append{a, a, conflict, fact(stream)} {
		if _, err := log.Append(t.Context(), a); err != nil && !errors.Is(err, eventstore.ErrWrongExpectedVersion) {
			t.Fatal(err)
		}
	}
	want := []eventstore.CommitStats{{Appends: 1, Events: 2, Head: 2}, {Appends: 1}, {Appends: 1}, {Appends: 1, Events: 1, Head: 3}}
	if diff := cmp.Diff(want, stats); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestWatch(t *testing.T) {
	t.Parallel()
	log, _ := setup(t, eventstore.Options{}, nil)
	first, stopFirst := log.Watch()
	second, stopSecond := log.Watch()
	defer stopSecond()
	signalled := func(ch <-chan struct{}) bool {
		select {
		case <-ch:
			return true
		default:
			return false
		}
	}
	for range 3 { // several commits share a signal
		if _, err := log.Append(t.Context(), fact(newID())); err != nil {
			t.Fatal(err)
		}
	}
	if !signalled(first) || signalled(first) || !signalled(second) {
		t.Error("want one signal for each watcher")
	}
	stopFirst()
	if _, err := log.Append(t.Context(), fact(newID())); err != nil {
		t.Fatal(err)
	}
	if signalled(first) || !signalled(second) {
		t.Error("want a signal for the one that still watches")
	}
}
