package projections

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/eventstore/postgres"
	"usher.example/eventstore/sqlite"
	"usher.example/identity"
	"usher.example/internal/devstack"
	"usher.example/schema"
)

func TestGramsAndPrefixes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text            string
		grams, prefixes []string
	}{
		{"", nil, nil},
		{"a", nil, []string{"a"}},
		{"ab", nil, []string{"a", "ab"}},
		{"abc", []string{"abc|"}, []string{"a", "ab"}},
		{"abcd", []string{"abc|d", "bcd|"}, []string{"a", "ab"}},
		{"é✓😀xyz", []string{"é✓😀|xy", "✓😀x|yz", "😀xy|z", "xyz|"}, []string{"é", "é✓"}},
	} {
		var g, p []string
		grams(c.text, func(s gram) { g = append(g, string(s.text[:])+"|"+string(s.after)) })
		prefixes(c.text, func(s string) { p = append(p, s) })
		if diff := cmp.Diff([][]string{c.grams, c.prefixes}, [][]string{g, p}); diff != "" {
			t.Errorf("%q (-want +got):\n%s", c.text, diff)
		}
	}
}

// Whoever a filter lets through has all the terms that the filter is looked up by.
func FuzzTermsOfWhoeverMatches(f *testing.F) {
	f.Add("Ada@Example.org", "Ada Lovelace", 2, 5, true)
	f.Add("x@y.z", "İstanbul ﬁ ǅ", 0, 3, false)
	f.Add("é@example.org", "\u0130\u0307", 1, 1, true)
	f.Fuzz(func(t *testing.T, email, name string, from, length int, ofName bool) {
		if !utf8.ValidString(email) || !utf8.ValidString(name) {
			return // no user has such
		}
		u := userRow{UserView: UserView{Email: email, Name: name, Roles: []string{"admin"}, Status: identity.StatusLocked, EmailVerified: true}}
		key := searchKey(email)
		if ofName {
			key = searchKey(name)
		}
		runes := []rune(key)
		from, length = min(max(from, 0), len(runes)), min(max(length, 0), 200)
		part := string(runes[from:min(from+length, len(runes))])
		if searchKey(part) != part || isShort(part) && from > 0 {
			return // not what the query would be, or not how short ones match
		}
		yes := true
		has := termsOf(&u)
		lacks := func(wanted int32) bool { return !slices.Contains(has, wanted) }
		all, one := UserFilter{Query: part, Role: "admin", Status: identity.StatusLocked, EmailVerified: &yes}.terms()
		if slices.ContainsFunc(all, lacks) || one != nil && len(slices.DeleteFunc(one, lacks)) == 0 {
			t.Fatalf("%q of %q and %q: a term is missing", part, email, name)
		}
	})
}

// planned is a database whose tables of users are to hold many.
type planned interface {
	eventstore.DB
	Close()
}

