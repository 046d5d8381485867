package projections_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/eventstore/cloudevent"
	"usher.example/identity"
	"usher.example/internal/devstack"
	"usher.example/projections"
)

// everyProjection is all of them.
func everyProjection() []projections.Projection {
	return []projections.Projection{projections.UserProjection{}, projections.SessionProjection{}, projections.ActivityProjection{}, projections.StatsProjection{}}
}

// startAll runs every projection until stop is called or the test ends.
func (s *stack) startAll(t *testing.T, change func(*projections.Runner)) (stop func()) {
	t.Helper()
	var stops []func()
	for _, p := range everyProjection() {
		r := s.runner()
		r.Projection = p
		if change != nil {
			change(r)
		}
		stops = append(stops, start(t, r))
	}
	return func() {
		for _, stop := range stops {
			stop()
		}
	}
}

// awaitAll waits until every read model has reached the head of the log, with nothing parked.
func (s *stack) awaitAll(t *testing.T) {
	t.Helper()
	head, err := s.log.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for _, p := range everyProjection() {
		if err := s.checkpoints.Await(ctx, p.Name(), head); err != nil {
			t.Fatal(err)
		}
		if st, err := s.checkpoints.Status(t.Context(), p.Name()); err != nil || st.ParkedCount > 0 {
			t.Errorf("status of %s = %+v, %v, want nothing parked", p.Name(), st, err)
		}
	}
}

// somewhere is where a client may be.
func (s *stack) somewhere(actor string) eventstore.Metadata {
	return eventstore.Metadata{Actor: actor, Address: fmt.Sprintf("192.0.2.%d", s.random.IntN(250)), UserAgent: fmt.Sprintf("Browser/%d", s.random.IntN(9))}
}

type session struct {
	stream eventstore.Stream
	ended  bool
}

// bustle appends n times whatever may happen: to users, in sessions, to nobody, known or not.
func (s *stack) bustle(t *testing.T, n int, sessions *[]session) {
	t.Helper()
	add := func(stream eventstore.Stream, m eventstore.Metadata, events ...eventstore.NewEvent) {
		t.Helper()
		log := s.log
		if strings.HasSuffix(events[0].Type, ".unheard_of") {
			log = s.unchecked
		}
		_, err := log.Append(t.Context(), eventstore.Append{Stream: stream, Expected: eventstore.AnyVersion, Metadata: m, Events: events})
		if err != nil {
			t.Fatal(err)
		}
	}
	unheardOf := func(kind string) eventstore.NewEvent {
		return eventstore.NewEvent{Type: kind + ".unheard_of", SchemaVersion: 3, Data: []byte(`{"reason":7,"role":["x"],"methods":{}}`)}
	}
	for range n {
		if len(s.users) < 5 {
			s.register(t)
			continue
		}
		at := s.random.IntN(len(s.users))
		user := s.users[at]
		self := s.somewhere(identity.ActorUser(user))
		switch s.random.IntN(14) {
		case 0:
			s.register(t)
		case 1, 2, 3:
			stream := eventstore.SessionStream(uuid.Must(uuid.NewV7()), user)
			*sessions = append(*sessions, session{stream: stream})
			add(stream, self, identity.NewEvent(identity.SessionStarted{Methods: []string{identity.MethodPassword}, ExpiresAt: time.Now().Add(time.Hour)}))
		case 4, 5:
			open := slices.IndexFunc(*sessions, func(o session) bool { return !o.ended && slices.Contains(s.users, o.stream.Subject) })
			if open < 0 {
				continue
			}
			o := &(*sessions)[open]
			o.ended = true
			events := []eventstore.NewEvent{identity.NewEvent(identity.SessionEnded{Reason: identity.EndedLogout})}
			if s.random.IntN(3) == 0 {
				events = []eventstore.NewEvent{identity.NewEvent(identity.SessionReuseDetected{}), identity.NewEvent(identity.SessionEnded{Reason: identity.EndedReuse})}
			}
			add(o.stream, s.somewhere(identity.ActorUser(o.stream.Subject)), events...)
		case 6:
			add(eventstore.SessionStream(uuid.Must(uuid.NewV7()), user), s.somewhere(identity.ActorAnonymous), identity.NewEvent(identity.LoginFailed{Reason: identity.MethodPassword}))
		case 7:
			add(eventstore.UserStream(user), s.somewhere(identity.ActorUser(uuid.Must(uuid.NewV7()))), identity.NewEvent(identity.Locked{}))
		case 8:
			add(eventstore.UserStream(user), self, unheardOf("user"))
		case 9:
			add(eventstore.SessionStream(uuid.Must(uuid.NewV7()), user), self, unheardOf("session"))
		case 10:
			add(eventstore.SystemStream("somewhere"), eventstore.Metadata{Actor: identity.ActorSystem}, unheardOf("thing"))
		case 11:
			add(eventstore.UserStream(user), s.somewhere(identity.ActorUser(uuid.Must(uuid.NewV7()))), identity.NewEvent(identity.RoleGranted{Role: "editor"}))
		case 12:
			if s.random.IntN(3) == 0 {
				s.append(t, user, identity.NewEvent(identity.Erased{}))
				s.users = slices.Delete(s.users, at, at+1)
			}
		default:
			add(eventstore.UserStream(user), self, s.change())
		}
	}
}

// models is what the log amounts to, in the simplest way, and with nothing that the projections use.
type models struct {
	Sessions map[uuid.UUID]projections.SessionView
	Activity []projections.ActivityView // the oldest first
	Hours    []projections.Figures
	Days     []projections.Figures
}

