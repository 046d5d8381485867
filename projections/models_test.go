package projections_test

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/eventstore/cloudevent"
	"usher.example/identity"
	"usher.example/internal/devstack"
	"usher.example/projections"
)

// Sessions, activity and statistics are what the log amounts to: read from the log, from messages with and without the
// personal fields, and rebuilt.
func TestReadModelsAgreeWithTheLog(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		var sessions []session
		s.bustle(t, 200, &sessions)
		s.startAll(t, func(r *projections.Runner) { r.BatchSize = 30 })
		s.awaitAll(t)
		s.compareModels(t)
		for _, o := range []cloudevent.Options{{}, {OmitPersonal: true}} {
			s.publish(t, o)
			for range 3 {
				s.bustle(t, 40, &sessions)
				s.publish(t, o)
			}
			s.awaitAll(t)
			s.compareModels(t)
		}
		o := s.operator(everyProjection()...)
		o.BatchSize = 60
		for _, p := range everyProjection() {
			out, err := o.Rebuild(t.Context(), p.Name(), quiet)
			if err != nil || len(out.Differences) != 0 || out.Generation != 2 {
				t.Errorf("Rebuild(%s) = %+v, %v, want no differences", p.Name(), out, err)
			}
		}
		// Side by side, from parts of the log that they share, with transactions of many of them.
		var rebuilds sync.WaitGroup
		for _, p := range everyProjection() {
			o := s.operator(everyProjection()...)
			o.BatchSize = 0
			rebuilds.Go(func() {
				out, err := o.Rebuild(t.Context(), p.Name(), quiet)
				if err != nil || len(out.Differences) != 0 || out.Generation != 3 {
					t.Errorf("Rebuild(%s) side by side = %+v, %v, want no differences", p.Name(), out, err)
				}
			})
		}
		rebuilds.Wait()
		s.bustle(t, 60, &sessions)
		s.publish(t, cloudevent.Options{})
		s.awaitAll(t)
		s.compareModels(t)
		s.exact(t)
		for _, p := range everyProjection() {
			devstack.Eventually(t, "the standby of "+p.Name()+" is current", func() bool {
				st, err := s.checkpoints.Status(t.Context(), p.Name())
				return err == nil && st.Standby != nil && st.Standby.Position == st.Position && st.Standby.Error == ""
			})
			if _, err := o.Rollback(t.Context(), p.Name(), identity.ActorOperator); err != nil {
				t.Error(err)
			}
		}
		s.awaitAll(t)
		s.compareModels(t)
		s.exact(t)
	})
}

// Of an erased user nothing is left in any read model that could tell who it was.
func TestReadModelsForget(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		s.startAll(t, nil)
		user := uuid.Must(uuid.NewV7())
		var p identity.Registered
		p.Personal.Email, p.Personal.Name = "unmistakable@example.org", "Unmistakable"
		s.append(t, user, identity.NewEvent(p))
		where := eventstore.Metadata{Actor: identity.ActorUser(user), Address: "203.0.113.77", UserAgent: "Unmistakable/1"}
		for _, kind := range []identity.Payload{
			identity.SessionStarted{Methods: []string{identity.MethodPassword}, ExpiresAt: time.Now()}, identity.LoginFailed{Reason: identity.MethodPassword},
		} {
			_, err := s.log.Append(t.Context(), eventstore.Append{Stream: eventstore.SessionStream(uuid.Must(uuid.NewV7()), user), Expected: eventstore.NoStream,
				Metadata: where, Events: []eventstore.NewEvent{identity.NewEvent(kind)}})
			if err != nil {
				t.Fatal(err)
			}
		}
		s.publish(t, cloudevent.Options{})
		s.awaitAll(t)
		marks := []string{"nmistakable", "203.0.113.77"}
		for _, table := range []string{"users_live", "sessions_live", "activity_live"} {
			if text := s.dump(t, table); !strings.Contains(text, marks[0]) && !strings.Contains(text, marks[1]) {
				t.Fatalf("%s has nothing of the user: this tries nothing", table)
			}
		}
		if text := s.dump(t, "stats_active_live"); !strings.Contains(text, user.String()) {
			t.Fatal("the user was not active: this tries nothing")
		}
		s.append(t, user, identity.NewEvent(identity.Erased{}))
		s.publish(t, cloudevent.Options{})
		s.awaitAll(t)
		for _, table := range []string{"users_live", "sessions_live", "activity_live", "stats_live", "stats_active_live"} {
			for _, mark := range marks {
				if strings.Contains(s.dump(t, table), mark) {
					t.Errorf("%s still has %q", table, mark)
				}
			}
		}
		for _, table := range []string{"users_live", "sessions_live", "stats_active_live"} {
			if strings.Contains(s.dump(t, table), user.String()) {
				t.Errorf("%s still has the user", table)
			}
		}
		figures, err := projections.Stats{DB: s.db}.Between(t.Context(), projections.SpanDay, time.Now().Add(-time.Minute), time.Now().Add(time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		active := int64(0)
		for _, f := range figures {
			active += f.ActiveUsers
		}
		if active != 1 {
			t.Errorf("%d users were active, want the erased one to stay counted", active)
		}
	})
}

