package eventstore_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"usher.example/eventstore"
)

func TestHold(t *testing.T) {
	t.Parallel()
	_, db := setup(t, eventstore.Options{}, nil)
	lease := func(holder string) *eventstore.Lease {
		return &eventstore.Lease{DB: db, Name: "work", Holder: holder, TTL: 2 * time.Second}
	}
	// Two take turns: no two work at a time, and what one leaves the other takes up at once.
	var working atomic.Int32
	stop := errors.New("enough")
	done := make(chan error, 2)
	for _, holder := range []string{"ada", "bob"} {
		go func() {
			for range 5 {
				err := lease(holder).Hold(t.Context(), func(context.Context) error {
					if working.Add(1) != 1 {
						t.Error("both work")
					}
					working.Add(-1)
					return stop
				})
				if !errors.Is(err, stop) {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}

	// It is renewed for as long as the work takes.
	until := func() (at time.Time) {
		if err := db.QueryRow(t.Context(), "SELECT expires_at FROM leases").Scan(&at); err != nil {
			t.Fatal(err)
		}
		return at
	}
	begun := make(chan struct{})
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		done <- lease("ada").Hold(ctx, func(ctx context.Context) error {
			close(begun)
			<-ctx.Done()
			return context.Cause(ctx)
		})
	}()
	<-begun
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	begin := time.Now()
	for first := until(); !until().After(first.Add(time.Second)); <-tick.C {
		if len(done) > 0 || time.Since(begin) > 20*time.Second {
			t.Fatal("the lease is not renewed while its holder works")
		}
	}
	cancel(stop)
	if err := <-done; !errors.Is(err, stop) {
		t.Errorf("Hold() = %v, want %v", err, stop)
	}

	// Whoever loses it is told.
	err := lease("ada").Hold(t.Context(), func(ctx context.Context) error {
		if _, err := db.Exec(ctx, "UPDATE leases SET holder = 'bob', epoch = epoch + 1"); err != nil {
			return err
		}
		<-ctx.Done()
		return context.Cause(ctx)
	})
	if !errors.Is(err, eventstore.ErrLeaseLost) {
		t.Errorf("Hold() of a lease that was lost = %v, want %v", err, eventstore.ErrLeaseLost)
	}
}
