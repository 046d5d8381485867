package projections_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"usher/eventstore"
	"usher/identity"
	"usher/projections"
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

// Who is further down in the list than the first statement looks is found all the same, and pages go on from there.
func TestSearchBeyondTheNearest(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		const users = 6000 // more than the first statement looks at
		var want []uuid.UUID
		var appending errgroup.Group
		appending.SetLimit(64) // which share commits
		for i := range users {
			var p identity.Imported
			id := uuid.Must(uuid.NewV7())
			p.Personal.Email, p.Personal.Name = fmt.Sprintf("user%d@example.org", i), "Somebody"
			p.CreatedAt = time.Unix(1_600_000_000+int64(i), 0).UTC()
			if i%1000 == 7 {
				p.Personal.Name = "Rare Bird"
				want = slices.Insert(want, 0, id)
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
		for _, limit := range []int{1, 2, 50} {
			if got := idsOf(everybody(t, q, projections.UserFilter{Query: "are bir", Limit: limit})); !slices.Equal(got, want) {
				t.Errorf("by %d: %v, want %v", limit, got, want)
			}
		}
	})
}
