package projections_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity"
	"usher.example/internal/devstack"
	"usher.example/projections"
)

func quiet(projections.Rebuild) {}

// rebuild rebuilds the projection of users, which has to succeed.
func (s *stack) rebuild(t *testing.T, ps ...projections.Projection) projections.Rebuilt {
	t.Helper()
	out, err := s.operator(ps...).Rebuild(t.Context(), "users", quiet)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// recorded are the events of a type, read as what they carry.
func recorded[T identity.Payload](t *testing.T, s *stack) (list []T) {
	t.Helper()
	events, err := s.log.ReadAll(t.Context(), 0, 1_000_000)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		var p T
		if e.Type != p.EventType() {
			continue
		}
		if p, err = identity.Decode[T](e); err != nil {
			t.Fatal(err)
		}
		if e.Stream != eventstore.SystemStream("projection/users") {
			t.Errorf("%s is in the stream %v", e.Type, e.Stream)
		}
		list = append(list, p)
	}
	return list
}

// same fails unless two tables have the same rows.
func (s *stack) same(t *testing.T, one, other string) {
	t.Helper()
	if diff := cmp.Diff(s.table(t, one), s.table(t, other)); diff != "" {
		t.Errorf("%s and %s differ (-first +second):\n%s", one, other, diff)
	}
}

// tables are those of the users' generations that there are.
func (s *stack) tables(t *testing.T) (names []string) {
	t.Helper()
	query := "SELECT tablename::text FROM pg_tables WHERE schemaname = 'readmodels' AND tablename LIKE 'users\\_%' ORDER BY 1"
	if s.db.Dialect() == eventstore.SQLite {
		query = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE 'users\\_%' ESCAPE '\\' ORDER BY 1"
	}
	rows, err := s.db.Query(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	return names
}

func TestRebuildAndRollback(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		start(t, s.runner())
		s.churn(t, 350)
		s.await(t)
		out := s.rebuild(t)
		if out.Generation != 2 || len(out.Differences) != 0 || out.Position < 350 || out.Took <= 0 {
			t.Errorf("Rebuild() = %+v, want generation 2 and no differences", out)
		}
		s.exact(t)
		want := []identity.ProjectionRebuilt{{Name: "users", Generation: 2, CodeVersion: thisVersion, Position: out.Position, Events: out.Position,
			Differences: []identity.ProjectionDifference{}, Duration: out.Took.Round(time.Millisecond).Seconds()}}
		if diff := cmp.Diff(want, recorded[identity.ProjectionRebuilt](t, s)); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}

		// The former generation stays current beside the new one, and is the way back.
		s.churn(t, 100)
		s.await(t)
		s.exact(t)
		devstack.Eventually(t, "the standby is current", func() bool {
			st := s.status(t)
			return st.Standby != nil && st.Standby.Generation == 1 && st.Standby.Position == st.Position && st.Rebuild == nil
		})
		s.same(t, "users_1", "users_2")
		s.churn(t, 50)
		if n, err := s.operator().Rollback(t.Context(), "users", identity.ActorOperator); n != 1 || err != nil {
			t.Fatalf("Rollback() = %d, %v, want generation 1", n, err)
		}
		s.churn(t, 50)
		s.await(t)
		s.exact(t)
		if st := s.status(t); st.Generation != 1 || st.Standby == nil || st.Standby.Generation != 2 {
			t.Errorf("status = %+v, want generation 1 with 2 as the standby", st)
		}
		if back := recorded[identity.ProjectionRolledBack](t, s); len(back) != 1 || back[0].Generation != 1 || back[0].CodeVersion != thisVersion {
			t.Errorf("events = %+v, want one of generation 1", back)
		}

		// A rebuild replaces the standby; dropped, it is gone and there is no way back.
		s.rebuild(t)
		if diff := cmp.Diff([]string{"users_1", "users_3"}, s.tables(t)); diff != "" {
			t.Errorf("tables (-want +got):\n%s", diff)
		}
		if err := s.operator().DropStandby(t.Context(), "users"); err != nil {
			t.Fatal(err)
		}
		if _, err := s.operator().Rollback(t.Context(), "users", identity.ActorOperator); !errors.Is(err, projections.ErrNoStandby) {
			t.Errorf("Rollback() = %v, want %v", err, projections.ErrNoStandby)
		}
		if err := s.operator().DropStandby(t.Context(), "users"); !errors.Is(err, projections.ErrNoStandby) {
			t.Errorf("DropStandby() = %v, want %v", err, projections.ErrNoStandby)
		}
		if diff := cmp.Diff([]string{"users_3"}, s.tables(t)); diff != "" {
			t.Errorf("tables (-want +got):\n%s", diff)
		}
		s.await(t)
		s.exact(t)
		s.notLogged(t, "level=ERROR")
	})
}

