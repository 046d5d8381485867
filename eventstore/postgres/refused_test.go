package postgres_test

import (
	"errors"
	"testing"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"usher.example/eventstore"
	"usher.example/eventstore/postgres"
)

// What jsonb does not take, though it is JSON, fails the append that brings it and no other that waits beside it.
func TestRefusedByJSONB(t *testing.T) {
	t.Parallel()
	log := newLog(open(t, migrated(t), postgres.Options{}))
	refused := []string{`{"a": "\u0000"}`, `{"a": "\ud800"}`, "{\"a\": \"\xff\"}", "{\"a\": \"\x00\"}"}
	var group errgroup.Group
	const rounds = 20
	for range rounds {
		for _, data := range refused {
			group.Go(func() error {
				a := fact(uuid.New())
				a.Events[0].Data = []byte(data)
				_, err := log.Append(t.Context(), a)
				if err == nil || errors.Is(err, eventstore.ErrUnavailable) || errors.Is(err, eventstore.ErrOutcomeUnknown) {
					t.Errorf("%q: %v, want an error that blames the append", data, err)
				}
				return nil
			})
		}
		group.Go(func() error {
			_, err := log.Append(t.Context(), fact(uuid.New()))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
	if head, err := log.Head(t.Context()); head != rounds || err != nil {
		t.Errorf("Head = %d, %v, want %d", head, err, rounds)
	}
}
