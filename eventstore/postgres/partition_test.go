package postgres_test

import (
	"testing"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"usher.example/eventstore"
	"usher.example/eventstore/postgres"
)

// shrinkPartitions removes the empty partitions that the migration made, so that their end is near.
func shrinkPartitions(t *testing.T, s *postgres.Store) {
	t.Helper()
	for _, statement := range []string{
		"DROP TABLE events_000010000001", "DROP TABLE events_000000000001",
	} {
		if _, err := s.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
}

// Partitions are made ahead of need, by whoever comes near the end, and appends go across the boundary.
func TestPartitionsAhead(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	dsn := migrated(t)
	shrinkPartitions(t, open(t, dsn, postgres.Options{}))
	const size, events = 20, 500
	var group errgroup.Group
	for range 2 {
		log := newLog(open(t, dsn, postgres.Options{PartitionSize: size}))
		for range 4 {
			group.Go(func() error {
				stream := uuid.New() // across many partitions
				for range events / 8 {
					if _, err := log.Append(ctx, fact(stream)); err != nil {
						return err
					}
				}
				return nil
			})
		}
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	s := open(t, dsn, postgres.Options{PartitionSize: size})
	log := newLog(s)
	head, err := s.Head(ctx)
	if err != nil {
		t.Fatal(err)
	}
	all, err := log.ReadAll(ctx, 0, 1000)
	if err != nil || int64(len(all)) != head || head != events/8*8 {
		t.Fatalf("%d events read, %v, head %d, want %d", len(all), err, head, events/8*8)
	}
	stream, err := log.ReadStream(ctx, all[0].Stream.ID, 0, 1000)
	if err != nil || len(stream) != events/8 {
		t.Errorf("%d events in the stream, %v, want %d", len(stream), err, events/8)
	}
	var partitions, last int64
	if err := s.QueryRow(ctx, "SELECT count(*), last_partitioned() FROM pg_inherits WHERE inhparent = 'events'::regclass").Scan(&partitions, &last); err != nil {
		t.Fatal(err)
	}
	if partitions < events/size || last <= head {
		t.Errorf("%d partitions up to %d for a head of %d", partitions, last, head)
	}
}

// An append that is larger than what is left gets one more.
func TestPartitionsForOneAppend(t *testing.T) {
	t.Parallel()
	dsn := migrated(t)
	shrinkPartitions(t, open(t, dsn, postgres.Options{}))
	s := open(t, dsn, postgres.Options{PartitionSize: 10})
	a := fact(uuid.New())
	a.Events = make([]eventstore.NewEvent, 15)
	for i := range a.Events {
		a.Events[i].Type = "thing.happened"
	}
	r, err := newLog(s).Append(t.Context(), a)
	if err != nil || r.Position != 15 {
		t.Errorf("Append = %+v, %v, want position 15", r, err)
	}
}

// After a restore there may be fewer partitions than a process has seen. It makes those that the log needs where it is now.
func TestPartitionsOfAnEarlierCopy(t *testing.T) {
	t.Parallel()
	dsn := migrated(t)
	owner := open(t, dsn, postgres.Options{})
	if _, err := owner.Exec(t.Context(), "SELECT ensure_partitions(50000000)"); err != nil {
		t.Fatal(err)
	}
	s := open(t, dsn, postgres.Options{})
	shrinkPartitions(t, owner)
	for _, statement := range []string{"DROP TABLE events_000020000001", "DROP TABLE events_000030000001", "DROP TABLE events_000040000001"} {
		if _, err := owner.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := newLog(s).Append(t.Context(), fact(uuid.New())); err != nil || r.Position != 1 {
		t.Errorf("Append = %+v, %v, want position 1", r, err)
	}
	var last int64
	if err := owner.QueryRow(t.Context(), "SELECT last_partitioned()").Scan(&last); err != nil || last != 20_000_000 {
		t.Errorf("there are partitions up to %d, %v, want 20000000", last, err)
	}
}