// dump reads a table's rows as text, whatever its columns are.
func (s *stack) dump(t *testing.T, table string) string {
	t.Helper()
	query := "SELECT coalesce(string_agg(CAST(r AS text), chr(10)), '') FROM " + table + " r"
	if s.db.Dialect() == eventstore.SQLite {
		var columns string
		if err := s.db.QueryRow(t.Context(), "SELECT group_concat(name, ' || '' '' || ') FROM (SELECT name FROM pragma_table_info($1) WHERE name <> 'ended_at')", table).Scan(&columns); err != nil {
			t.Fatal(err)
		}
		query = "SELECT coalesce(group_concat(" + columns + ", char(10)), '') FROM " + table
	}
	var text string
	if err := s.db.QueryRow(t.Context(), query).Scan(&text); err != nil {
		t.Fatal(err)
	}
	return text
}

// Over weeks, figures are exact however events come in batches, and who was active is known no longer than it has to be.
func TestStatsOverTime(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		p := projections.StatsProjection{}
		model := projections.Generation{Dialect: s.db.Dialect(), Number: 1}
		_, err := s.db.Exec(t.Context(), "INSERT INTO projections (name, generation, code_version, checkpoint, epoch, state, updated_at) VALUES ('stats', 1, 1, 0, 1, 'running', '2026-01-01 00:00:00')")
		if err := errors.Join(err, model.Create(t.Context(), s.db, p), model.Show(t.Context(), s.db, p)); err != nil {
			t.Fatal(err)
		}
		var events []eventstore.Event
		var users []uuid.UUID
		begin := time.Date(2026, 2, 27, 22, 30, 0, 0, time.UTC) // over a month's end
		at := begin
		for position := int64(1); at.Before(begin.Add(75 * 24 * time.Hour)); position++ {
			at = at.Add(time.Duration(s.random.IntN(int(4 * time.Hour))))
			if len(users) < 8 || s.random.IntN(20) == 0 {
				users = append(users, uuid.Must(uuid.NewV7()))
			}
			user := users[s.random.IntN(len(users))]
			e := eventstore.Event{Position: position, Stream: eventstore.SessionStream(uuid.New(), user), Version: 1, RecordedAt: at.Truncate(time.Microsecond), SchemaVersion: 1}
			switch s.random.IntN(9) {
			case 0:
				e.Type = identity.TypeUserRegistered
			case 1:
				e.Type = identity.TypeUserLoginFailed
			case 2:
				e.Type, e.Metadata.Actor = identity.TypeUserProfileUpdated, identity.ActorUser(user)
			case 3:
				e.Type, e.Metadata.Actor = identity.TypeUserLocked, identity.ActorUser(uuid.New())
			case 4:
				e.Type, e.Stream = identity.TypeKeyRotated, eventstore.SystemStream("keys")
			case 5:
				if len(users) > 8 && s.random.IntN(4) == 0 {
					e.Type, e.Stream = identity.TypeUserErased, eventstore.UserStream(user)
					users = slices.DeleteFunc(users, func(u uuid.UUID) bool { return u == user })
					break
				}
				fallthrough
			default:
				e.Type, e.Metadata.Actor = identity.TypeSessionStarted, identity.ActorUser(user)
			}
			events = append(events, e)
		}
		for rest := events; len(rest) > 0; {
			n := min(1+s.random.IntN(40), len(rest))
			err := s.db.Transact(t.Context(), func(tx eventstore.DB) error {
				return projections.Apply(t.Context(), tx, p, model, rest[:n])
			})
			if err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		for span, format := range map[projections.Span]string{projections.SpanHour: "2006-01-02 15", projections.SpanDay: time.DateOnly} {
			counted := map[time.Time]projections.Figures{}
			for _, f := range figuresOf(events, format) {
				counted[f.Start] = f
			}
			for from, end := begin, at.Add(time.Hour); from.Before(end); from = from.Add(900 * span.Length()) {
				to := from.Add(900 * span.Length())
				if to.After(end) {
					to = end
				}
				list, err := projections.Stats{DB: s.db}.Between(t.Context(), span, from, to)
				if err != nil {
					t.Fatal(err)
				}
				for i, f := range list {
					if want := from.Truncate(span.Length()).Add(time.Duration(i) * span.Length()); f.Start != want {
						t.Fatalf("%s %d begins at %v, want %v", span, i, f.Start, want)
					}
					if want, ok := counted[f.Start]; ok && f != want || !ok && f != (projections.Figures{Start: f.Start}) {
						t.Errorf("%s %v: %+v, want %+v", span, f.Start, f, want)
					}
				}
			}
		}
		var oldest time.Time
		if err := s.db.QueryRow(t.Context(), "SELECT min(start) FROM stats_active_1").Scan(&oldest); err != nil {
			t.Fatal(err)
		}
		if age := at.Sub(oldest); age < 29*24*time.Hour || age > 32*24*time.Hour {
			t.Errorf("who was active is known for %v, want 30 days", age)
		}
	})
}

