package projections_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"usher.example/eventstore"
	"usher.example/identity"
	"usher.example/internal/devstack"
	"usher.example/projections"
)

// thisVersion is that of the projection of users, and nextVersion that of louder.
var (
	thisVersion = projections.UserProjection{}.CodeVersion()
	nextVersion = louder{}.CodeVersion()
)

// louder is the next version of the projection of users: it has another column.
type louder struct{ projections.UserProjection }

func (louder) CodeVersion() int { return projections.UserProjection{}.CodeVersion() + 1 }

func (p louder) Tables(d eventstore.Dialect, generation int) []projections.Table {
	tables := p.UserProjection.Tables(d, generation)
	tables[0].Create = strings.Replace(tables[0].Create, "(", "(shouted text, ", 1)
	tables[0].Columns = append(tables[0].Columns, projections.Column{Name: "shouted", Type: "text", Null: true})
	return tables
}

func (p louder) Changes(g projections.Generation) projections.Changes {
	return louderChanges{p.UserProjection.Changes(g), g.Table("users")}
}

type louderChanges struct {
	projections.Changes
	table string
}

func (c louderChanges) Write(ctx context.Context, tx eventstore.DB) error {
	if err := c.Changes.Write(ctx, tx); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, "UPDATE "+c.table+" SET shouted = upper(name) WHERE shouted IS NULL OR shouted <> upper(name)")
	return err
}

// shouted counts the users whom a query of the next version's code finds.
func (s *stack) shouted(t *testing.T) (n int, err error) {
	t.Helper()
	return n, s.db.QueryRow(t.Context(), "SELECT count(*) FROM users_live WHERE shouted = upper(name)").Scan(&n)
}

// A process of the next version finds the tables of the one before: it asks for a rebuild, which it does itself, and
// meanwhile the old tables are queried.
func TestNewCodeVersion(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		stop := start(t, s.runner())
		s.churn(t, 200)
		s.await(t)
		stop()
		s.churn(t, 50)
		old := s.status(t)
		if err := s.operator().Pause(t.Context(), "users"); err != nil {
			t.Fatal(err)
		}
		p := &slowLouder{slow: slow{begun: make(chan struct{}), through: make(chan struct{})}}
		r := s.runner()
		r.Projection, r.BatchSize = p, 50
		stop = start(t, r)
		if s.db.Dialect() == eventstore.Postgres {
			<-p.slow.begun
			if diff := s.diff(t, old.Position); diff != "" {
				t.Errorf("while it is rebuilt (-log +read model):\n%s", diff)
			}
			if st := s.status(t); st.Generation != 1 || st.CodeVersion != thisVersion || st.Rebuild == nil || st.Rebuild.State != projections.RebuildLoading {
				t.Errorf("status = %+v, want generation 1 and a rebuild that loads", st)
			}
			if _, err := s.shouted(t); err == nil {
				t.Error("the live generation has the next version's column already")
			}
		}
		close(p.slow.through)
		devstack.Eventually(t, "the rebuild is done", func() bool { return s.status(t).Generation == 2 })
		if err := s.operator(p).Resume(t.Context(), "users"); err != nil {
			t.Fatal(err)
		}
		s.await(t)
		s.exact(t)
		all := len(s.all(t))
		if n, err := s.shouted(t); err != nil || n != all {
			t.Errorf("%d users are shouted, %v, want all %d", n, err, all)
		}
		st := s.status(t)
		if st.CodeVersion != nextVersion || st.Standby == nil || st.Standby.CodeVersion != thisVersion || st.Standby.Position != old.Position {
			t.Errorf("status = %+v, standby = %+v, want version 2, and version 1 where it was left", st, st.Standby)
		}
		s.notLogged(t, "level=ERROR") // to differ is to be expected
		stop()

		// The way back is for the code that filled the standby: it brings it up before it goes live.
		if _, err := s.operator(p).Rollback(t.Context(), "users", identity.ActorOperator); !errors.Is(err, projections.ErrOtherVersion) {
			t.Errorf("Rollback() by version 2 = %v, want %v", err, projections.ErrOtherVersion)
		}
		if _, err := s.operator().Rollback(t.Context(), "users", identity.ActorOperator); err != nil {
			t.Fatal(err)
		}
		s.exact(t)
		s.churn(t, 50)
		start(t, s.runner())
		s.await(t)
		s.exact(t)
		if st := s.status(t); st.CodeVersion != thisVersion || st.Generation != 1 || st.Rebuild != nil {
			t.Errorf("status = %+v, want this version, of generation 1", st)
		}
	})
}

// slowLouder is the next version, held up.
type slowLouder struct {
	louder
	slow slow
}

func (p *slowLouder) Changes(g projections.Generation) projections.Changes {
	return p.slow.guard(g, p.louder.Changes(g))
}

