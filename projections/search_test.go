package projections_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"usher.example/eventstore"
	"usher.example/identity"
	"usher.example/projections"
)

// lets says whether a filter lets a user through, as its fields are described.
func lets(f projections.UserFilter, u projections.UserView) bool {
	query, email, name := strings.ToLower(f.Query), strings.ToLower(u.Email), strings.ToLower(u.Name)
	matches := strings.Contains(email, query) || strings.Contains(name, query)
	if len(query) < 3 {
		matches = strings.HasPrefix(email, query) || strings.HasPrefix(name, query)
	}
	return matches &&
		(f.Status == "" || f.Status == u.Status) && (f.Role == "" || slices.Contains(u.Roles, f.Role)) &&
		(f.EmailVerified == nil || *f.EmailVerified == u.EmailVerified) &&
		(f.CreatedAfter.IsZero() || u.CreatedAt.After(f.CreatedAfter)) && (f.CreatedBefore.IsZero() || u.CreatedAt.Before(f.CreatedBefore))
}

// everybody are all pages of a list, as ids.
func everybody(t *testing.T, q projections.Users, f projections.UserFilter) (list []projections.UserView) {
	t.Helper()
	for {
		page, err := q.List(t.Context(), f)
		if err != nil {
			t.Fatalf("List(%+v) = %v", f, err)
		}
		list = append(list, page.Items...)
		if f.Cursor = page.NextCursor; f.Cursor == "" {
			return list
		}
	}
}

func idsOf(users []projections.UserView) []uuid.UUID {
	ids := make([]uuid.UUID, len(users))
	for i, u := range users {
		ids[i] = u.ID
	}
	return ids
}

// Random filters, over users to whom all sorts of things have happened, find those whom they describe, in their order.
func TestSearchFindsWhomItDescribes(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		words := []string{"an", "na", "ann", "bob", "smith", "smi", "thom", "o'neil", "100%", "_x_", "e"}
		text := func() string {
			parts := make([]string, 1+s.random.IntN(3))
			for i := range parts {
				parts[i] = words[s.random.IntN(len(words))]
			}
			return strings.Join(parts, []string{" ", ".", ""}[s.random.IntN(3)])
		}
		moment := func() time.Time { return time.Unix(1_600_000_000+int64(s.random.IntN(100)), 0).UTC() }
		start(t, s.runner())
		var ids []uuid.UUID
		for i := range 300 {
			id := uuid.Must(uuid.NewV7())
			ids = append(ids, id)
			p := identity.Imported{EmailVerified: s.random.IntN(2) == 0, CreatedAt: moment()}
			p.Personal.Email, p.Personal.Name = fmt.Sprintf("%s%d@Example.org", strings.ReplaceAll(text(), " ", ""), i), text()
			if s.random.IntN(3) == 0 {
				p.Roles = []string{[]string{"admin", "writer", "reader"}[s.random.IntN(3)]}
			}
			s.append(t, id, identity.NewEvent(p))
		}
		for range 300 {
			at := s.random.IntN(len(ids))
			e := []eventstore.NewEvent{
				renamed(text()), identity.NewEvent(identity.Locked{}), identity.NewEvent(identity.Disabled{}), identity.NewEvent(identity.Enabled{}),
				identity.NewEvent(identity.RoleGranted{Role: "admin"}), identity.NewEvent(identity.RoleRevoked{Role: "admin"}), identity.NewEvent(identity.Erased{}),
			}[s.random.IntN(7)]
			s.append(t, ids[at], e)
			if e.Type == identity.TypeUserErased {
				ids = slices.Delete(ids, at, at+1)
			}
		}
		s.await(t)
		q := projections.Users{DB: s.db, CursorKey: cursorKey}
		all := everybody(t, q, projections.UserFilter{})
		if len(all) != len(ids) {
			t.Fatalf("%d users, want %d", len(all), len(ids))
		}
		yes, no, found := true, false, 0
		for range 400 {
			f := projections.UserFilter{Limit: 1 + s.random.IntN(40)}
			if s.random.IntN(3) > 0 {
				f.Query = text()
				if s.random.IntN(2) == 0 {
					f.Query = f.Query[:1+s.random.IntN(len(f.Query))]
				}
				f.Query = strings.TrimSpace(f.Query)
			}
			f.Status = []identity.Status{"", "", "", identity.StatusActive, identity.StatusLocked, identity.StatusDisabled}[s.random.IntN(6)]
			f.Role = []string{"", "", "admin", "reader", "nobody"}[s.random.IntN(5)]
			f.EmailVerified = []*bool{nil, nil, &yes, &no}[s.random.IntN(4)]
			if s.random.IntN(4) == 0 {
				f.CreatedAfter = moment()
			}
			if s.random.IntN(4) == 0 {
				f.CreatedBefore = moment()
			}
			want := []uuid.UUID{}
			for _, u := range all {
				if lets(f, u) {
					want = append(want, u.ID)
				}
			}
			got := idsOf(everybody(t, q, f))
			if !slices.Equal(want, got) {
				t.Fatalf("List(%+v) = %d users, want %d", f, len(got), len(want))
			}
			found += len(got)
		}
		if found == 0 {
			t.Error("no filter found anybody")
		}
	})
}

// Whoever is further down in the list than every search walks is found all the same, and pages go on from there: few or
// many, everywhere, in one place, or among very many who were created in the same second.
func TestSearchBeyondTheNearest(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		const users, alike = 6000, 2500
		want := map[string][]uuid.UUID{}
		after := time.Unix(1_600_000_000+4000*3600, 0)
		late := 0 // magpies created after that
		var appending errgroup.Group
		appending.SetLimit(64) // which share commits
		for i := range users {
			var p identity.Imported
			id := uuid.Must(uuid.NewV7())
			at := int64(1_600_000_000) // of the first ones; the others have an hour each
			if i >= alike {
				at += int64(i) * 3600
			}
			p.Personal.Email, p.CreatedAt = fmt.Sprintf("user%d@example.org", i), time.Unix(at, 0).UTC()
			for name, is := range map[string]bool{
				"rare bird": i%1000 == 7, "magpie": i%211 == 3, "lark": i%29 == 1, "wren": i < alike, "eagle": i < alike && i%2 == 0,
				"swift": i > 3000 && i < 3400, "kingfisher": i == 0,
			} {
				if is {
					p.Personal.Name += " " + name
					want[name] = append(want[name], id)
				}
			}
			if i%211 == 3 && p.CreatedAt.After(after) {
				late++
			}
			appending.Go(func() error {
				_, err := s.log.Append(t.Context(), userAppend(id, identity.NewEvent(p)))
				return err
			})
		}
		if err := appending.Wait(); err != nil {
			t.Fatal(err)
		}
		start(t, s.runner())
		s.await(t)
		q := projections.Users{DB: s.db, CursorKey: cursorKey}
		for name, ids := range want { // the newest first, those of one second by their ids, which ascend too
			slices.Reverse(ids)
			for _, query := range []string{name, name[1:], name[:3]} {
				for _, limit := range []int{7, 200} {
					if got := idsOf(everybody(t, q, projections.UserFilter{Query: query, Limit: limit})); !slices.Equal(got, ids) {
						t.Errorf("%q by %d: %d users, want %d", query, limit, len(got), len(ids))
					}
				}
			}
		}
		if got := everybody(t, q, projections.UserFilter{Query: "magpie", CreatedAfter: after, Limit: 4}); len(got) != late {
			t.Errorf("created after: %d users, want %d", len(got), late)
		}
	})
}