func TestOldGenerations(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		start(t, s.runner())
		s.churn(t, 30)
		s.await(t)
		s.rebuild(t)
		o := s.operator()
		if n, err := o.DropOld(t.Context(), time.Now().Add(-time.Hour)); n != 0 || err != nil {
			t.Errorf("DropOld() of an hour ago = %d, %v, want none", n, err)
		}
		if n, err := o.DropOld(t.Context(), time.Now().Add(time.Hour)); n != 1 || err != nil {
			t.Errorf("DropOld() = %d, %v, want the standby", n, err)
		}
		if diff := cmp.Diff([]string{"users_2"}, s.tables(t)); diff != "" {
			t.Errorf("tables (-want +got):\n%s", diff)
		}
		s.churn(t, 30)
		s.await(t)
		s.exact(t)
	})
}

// A worker does what was requested, and the list shows how far it is.
func TestRequestedRebuild(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		o := s.operator()
		for name, want := range map[string]error{"users": projections.ErrUnknownProjection, "orders": projections.ErrUnknownProjection} {
			if err := o.Request(t.Context(), name, identity.ActorOperator); !errors.Is(err, want) {
				t.Errorf("Request(%s) = %v, want %v", name, err, want)
			}
		}
		stop := start(t, s.runner())
		s.churn(t, 100)
		s.await(t)
		stop()
		for range 2 { // the second changes nothing
			if err := o.Request(t.Context(), "users", identity.ActorOperator); err != nil {
				t.Fatal(err)
			}
		}
		want := &projections.Rebuild{State: projections.RebuildRequested, Generation: 2, Target: s.status(t).Position}
		if diff := cmp.Diff(want, s.status(t).Rebuild); diff != "" {
			t.Errorf("rebuild (-want +got):\n%s", diff)
		}
		start(t, s.runner())
		devstack.Eventually(t, "the rebuild is done", func() bool { return s.status(t).Generation == 2 })
		s.await(t)
		s.exact(t)
		devstack.Eventually(t, "it is recorded", func() bool { return len(recorded[identity.ProjectionRebuilt](t, s)) == 1 })
	})
}

// What the live tables should not be is reported, and mended.
func TestRebuildMends(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		stop := start(t, s.runner())
		for range 40 {
			s.register(t)
		}
		s.await(t)
		stop()
		changed, gone, extra := s.users[3], s.users[7], uuid.Must(uuid.NewV7())
		for _, damage := range []struct {
			sql  string
			args []any
		}{
			{"UPDATE users_1 SET name = 'Mallory' WHERE id = $1", []any{changed}},
			{"DELETE FROM users_1 WHERE id = $1", []any{gone}},
			{"UPDATE users_1 SET id = $2 WHERE id = $1", []any{s.users[9], extra}},
		} {
			if n, err := s.db.Exec(t.Context(), damage.sql, damage.args...); n != 1 || err != nil {
				t.Fatal(n, err)
			}
		}
		out := s.rebuild(t)
		if len(out.Differences) != 1 {
			t.Fatalf("differences = %+v, want those of users", out.Differences)
		}
		d := out.Differences[0]
		slices.Sort(d.Examples)
		want := projections.Difference{Table: "users", LiveRows: 39, Rows: 40, Missing: 2, Extra: 1, Changed: 1,
			Examples: []string{"different " + changed.String(), "missing " + gone.String(), "missing " + s.users[9].String(), "too many " + extra.String()}}
		slices.Sort(want.Examples)
		if diff := cmp.Diff(want, d); diff != "" {
			t.Errorf("difference (-want +got):\n%s", diff)
		}
		if !s.output.Contains("level=ERROR") || !s.output.Contains("the live tables were not what the log amounts to") || !s.output.Contains(changed.String()) {
			t.Error("the log does not say so loudly")
		}
		e := recorded[identity.ProjectionRebuilt](t, s)
		if diff := cmp.Diff([]identity.ProjectionDifference{{Table: "users", Missing: 2, Extra: 1, Changed: 1}}, e[0].Differences); diff != "" {
			t.Errorf("recorded differences (-want +got):\n%s", diff)
		}
		s.exact(t)
	})
}

