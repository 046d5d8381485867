package projections_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"usher.example/eventstore"
	"usher.example/identity"
	"usher.example/projections"
)

// slow is held up until it is let go: a rebuild that can be looked at, or stopped, in the middle.
type slow struct {
	projections.UserProjection
	begun   chan struct{} // closed once something was applied to a generation that is loaded
	through chan struct{} // let go by closing
}

func (p *slow) Changes(g projections.Generation) projections.Changes {
	return p.guard(g, p.UserProjection.Changes(g))
}

func (p *slow) guard(g projections.Generation, c projections.Changes) projections.Changes {
	return guarded{c, func(ctx context.Context, db eventstore.DB, events []eventstore.Event) error {
		if !g.Loading || events[len(events)-1].Position <= 100 {
			return nil
		}
		select {
		case <-p.begun:
		default:
			close(p.begun)
		}
		if db.Dialect() == eventstore.SQLite { // where everybody would wait
			return nil
		}
		select {
		case <-p.through:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}}
}

func TestCancelLeavesNothing(t *testing.T) {
	t.Parallel()
	for name, cancel := range map[string]func(t *testing.T, s *stack, interrupt func()){
		"interrupted": func(_ *testing.T, _ *stack, interrupt func()) { interrupt() },
		"cancelled elsewhere": func(t *testing.T, s *stack, _ func()) {
			if err := s.operator().Cancel(t.Context(), "users"); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachStore(t, func(t *testing.T, s *stack) {
				start(t, s.runner())
				s.churn(t, 300)
				s.await(t)
				p := &slow{begun: make(chan struct{}), through: make(chan struct{})}
				o := s.operator(p)
				o.BatchSize = 1
				ctx, interrupt := context.WithCancel(t.Context())
				defer interrupt()
				done := make(chan error, 1)
				go func() {
					_, err := o.Rebuild(ctx, "users", quiet)
					done <- err
				}()
				<-p.begun
				cancelled := make(chan struct{})
				go func() { // which waits for the batch at hand
					defer close(cancelled)
					cancel(t, s, interrupt)
				}()
				close(p.through)
				<-cancelled
				if err := <-done; !errors.Is(err, context.Canceled) && !errors.Is(err, projections.ErrCancelled) {
					t.Errorf("Rebuild() = %v, want it cancelled", err)
				}
				if diff := cmp.Diff([]string{"users_1"}, s.tables(t)); diff != "" {
					t.Errorf("tables (-want +got):\n%s", diff)
				}
				if st := s.status(t); st.Rebuild != nil || st.Generation != 1 {
					t.Errorf("status = %+v, want nothing left", st)
				}
				if err := s.operator().Cancel(t.Context(), "users"); !errors.Is(err, projections.ErrNoRebuild) {
					t.Errorf("Cancel() = %v, want %v", err, projections.ErrNoRebuild)
				}
				s.churn(t, 20)
				s.await(t)
				s.exact(t)
			})
		})
	}
}

// indexing is the projection of users, which tells when indexes are about to be made.
type indexing struct {
	projections.UserProjection
	about func(generation int)
}

func (p indexing) Tables(d eventstore.Dialect, generation int) []projections.Table {
	p.about(generation)
	return p.UserProjection.Tables(d, generation)
}

// A rebuild that is cancelled while it makes indexes, for which nothing guards the tables, has not failed: and another that
// is asked for since has nothing to do with it.
func TestCancelWhileIndexing(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		stop := start(t, s.runner())
		s.churn(t, 30)
		s.await(t)
		stop()
		var once sync.Once
		p := indexing{about: func(generation int) {
			if generation != 2 || s.status(t).Rebuild == nil || s.status(t).Rebuild.State != projections.RebuildIndexing {
				return
			}
			once.Do(func() {
				o := s.operator()
				if err := errors.Join(o.Cancel(t.Context(), "users"), o.Request(t.Context(), "users", identity.ActorOperator)); err != nil {
					t.Error(err)
				}
			})
		}}
		if _, err := s.operator(p).Rebuild(t.Context(), "users", quiet); !errors.Is(err, projections.ErrCancelled) {
			t.Errorf("Rebuild() = %v, want %v", err, projections.ErrCancelled)
		}
		if r := s.status(t).Rebuild; r == nil || r.State != projections.RebuildRequested || r.Error != "" {
			t.Errorf("the rebuild that was asked for since is %+v, want it requested", r)
		}
	})
}
