package projections_test

import (
	"context"
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
	"usher.example/projections"
)

var cursorKey = []byte("a key for cursors")

// people are users with an email and a name each, in the order of their creation.
var people = [][2]string{
	{"ann@example.org", "Ann Able"},
	{"Bob@Example.org", "Bob Baker"},
	{"carol@example.com", "Ann-Carol"},
	{"dave@example.com", ""},
	{"ünal@example.org", "Ünal Ölçer"},
	{"100%_sure@example.org", "Percent"},
}

// seeded registers people and applies them. The second has a role, the third is locked, the fourth disabled and locked.
func seeded(t *testing.T, s *stack) (ids []uuid.UUID, q projections.Users) {
	t.Helper()
	for _, p := range people {
		id := uuid.Must(uuid.NewV7())
		var e identity.Registered
		e.Personal.Email, e.Personal.Name = p[0], p[1]
		s.append(t, id, identity.NewEvent(e))
		ids = append(ids, id)
	}
	s.append(t, ids[1], identity.NewEvent(identity.RoleGranted{Role: "editor"}), identity.NewEvent(identity.RoleGranted{Role: "admin"}))
	s.append(t, ids[2], identity.NewEvent(identity.Locked{}))
	s.append(t, ids[3], identity.NewEvent(identity.Disabled{}), identity.NewEvent(identity.Locked{}))
	start(t, s.runner())
	s.await(t)
	return ids, projections.Users{DB: s.db, CursorKey: cursorKey}
}

func TestListFilters(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		ids, q := seeded(t, s)
		third, err := q.Get(t.Context(), ids[2])
		if err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct {
			name string
			f    projections.UserFilter
			want []int // of people
		}{
			{"all", projections.UserFilter{}, []int{5, 4, 3, 2, 1, 0}},
			{"prefix of email or name", projections.UserFilter{Query: "an"}, []int{2, 0}},
			{"whatever the case", projections.UserFilter{Query: "BOB@EXAMPLE"}, []int{1}},
			{"inside of an email", projections.UserFilter{Query: "OB@exam"}, []int{1}},
			{"too short to be inside", projections.UserFilter{Query: "@"}, nil},
			{"other scripts", projections.UserFilter{Query: "ÜNAL ö"}, []int{4}},
			{"decomposed", projections.UserFilter{Query: "u\u0308nal"}, []int{4}},
			{"white space around", projections.UserFilter{Query: "  ann able "}, []int{0}},
			{"no wildcards", projections.UserFilter{Query: "%"}, nil},
			{"literally", projections.UserFilter{Query: "100%_"}, []int{5}},
			{"quote", projections.UserFilter{Query: "' OR 1=1 --"}, nil},
			{"active", projections.UserFilter{Status: identity.StatusActive}, []int{5, 4, 1, 0}},
			{"locked", projections.UserFilter{Status: identity.StatusLocked}, []int{2}},
			{"disabled and locked is disabled", projections.UserFilter{Status: identity.StatusDisabled}, []int{3}},
			{"role", projections.UserFilter{Role: "admin"}, []int{1}},
			{"no such role", projections.UserFilter{Role: "adm"}, nil},
			{"created after", projections.UserFilter{CreatedAfter: third.CreatedAt}, []int{5, 4, 3}},
			{"created before", projections.UserFilter{CreatedBefore: third.CreatedAt}, []int{1, 0}},
			{"both", projections.UserFilter{CreatedAfter: third.CreatedAt, Query: "d", Status: identity.StatusDisabled}, []int{3}},
		} {
			page, err := q.List(t.Context(), tt.f)
			if err != nil {
				t.Errorf("%s: %v", tt.name, err)
				continue
			}
			var got []int
			for _, u := range page.Items {
				got = append(got, slices.Index(ids, u.ID))
			}
			if diff := cmp.Diff(tt.want, got); diff != "" || page.NextCursor != "" {
				t.Errorf("%s: next cursor %q, users (-want +got):\n%s", tt.name, page.NextCursor, diff)
			}
		}
	})
}

func TestGet(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		ids, q := seeded(t, s)
		u, err := q.Get(t.Context(), ids[1])
		if err != nil {
			t.Fatal(err)
		}
		want := projections.UserView{ID: ids[1], Email: "Bob@Example.org", Name: "Bob Baker", Status: identity.StatusActive,
			Roles: []string{"admin", "editor"}, Attributes: []byte("{}"), CreatedAt: u.CreatedAt, UpdatedAt: u.UpdatedAt, Version: 3, Position: 8}
		if diff := cmp.Diff(want, u); diff != "" || u.UpdatedAt.Before(u.CreatedAt) || u.CreatedAt.Location() != time.UTC {
			t.Errorf("Get() (-want +got):\n%s", diff)
		}
		if _, err := q.Get(t.Context(), uuid.Must(uuid.NewV7())); !errors.Is(err, projections.ErrNotFound) {
			t.Errorf("Get() of nobody = %v, want %v", err, projections.ErrNotFound)
		}
	})
}