func modelsOf(t *testing.T, events []eventstore.Event) models {
	t.Helper()
	m := models{Sessions: map[uuid.UUID]projections.SessionView{}}
	for _, e := range events {
		var fields struct {
			Reason, Role string
			Methods      []string
			ExpiresAt    time.Time `json:"expires_at"`
		}
		known := !strings.HasSuffix(e.Type, ".unheard_of")
		if known {
			if err := json.Unmarshal(e.Data, &fields); err != nil {
				t.Fatal(err)
			}
		}
		session, exists := m.Sessions[e.Stream.ID]
		switch {
		case e.Type == "session.started":
			session = projections.SessionView{ID: e.Stream.ID, User: e.Stream.Subject, StartedAt: e.RecordedAt, ExpiresAt: fields.ExpiresAt.UTC().Truncate(time.Microsecond),
				Methods: fields.Methods, Address: e.Metadata.Address, UserAgent: e.Metadata.UserAgent}
			exists = true
		case e.Type == "session.ended":
			at := e.RecordedAt
			session.EndedAt, session.Reason = &at, fields.Reason
		}
		if exists {
			session.Version, session.Position = e.Version, e.Position
			m.Sessions[e.Stream.ID] = session
		}
		a := projections.ActivityView{Position: e.Position, Time: e.RecordedAt, User: e.Stream.Subject, Type: e.Type, Actor: e.Metadata.Actor,
			Details: projections.ActivityDetails{Reason: fields.Reason, Role: fields.Role, Methods: fields.Methods}}
		if strings.HasPrefix(e.Type, "session.") || e.Type == "user.login_failed" {
			a.Session = e.Stream.ID
		}
		if e.Metadata.Actor == "anonymous" || e.Metadata.Actor == "user:"+e.Stream.Subject.String() {
			a.Address, a.UserAgent = e.Metadata.Address, e.Metadata.UserAgent
		}
		m.Activity = append(m.Activity, a)
		if e.Type == "user.erased" {
			for id, session := range m.Sessions {
				if session.User == e.Stream.ID {
					delete(m.Sessions, id)
				}
			}
			for i := range m.Activity {
				if m.Activity[i].User == e.Stream.ID {
					m.Activity[i].Address, m.Activity[i].UserAgent = "", ""
				}
			}
		}
	}
	m.Hours, m.Days = figuresOf(events, "2006-01-02 15"), figuresOf(events, time.DateOnly)
	return m
}

// figuresOf counts by what a format leaves of a time.
func figuresOf(events []eventstore.Event, format string) (list []projections.Figures) {
	active := map[string]bool{}
	for _, e := range events {
		key := e.RecordedAt.Format(format)
		start, err := time.Parse(format, key)
		if err != nil {
			panic(err)
		}
		if len(list) == 0 || list[len(list)-1].Start != start {
			list = append(list, projections.Figures{Start: start})
		}
		f := &list[len(list)-1]
		switch e.Type {
		case "user.registered":
			f.Registrations++
		case "session.started":
			f.Logins++
		case "user.login_failed":
			f.FailedLogins++
		}
		if user := e.Stream.Subject.String(); e.Type == "session.started" || e.Metadata.Actor == "user:"+user {
			if !active[key+user] {
				f.ActiveUsers++
			}
			active[key+user] = true
		}
	}
	return list
}

// shown is what the queries answer.
func (s *stack) shown(t *testing.T, from, to time.Time) (m models) {
	t.Helper()
	m.Sessions = map[uuid.UUID]projections.SessionView{}
	q := projections.Activity{DB: s.db}
	users := map[uuid.UUID]bool{}
	for f := (projections.ActivityFilter{Limit: 50}); ; {
		items, more, err := q.List(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range items {
			users[a.User] = true
		}
		m.Activity = append(m.Activity, items...)
		if !more {
			break
		}
		f.Before = items[len(items)-1].Position
	}
	slices.Reverse(m.Activity)
	for user := range users {
		for f := (projections.SessionFilter{User: user, Limit: 2}); ; {
			page, err := (projections.Sessions{DB: s.db, CursorKey: cursorKey}).List(t.Context(), f)
			if err != nil {
				t.Fatal(err)
			}
			for i, session := range page.Items {
				if i > 0 && session.StartedAt.After(page.Items[i-1].StartedAt) {
					t.Errorf("session %s comes after an older one", session.ID)
				}
				m.Sessions[session.ID] = session
			}
			if f.Cursor = page.NextCursor; f.Cursor == "" {
				break
			}
		}
	}
	var err error
	stats := projections.Stats{DB: s.db}
	if m.Hours, err = stats.Between(t.Context(), projections.SpanHour, from, to); err != nil {
		t.Fatal(err)
	}
	if m.Days, err = stats.Between(t.Context(), projections.SpanDay, from, to); err != nil {
		t.Fatal(err)
	}
	return m
}

// compareModels compares what the queries answer with what the log amounts to.
func (s *stack) compareModels(t *testing.T) {
	t.Helper()
	events, err := s.log.ReadAll(t.Context(), 0, 1_000_000)
	if err != nil {
		t.Fatal(err)
	}
	want := modelsOf(t, events)
	got := s.shown(t, events[0].RecordedAt, events[len(events)-1].RecordedAt.Add(time.Microsecond))
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("read models differ from the log (-log +read models):\n%s", diff)
	}
	if len(want.Sessions) < 5 || len(want.Activity) < 50 {
		t.Errorf("%d sessions and %d rows of activity: this tried nothing", len(want.Sessions), len(want.Activity))
	}
}

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