// An event that the code can't apply is parked by the worker, and stops a rebuild, which says what it is. Once an
// operator gave the event up, the rebuild goes on; once the code is mended, the next one has it.
func TestPoisonStopsARebuild(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		r, defect := s.runner(), &stubborn{poison: map[uuid.UUID]bool{}}
		r.Projection = defect
		sick, poison := s.register(t), renamed("Poison")
		s.users = nil
		poison.ID = uuid.Must(uuid.NewV7())
		defect.poison[poison.ID] = true
		s.churn(t, 150)
		s.append(t, sick, poison)
		s.churn(t, 150)
		s.append(t, sick, renamed("Behind it"))
		stop := start(t, r)
		s.await(t)
		stop()
		at := s.status(t).Parked[0].Position

		o := s.operator(defect)
		_, err := o.Rebuild(t.Context(), "users", quiet)
		var said *projections.PoisonError
		if !errors.As(err, &said) || said.Position != at || said.Subject != sick || said.Type != identity.TypeUserProfileUpdated ||
			!strings.Contains(err.Error(), fmt.Sprintf("user.profile_updated of %s at position %d can't be applied to users: can't do this one", sick, at)) {
			t.Fatalf("Rebuild() = %v, want the event at %d of %s", err, at, sick)
		}
		st := s.status(t)
		if st.Generation != 1 || st.Rebuild == nil || st.Rebuild.State != projections.RebuildFailed || st.Rebuild.Position != at-1 ||
			st.Rebuild.Error == "" {
			t.Errorf("status = %+v, rebuild = %+v, want it failed before %d", st, st.Rebuild, at)
		}
		if _, err := o.Rebuild(t.Context(), "users", quiet); !errors.As(err, &said) {
			t.Errorf("Rebuild() again = %v, want the same", err)
		}
		if n, err := o.Skip(t.Context(), "users", sick, at, eventstore.Metadata{Actor: identity.ActorOperator}); n.Applied != 1 || err != nil {
			t.Fatalf("Skip() = %+v, %v, want the event behind it applied", n, err)
		}
		out := s.rebuild(t, defect)
		if out.Generation != 2 || len(out.Differences) != 0 {
			t.Errorf("Rebuild() = %+v, want generation 2, without the event as the live one", out)
		}
		st = s.status(t)
		if st.SkipCount != 1 || len(st.Skipped) != 1 || st.Skipped[0].Position != at || st.Skipped[0].Subject != sick || st.ParkedCount != 0 {
			t.Errorf("status = %+v, want the skipped event", st)
		}
		want := []identity.ProjectionEventSkipped{{Name: "users", Position: at, Type: identity.TypeUserProfileUpdated, User: sick}}
		if diff := cmp.Diff(want, recorded[identity.ProjectionEventSkipped](t, s)); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}

		defect.mended.Store(true)
		s.rebuild(t, defect)
		if st := s.status(t); st.Generation != 3 || st.SkipCount != 0 {
			t.Errorf("status = %+v, want nothing missing", st)
		}
		start(t, s.runner())
		s.await(t)
		s.exact(t)
	})
}

// What is parked in the live generation is in the new one. The old one is no standby: it would lack that for ever.
func TestRebuildAppliesWhatIsParked(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		r, defect := s.runner(), &stubborn{poison: map[uuid.UUID]bool{}}
		r.Projection = defect
		poison := renamed("Poison")
		poison.ID = uuid.Must(uuid.NewV7())
		defect.poison[poison.ID] = true
		s.churn(t, 20)
		s.append(t, s.users[0], poison)
		s.churn(t, 20)
		start(t, r)
		s.await(t)
		defect.mended.Store(true)
		if out := s.rebuild(t, defect); len(out.Differences) != 1 || out.Differences[0].Changed != 1 {
			t.Errorf("Rebuild() = %+v, want the parked user to differ", out)
		}
		s.await(t)
		s.exact(t)
		if st := s.status(t); st.ParkedCount != 0 || st.Standby != nil {
			t.Errorf("status = %+v, want nothing parked and no standby", st)
		}
		if diff := cmp.Diff([]string{"users_2"}, s.tables(t)); diff != "" {
			t.Errorf("tables (-want +got):\n%s", diff)
		}
	})
}

// An event that can't be applied stops nothing once its user is erased.
func TestPoisonOfAnErasedUser(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		start(t, s.runner())
		s.churn(t, 20)
		sick := s.register(t)
		s.users = s.users[:len(s.users)-1]
		s.appendUnchecked(t, sick, eventstore.NewEvent{Type: identity.TypeUserRoleGranted, Data: []byte(`{"role":7}`)})
		s.append(t, sick, identity.NewEvent(identity.Erased{}))
		s.churn(t, 20)
		s.await(t)
		if out := s.rebuild(t); len(out.Differences) != 0 {
			t.Errorf("Rebuild() = %+v, want no differences", out)
		}
		if st := s.status(t); st.SkipCount != 0 || st.ParkedCount != 0 {
			t.Errorf("status = %+v, want nothing skipped or parked", st)
		}
		s.await(t)
		if _, err := (projections.Users{DB: s.db}).Get(t.Context(), sick); !errors.Is(err, projections.ErrNotFound) {
			t.Errorf("Get() = %v, want %v", err, projections.ErrNotFound)
		}
	})
}

