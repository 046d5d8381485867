package projections_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity"
	"usher.example/projections"
)

// append appends events to a user's stream.
func (s *stack) append(tb testing.TB, user uuid.UUID, events ...eventstore.NewEvent) {
	tb.Helper()
	appendTo(tb, s.log, user, events...)
}

// appendUnchecked appends events that are against their schemas to a user's stream.
func (s *stack) appendUnchecked(tb testing.TB, user uuid.UUID, events ...eventstore.NewEvent) {
	tb.Helper()
	appendTo(tb, s.unchecked, user, events...)
}

func appendTo(tb testing.TB, log *eventstore.Log, user uuid.UUID, events ...eventstore.NewEvent) {
	tb.Helper()
	if _, err := log.Append(tb.Context(), userAppend(user, events...)); err != nil {
		tb.Fatal(err)
	}
}

func userAppend(user uuid.UUID, events ...eventstore.NewEvent) eventstore.Append {
	a := eventstore.Append{Stream: eventstore.UserStream(user), Expected: eventstore.AnyVersion, Events: events}
	if t := events[0].Type; t == identity.TypeUserRegistered || t == identity.TypeUserImported {
		a.Expected, a.CreateKey = eventstore.NoStream, true
	}
	return a
}

func renamed(name string) eventstore.NewEvent {
	var p identity.ProfileUpdated
	p.Personal.Name = &name
	return identity.NewEvent(p)
}

func (s *stack) register(tb testing.TB) uuid.UUID {
	tb.Helper()
	id := uuid.Must(uuid.NewV7())
	s.append(tb, id, s.registered())
	s.users = append(s.users, id)
	return id
}

// address is one of few, so that verifications are sometimes of the address that a user has.
func (s *stack) address() string { return fmt.Sprintf("User%d@Example.org", s.random.IntN(4)) }

func (s *stack) registered() eventstore.NewEvent {
	var p identity.Registered
	p.Personal.Email = s.address()
	if s.random.IntN(3) > 0 {
		p.Personal.Name = fmt.Sprintf("Name %d", s.random.IntN(1000))
	}
	return identity.NewEvent(p)
}

func (s *stack) imported() eventstore.NewEvent {
	p := identity.Imported{EmailVerified: s.random.IntN(2) == 0}
	p.Personal.Email = s.address()
	if s.random.IntN(2) == 0 {
		p.Personal.Name = "Imported"
	}
	if s.random.IntN(2) == 0 {
		p.Roles = []string{"editor", "auditor"}
	}
	if s.random.IntN(2) == 0 {
		p.CreatedAt = time.Date(2019, 3, 1, 10, 0, s.random.IntN(60), s.random.IntN(1e9), time.FixedZone("CET", 3600))
	}
	return identity.NewEvent(p)
}

// change is an event of whatever may happen to a user, but the first and the last.
func (s *stack) change() eventstore.NewEvent {
	role := []string{"admin", "editor", "auditor"}[s.random.IntN(3)]
	switch s.random.IntN(15) {
	case 0, 1:
		return identity.NewEvent(identity.RoleGranted{Role: role})
	case 2:
		return identity.NewEvent(identity.RoleRevoked{Role: role})
	case 3:
		return identity.NewEvent(identity.Locked{})
	case 4:
		return identity.NewEvent(identity.Unlocked{})
	case 5:
		return identity.NewEvent(identity.Disabled{})
	case 6:
		return identity.NewEvent(identity.Enabled{})
	case 7:
		return identity.NewEvent(identity.PasswordChanged{Reason: identity.ReasonChange})
	case 8:
		return renamed(fmt.Sprint("Renamed ", s.random.IntN(100)))
	case 9:
		return renamed("")
	case 10:
		return identity.NewEvent(identity.TOTPEnabled{})
	case 11:
		return identity.NewEvent(identity.TOTPDisabled{Reason: identity.ReasonChange})
	case 12:
		var p identity.ProfileUpdated
		p.Personal.Attributes = json.RawMessage(fmt.Sprintf(`{"locale":"en","visits":%d}`, s.random.IntN(100)))
		return identity.NewEvent(p)
	case 13:
		var p identity.EmailChanged
		p.Personal.Email = s.address()
		return identity.NewEvent(p)
	default:
		var p identity.EmailVerified
		p.Personal.Email = s.address()
		return identity.NewEvent(p)
	}
}

// churn appends n events of all kinds, or a few more.
func (s *stack) churn(tb testing.TB, n int) {
	tb.Helper()
	for range n {
		if len(s.users) < 5 || s.random.IntN(4) == 0 {
			s.register(tb)
			continue
		}
		at := s.random.IntN(len(s.users))
		user := s.users[at]
		switch s.random.IntN(16) {
		case 0:
			s.append(tb, user, s.change(), s.change())
		case 1:
			// Of a newer release, whose schemas this one does not have: it says nothing that is in the read model.
			s.appendUnchecked(tb, user, eventstore.NewEvent{Type: "user.moved_house"})
		case 2:
			s.append(tb, user, identity.NewEvent(identity.Erased{}))
			s.users = slices.Delete(s.users, at, at+1)
		case 3:
			id := uuid.Must(uuid.NewV7())
			s.append(tb, id, s.imported())
			s.users = append(s.users, id)
		case 4, 5, 6:
			session := uuid.Must(uuid.NewV7())
			_, err := s.log.Append(tb.Context(), eventstore.Append{
				Stream: eventstore.SessionStream(session, user), Expected: eventstore.NoStream,
				Events:   []eventstore.NewEvent{identity.NewEvent(identity.SessionStarted{Methods: []string{identity.MethodPassword}, ExpiresAt: time.Now()})},
				Metadata: eventstore.Metadata{Address: "192.0.2.1"},
			})
			if err != nil {
				tb.Fatal(err)
			}
		default:
			s.append(tb, user, s.change())
		}
	}
}