// Processes of two versions run beside each other while a new release is rolled out. The old one keeps its tables up to
// date until the exchange, and then stands by; the new one takes over.
func TestRollingUpgrade(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		start(t, s.runner())
		s.churn(t, 200)
		s.await(t)
		next := s.runner()
		next.Projection = louder{}
		start(t, next)
		for range 10 {
			s.churn(t, 10)
			s.await(t)
			s.exact(t)
		}
		devstack.Eventually(t, "the exchange", func() bool { return s.status(t).CodeVersion == nextVersion })
		s.churn(t, 50)
		s.await(t)
		s.exact(t)
		s.awaitState(t, projections.StateRunning)
		if n, err := s.shouted(t); err != nil || n != len(s.all(t)) {
			t.Errorf("%d users are shouted, %v, want all", n, err)
		}
		// The old one's process asks for nothing back.
		if st := s.status(t); st.Generation != 2 || st.Rebuild != nil {
			t.Errorf("status = %+v, want generation 2 and no rebuild", st)
		}
	})
}

// Where only the older version runs, the list says why the read model stands still.
func TestOutdated(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		r := s.runner()
		r.Projection = louder{}
		stop := start(t, r)
		s.churn(t, 30)
		s.await(t)
		stop()
		at := s.status(t).Position
		s.churn(t, 30)
		start(t, s.runner())
		s.awaitState(t, projections.StateOutdated)
		says := fmt.Sprintf("version %d of the code filled it, and only version %d runs", nextVersion, thisVersion)
		if st := s.status(t); !strings.Contains(st.Error, says) || st.Rebuild != nil || st.Position != at {
			t.Errorf("status = %+v, want an explanation, and nothing done", st)
		}
		s.rebuild(t) // as an operator may decide
		s.await(t)
		s.exact(t)
		s.awaitState(t, projections.StateRunning)
		if st := s.status(t); st.Error != "" || st.CodeVersion != thisVersion {
			t.Errorf("status = %+v, want this version and no error", st)
		}
	})
}

// Queries that need what the live generation lacks say so; all others are answered.
func TestQueriesOfAnotherVersion(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		ids, q := seeded(t, s)
		for _, statement := range []string{
			"UPDATE projections SET code_version = 7",
			"DROP VIEW users_live",
			"CREATE VIEW users_live AS SELECT id, email, email_key, name FROM users_1",
		} {
			if _, err := s.db.Exec(t.Context(), statement); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := q.List(t.Context(), projections.UserFilter{}); !errors.Is(err, projections.ErrOtherVersion) {
			t.Errorf("List() = %v, want %v", err, projections.ErrOtherVersion)
		}
		if _, err := q.Get(t.Context(), ids[0]); !errors.Is(err, projections.ErrOtherVersion) {
			t.Errorf("Get() = %v, want %v", err, projections.ErrOtherVersion)
		}
	})
}

// A rebuild of one version takes the place of one by another that nobody finishes.
func TestRebuildOfAnotherVersion(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		stop := start(t, s.runner())
		s.churn(t, 100)
		s.await(t)
		stop()
		if err := s.operator().Request(t.Context(), "users", identity.ActorOperator); err != nil {
			t.Fatal(err)
		}
		r := s.runner()
		r.Projection = louder{}
		start(t, r)
		devstack.Eventually(t, "the exchange", func() bool { return s.status(t).CodeVersion == nextVersion })
		s.await(t)
		s.exact(t)
		if diff := cmp.Diff([]string{"users_1", "users_3"}, s.tables(t)); diff != "" {
			t.Errorf("tables (-want +got):\n%s", diff)
		}
	})
}

// What an older version of the code left undone is recorded by whoever runs next.
func TestRecordedByAnotherProcess(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		stop := start(t, s.runner())
		s.churn(t, 50)
		s.await(t)
		stop()
		o := s.operator()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		o.Log = mute{o.Log, cancel}
		if _, err := o.Rebuild(ctx, "users", quiet); err == nil {
			t.Error("Rebuild() = nil without its record")
		}
		if n := len(recorded[identity.ProjectionRebuilt](t, s)); n != 0 {
			t.Errorf("%d rebuilds are recorded: this tried nothing", n)
		}
		start(t, s.runner())
		devstack.Eventually(t, "it is recorded", func() bool { return len(recorded[identity.ProjectionRebuilt](t, s)) == 1 })
		s.await(t)
		s.exact(t)
	})
}

// mute is a log that can't be appended to.
type mute struct {
	projections.Log
	tried func()
}

func (m mute) Append(context.Context, eventstore.Append) (eventstore.Result, error) {
	m.tried()
	return eventstore.Result{}, eventstore.ErrUnavailable
}
