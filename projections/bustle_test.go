package projections_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity"
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