func TestTwoRebuildsAtOnce(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		start(t, s.runner())
		s.churn(t, 300)
		s.await(t)
		results := make(chan projections.Rebuilt, 2)
		for range 2 {
			go func() {
				o := s.operator()
				o.BatchSize = 20
				out, err := o.Rebuild(t.Context(), "users", quiet)
				if err != nil {
					t.Error(err)
				}
				results <- out
			}()
		}
		for range 2 {
			if out := <-results; out.Generation != 2 {
				t.Errorf("Rebuild() = %+v, want generation 2", out)
			}
		}
		s.await(t)
		s.exact(t)
		if n := len(recorded[identity.ProjectionRebuilt](t, s)); n != 1 {
			t.Errorf("%d rebuilds are recorded, want one", n)
		}
	})
}

// A paused projection stays where it was paused, whatever is made of its tables.
func TestRebuildWhilePaused(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		start(t, s.runner())
		s.churn(t, 100)
		s.await(t)
		o := s.operator()
		if err := o.Pause(t.Context(), "users"); err != nil {
			t.Fatal(err)
		}
		paused := s.status(t).Position
		s.churn(t, 100)
		if out := s.rebuild(t); out.Position != paused || len(out.Differences) != 0 {
			t.Errorf("Rebuild() = %+v, want it at %d", out, paused)
		}
		if st := s.status(t); st.State != projections.StatePaused || st.Position != paused || st.Generation != 2 {
			t.Errorf("status = %+v, want generation 2, paused at %d", st, paused)
		}
		if diff := s.diff(t, paused); diff != "" {
			t.Errorf("at the pause (-log +read model):\n%s", diff)
		}
		if err := o.Resume(t.Context(), "users"); err != nil {
			t.Fatal(err)
		}
		s.await(t)
		s.exact(t)
	})
}

func TestRebuildLosesAnswers(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		start(t, s.runner())
		s.churn(t, 200)
		s.await(t)
		for generation := 2; generation < 5; generation++ {
			o := s.operator()
			o.DB, o.BatchSize = &flaky{DB: s.db}, 20
			out, err := o.Rebuild(t.Context(), "users", quiet)
			if err != nil || out.Generation != generation || len(out.Differences) != 0 {
				t.Fatalf("Rebuild() = %+v, %v, want generation %d", out, err, generation)
			}
			s.churn(t, 20)
			s.await(t)
			s.exact(t)
		}
		if n := len(recorded[identity.ProjectionRebuilt](t, s)); n != 3 {
			t.Errorf("%d rebuilds are recorded, want 3", n)
		}
	})
}

// Whoever lists the projections sees how far a rebuild is, in the form that the API has.
func TestRebuildShows(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		start(t, s.runner())
		s.churn(t, 400)
		s.await(t)
		o := s.operator()
		o.BatchSize = 100
		var seen []projections.Rebuild
		if _, err := o.Rebuild(t.Context(), "users", func(b projections.Rebuild) { seen = append(seen, b) }); err != nil {
			t.Fatal(err)
		}
		var states []projections.RebuildState
		for i, b := range seen {
			if b.Generation != 2 || b.Position > b.Target || i > 0 && b.Position < seen[i-1].Position {
				t.Errorf("progress %d is %+v", i, b)
			}
			if b.State == projections.RebuildLoading && b.Position > 0 && (b.Rate <= 0 || b.ETA == nil) {
				t.Errorf("progress %d is %+v, want rate and time left", i, b)
			}
			states = append(states, b.State)
		}
		want := []projections.RebuildState{projections.RebuildLoading, projections.RebuildIndexing, projections.RebuildComparing}
		if diff := cmp.Diff(want, slices.Compact(states)); diff != "" {
			t.Errorf("states (-want +got):\n%s", diff)
		}
		raw, err := json.Marshal(seen[0])
		if err != nil {
			t.Fatal(err)
		}
		for _, field := range []string{`"position":`, `"target":`, `"events_per_second":`, `"eta_seconds":`} {
			if !strings.Contains(string(raw), field) {
				t.Errorf("%s lacks %s", raw, field)
			}
		}
	})
}