// exact compares the read model with what the log amounts to.
func (s *stack) exact(tb testing.TB) {
	tb.Helper()
	compare(tb, s.model(tb, 0), s.all(tb))
}

func compare(tb testing.TB, log, readModel map[uuid.UUID]projections.UserView) {
	tb.Helper()
	if diff := cmp.Diff(log, readModel); diff != "" {
		tb.Errorf("read model differs from the log (-log +read model):\n%s", diff)
	}
}

// diff compares the read model with what the log up to a position amounts to, but for users who were erased after it: the
// log has forgotten them already, and the read model forgets them once it comes there.
func (s *stack) diff(tb testing.TB, at int64) string {
	tb.Helper()
	log, readModel := s.model(tb, at), s.all(tb)
	later, err := s.log.ReadAll(tb.Context(), at, 1_000_000)
	if err != nil {
		tb.Fatal(err)
	}
	for _, e := range later {
		if e.Type == identity.TypeUserErased {
			delete(log, e.Stream.ID)
			delete(readModel, e.Stream.ID)
		}
	}
	return cmp.Diff(log, readModel)
}

// all reads the read model, by every page of a list.
func (s *stack) all(tb testing.TB) map[uuid.UUID]projections.UserView {
	tb.Helper()
	found := map[uuid.UUID]projections.UserView{}
	q := projections.Users{DB: s.db}
	for f := (projections.UserFilter{Limit: projections.MaxLimit}); ; {
		page, err := q.List(tb.Context(), f)
		if err != nil {
			tb.Fatal(err)
		}
		for _, u := range page.Items {
			if _, again := found[u.ID]; again {
				tb.Fatalf("user %s is on two pages", u.ID)
			}
			found[u.ID] = u
		}
		if page.NextCursor == "" {
			return found
		}
		f.Cursor = page.NextCursor
	}
}

// model is what the log up to a position (0 for its head) amounts to, event by event and with nothing that the
// projection uses.
func (s *stack) model(tb testing.TB, upTo int64) map[uuid.UUID]projections.UserView {
	tb.Helper()
	users := map[uuid.UUID]projections.UserView{}
	locked, disabled := map[uuid.UUID]bool{}, map[uuid.UUID]bool{}
	events, err := s.log.ReadAll(tb.Context(), 0, 1_000_000)
	if err != nil {
		tb.Fatal(err)
	}
	for _, e := range events {
		if e.Stream.Kind != eventstore.KindUser || upTo > 0 && e.Position > upTo {
			continue
		}
		u, id := users[e.Stream.ID], e.Stream.ID
		fields := map[string]any{}
		if err := json.Unmarshal(e.Payload(), &fields); err != nil {
			tb.Fatal(err)
		}
		text := func(name string) string { v, _ := fields[name].(string); return v }
		switch e.Type {
		case "user.registered", "user.imported":
			u = projections.UserView{ID: id, Email: text("email"), Name: text("name"), Roles: []string{}, Attributes: json.RawMessage("{}"),
				CreatedAt: e.RecordedAt}
			u.EmailVerified, _ = fields["email_verified"].(bool)
			if fields["roles"] != nil {
				u.Roles = []string{"auditor", "editor"}
			}
			if began := text("created_at"); began != "" {
				at, err := time.Parse(time.RFC3339Nano, began)
				if err != nil {
					tb.Fatal(err)
				}
				u.CreatedAt = at.UTC().Truncate(time.Microsecond)
			}
		case "user.email_verified":
			u.EmailVerified = u.EmailVerified || u.Email == text("email")
		case "user.role_granted":
			u.Roles = slices.Clone(u.Roles)
			if !slices.Contains(u.Roles, text("role")) {
				u.Roles = append(u.Roles, text("role"))
				slices.Sort(u.Roles)
			}
		case "user.role_revoked":
			u.Roles = slices.DeleteFunc(slices.Clone(u.Roles), func(r string) bool { return r == text("role") })
		case "user.locked", "user.unlocked":
			locked[id] = e.Type == "user.locked"
		case "user.disabled", "user.enabled":
			disabled[id] = e.Type == "user.disabled"
		case "user.totp_enabled", "user.totp_disabled":
			u.TOTPEnabled = e.Type == "user.totp_enabled"
		case "user.profile_updated":
			if _, given := fields["name"]; given {
				u.Name = text("name")
			}
			if fields["attributes"] != nil {
				var p struct{ Attributes json.RawMessage }
				if err := json.Unmarshal(e.Payload(), &p); err != nil {
					tb.Fatal(err)
				}
				u.Attributes = p.Attributes
			}
		case "user.email_changed":
			u.Email, u.EmailVerified = text("email"), true
		case "user.erased":
			delete(users, id)
			continue
		}
		u.Status = identity.StatusActive
		if locked[id] {
			u.Status = identity.StatusLocked
		}
		if disabled[id] {
			u.Status = identity.StatusDisabled
		}
		u.Version, u.Position, u.UpdatedAt = e.Version, e.Position, e.RecordedAt
		users[id] = u
	}
	return users
}