// plans fills the tables of users and answers with what tells the plan of a statement, a line a step.
func plans(t *testing.T, db planned, explain string) func(t *testing.T, s statement) string {
	t.Helper()
	const users = 50_000
	exec := func(statement string) {
		t.Helper()
		if _, err := db.Exec(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	rows := make([]userRow, users)
	for i := range rows {
		id := uuid.Must(uuid.NewV7())
		rows[i] = userRow{firstPosition: int64(i + 1), UserView: UserView{
			ID: id, Email: fmt.Sprintf("%s%d@example.org", id.String()[28:], i), Name: "User " + id.String()[30:], Status: identity.StatusActive,
			Attributes: noAttributes, CreatedAt: time.Unix(1_700_000_000+int64(i), 0).UTC(), UpdatedAt: time.Unix(1_700_000_000, 0).UTC(),
			Version: 1, Position: int64(i + 1),
		}}
	}
	model := Generation{Dialect: db.Dialect(), Number: 1}
	if err := model.Create(t.Context(), db, UserProjection{}); err != nil {
		t.Fatal(err)
	}
	err := db.Transact(t.Context(), func(tx eventstore.DB) error {
		return loadRows(context.WithoutCancel(t.Context()), tx, model.Table(UsersName), userColumns, rows)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(model.Index(t.Context(), db, UserProjection{}), model.Show(t.Context(), db, UserProjection{})); err != nil {
		t.Fatal(err)
	}
	if db.Dialect() == eventstore.Postgres {
		exec("ANALYZE readmodels.users_1")
	}
	return func(t *testing.T, s statement) string {
		t.Helper()
		answer, err := db.Query(t.Context(), explain+s.sql, s.args...)
		if err != nil {
			t.Fatalf("%s: %v", s.sql, err)
		}
		defer answer.Close()
		var text strings.Builder
		for answer.Next() {
			var line string
			dest := []any{&line}
			if db.Dialect() == eventstore.SQLite {
				dest = []any{new(int), new(int), new(int), &line}
			}
			if err := answer.Scan(dest...); err != nil {
				t.Fatal(err)
			}
			text.WriteString(line + "\n")
		}
		if err := answer.Err(); err != nil {
			t.Fatal(err)
		}
		return text.String()
	}
}

// The two statements of a search read the index that they are made for, and nothing from one end to the other, on the
// first page and on later ones.
func TestSearchPlans(t *testing.T) {
	t.Parallel()
	no, newest := false, time.Unix(1_700_049_999, 0)
	filters := map[string]UserFilter{
		"query": {Query: "9f3"}, "long query": {Query: "somebody@example.org"}, "short query": {Query: "zq"}, "role": {Role: "admin"},
		"status": {Status: identity.StatusLocked}, "verified": {EmailVerified: &no},
		"all of them": {Query: "9f3", Role: "admin", Status: identity.StatusLocked, EmailVerified: &no, CreatedAfter: time.Unix(1_600_000_000, 0)},
	}
	cursors := map[string]cursor{"first": {}, "later": {time.Unix(1_700_020_000, 0).UTC(), uuid.Must(uuid.NewV7())}}
	check := func(t *testing.T, d eventstore.Dialect, explain func(*testing.T, statement) string, near, far, never string) {
		t.Helper()
		want := func(name, plan, has string) {
			t.Helper()
			if !strings.Contains(plan, has) || strings.Contains(plan, never) {
				t.Errorf("%s: the plan lacks %q or has %q:\n%s", name, has, never, plan)
			}
		}
		for page, at := range cursors {
			want(page+" page of all", explain(t, UserFilter{Limit: 50}.walk(d, at)), near)
			for name, f := range filters {
				f.Limit = 50
				want(page+" page by "+name+", near", explain(t, f.walk(d, at)), near)
				if name != "verified" { // as nearly everybody here is: reading them all is right
					want(page+" page by "+name+", all", explain(t, f.lookUp(d, at, time.Time{}, newest, 0)), far)
					want(page+" page by "+name+", all but a crowd", explain(t, f.lookUp(d, at, time.Time{}, newest, crowd)), far)
					want(page+" page by "+name+", a stretch", explain(t, f.lookUp(d, at, newest.Add(-time.Hour), newest, crowd)), far)
				}
			}
		}
	}
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		dsn := devstack.Database(t, "usher", func(ctx context.Context, dsn string) error {
			m, err := schema.Postgres(dsn)
			if err != nil {
				return err
			}
			_, err = m.Up(ctx)
			return errors.Join(err, m.Close())
		})
		db, err := postgres.Open(t.Context(), dsn, postgres.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(db.Close)
		check(t, eventstore.Postgres, plans(t, db, "EXPLAIN "), "Index Scan Backward using users_1_created", "Bitmap Index Scan on users_1_terms", "Seq Scan")
	})
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "usher.db")
		m, err := schema.SQLite(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Up(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		db, err := sqlite.Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(db.Close)
		check(t, eventstore.SQLite, plans(t, db, "EXPLAIN QUERY PLAN "), "users_1 USING INDEX users_1_created", "SCAN user_terms_1 VIRTUAL TABLE INDEX", "SCAN users_1\n")
	})
}