func TestBadQueriesOfReadModels(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		now := time.Now()
		sessions, activity, stats := projections.Sessions{DB: s.db, CursorKey: cursorKey}, projections.Activity{DB: s.db}, projections.Stats{DB: s.db}
		list := func(f projections.SessionFilter) error { _, err := sessions.List(t.Context(), f); return err }
		happened := func(f projections.ActivityFilter) error { _, _, err := activity.List(t.Context(), f); return err }
		between := func(span projections.Span, from, to time.Time) error {
			_, err := stats.Between(t.Context(), span, from, to)
			return err
		}
		for name, test := range map[string]struct{ err, want error }{
			"sessions before anything ran": {list(projections.SessionFilter{}), projections.ErrUnknownProjection},
			"activity before anything ran": {happened(projections.ActivityFilter{}), projections.ErrUnknownProjection},
			"figures before anything ran":  {between(projections.SpanDay, now, now.Add(1)), projections.ErrUnknownProjection},
			"sessions, limit":              {list(projections.SessionFilter{Limit: 201}), projections.ErrBadFilter},
			"sessions, cursor":             {list(projections.SessionFilter{Cursor: "invented"}), projections.ErrBadCursor},
			"activity, limit":              {happened(projections.ActivityFilter{Limit: -1}), projections.ErrBadFilter},
			"figures, no such span":        {between("week", now, now.Add(time.Hour)), projections.ErrBadFilter},
			"figures, nothing between":     {between(projections.SpanDay, now, now.Add(-48*time.Hour)), projections.ErrBadFilter},
			"figures, too many":            {between(projections.SpanHour, now.Add(-1001*time.Hour), now), projections.ErrBadFilter},
			"figures, from the year zero":  {between(projections.SpanDay, time.Time{}, now), projections.ErrBadFilter},
			"figures, to the year 9999":    {between(projections.SpanDay, now, time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)), projections.ErrBadFilter},
		} {
			if !errors.Is(test.err, test.want) {
				t.Errorf("%s: %v, want %v", name, test.err, test.want)
			}
		}
	})
}