func TestQueriesBeforeAnythingRan(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		q := projections.Users{DB: s.db}
		if _, err := q.List(t.Context(), projections.UserFilter{}); !errors.Is(err, projections.ErrUnknownProjection) {
			t.Errorf("List() = %v, want %v", err, projections.ErrUnknownProjection)
		}
		if _, err := q.Get(t.Context(), uuid.Must(uuid.NewV7())); !errors.Is(err, projections.ErrUnknownProjection) {
			t.Errorf("Get() = %v, want %v", err, projections.ErrUnknownProjection)
		}
	})
}

func TestBadFilters(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		_, q := seeded(t, s)
		for _, f := range []projections.UserFilter{
			{Limit: -1}, {Limit: projections.MaxLimit + 1}, {Status: "gone"}, {Query: "a\x00"}, {Query: "\xff"}, {Role: "\xff"},
			{Query: strings.Repeat("a", 10_000)},
		} {
			if _, err := q.List(t.Context(), f); !errors.Is(err, projections.ErrBadFilter) {
				t.Errorf("List(%+v) = %v, want %v", f, err, projections.ErrBadFilter)
			}
		}
	})
}

func TestCursors(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		_, q := seeded(t, s)
		f := projections.UserFilter{Limit: 2}
		page, err := q.List(t.Context(), f)
		if err != nil || page.NextCursor == "" {
			t.Fatalf("List() = %+v, %v, want a next page", page, err)
		}
		c := page.NextCursor
		f.Cursor = c
		if page, err := q.List(t.Context(), f); err != nil || len(page.Items) != 2 {
			t.Errorf("second page = %+v, %v", page, err)
		}
		changed := []byte(c)
		changed[10] ^= 1
		for name, text := range map[string]string{
			"changed": string(changed), "cut": c[:len(c)-1], "longer": c + "A", "garbage": "garbage!", "new line": c[:8] + "\n" + c[8:],
			"of another alphabet": strings.Repeat("+", len(c)), "not text": "\xff\x00",
		} {
			f.Cursor = text
			if _, err := q.List(t.Context(), f); !errors.Is(err, projections.ErrBadCursor) {
				t.Errorf("%s cursor: %v, want %v", name, err, projections.ErrBadCursor)
			}
		}
		if _, err := q.List(t.Context(), projections.UserFilter{Limit: 2, Query: "a", Cursor: c}); !errors.Is(err, projections.ErrBadCursor) {
			t.Errorf("cursor of another filter: %v, want %v", err, projections.ErrBadCursor)
		}
		if _, err := q.List(t.Context(), projections.UserFilter{Limit: 5, Cursor: c}); err != nil {
			t.Errorf("cursor with another limit: %v, want it to go on", err)
		}
		elsewhere := projections.Users{DB: s.db, CursorKey: []byte("another key")}
		if _, err := elsewhere.List(t.Context(), projections.UserFilter{Limit: 2, Cursor: c}); !errors.Is(err, projections.ErrBadCursor) {
			t.Errorf("cursor of another deployment: %v, want %v", err, projections.ErrBadCursor)
		}
	})
}

// Whoever is there from the first page to the last appears exactly once, while others come, change and go.
func TestPagesUnderConcurrentWrites(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		for range 150 {
			s.register(t)
		}
		there := slices.Clone(s.users)
		start(t, s.runner())
		s.await(t)
		q := projections.Users{DB: s.db, CursorKey: cursorKey}
		seen := map[uuid.UUID]int{}
		for f := (projections.UserFilter{Limit: 20}); ; {
			page, err := q.List(t.Context(), f)
			if err != nil {
				t.Fatal(err)
			}
			for _, u := range page.Items {
				seen[u.ID]++
			}
			if f.Cursor = page.NextCursor; f.Cursor == "" {
				break
			}
			s.register(t)
			s.append(t, there[s.random.IntN(100)], renamed(fmt.Sprint(len(seen))))
			gone := 100 + s.random.IntN(len(there)-100)
			s.append(t, there[gone], identity.NewEvent(identity.Erased{}))
			there = slices.Delete(there, gone, gone+1)
			s.await(t)
		}
		for _, id := range there {
			if seen[id] != 1 {
				t.Errorf("user %s appears %d times, want once", id, seen[id])
			}
		}
	})
}

// Queries read the live generation, whichever it is, also while it is exchanged.
func TestQueriesWhileAGenerationIsExchanged(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		ids, q := seeded(t, s)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		reading := make(chan error, 1)
		go func() {
			for ctx.Err() == nil {
				if page, err := q.List(t.Context(), projections.UserFilter{}); err != nil || len(page.Items) != len(ids) {
					reading <- fmt.Errorf("%d users, %w", len(page.Items), err)
					return
				}
			}
			reading <- nil
		}()
		for generation := 2; generation < 12; generation++ {
			err := s.db.Transact(t.Context(), func(tx eventstore.DB) error {
				for _, statement := range []string{
					fmt.Sprintf("CREATE TABLE users_%d AS SELECT * FROM users_%d", generation, generation-1),
					"DROP VIEW users_live",
					fmt.Sprintf("CREATE VIEW users_live AS SELECT * FROM users_%d", generation),
				} {
					if _, err := tx.Exec(t.Context(), statement); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		cancel()
		if err := <-reading; err != nil {
			t.Error(err)
		}
	})
}
