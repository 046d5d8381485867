package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity"
	"usher.example/internal/devstack"
	"usher.example/server"
)

var feedScenarios = []scenario{
	{name: "feed", path: "/v1/events?limit=2", as: "admin", status: 200, has: []string{`"position":1`, `"position":2`, `"type":"user.registered"`, `"subject":"{admin}"`, `"next_cursor":"2"`},
		lacks: []string{`"position":3`, secret, "hash"}, answered: []string{"Cache-Control", "no-store"}},
	{name: "feed, after", path: "/v1/events?after=1&limit=1", as: "admin", status: 200, has: []string{`"position":2`, `"next_cursor":"2"`}, lacks: []string{`"position":1,`, `"position":3`}},
	{name: "feed, after by its other name", path: "/v1/events?cursor=1&limit=1", as: "admin", status: 200, has: []string{`"position":2`}},
	{name: "feed, a type", path: "/v1/events?type=user.locked&limit=1000", as: "admin", status: 200, has: []string{`"subject":"{locked}"`}, lacks: []string{"user.registered"}},
	{name: "feed, types", path: "/v1/events?type=session.*&limit=1000", as: "admin", status: 200, has: []string{"session.started"}, lacks: []string{`"type":"user.`}},
	{name: "feed, a type that there is none of", path: "/v1/events?type=user.promoted", as: "admin", status: 200, has: []string{`"items":[]`}, lacks: []string{`"next_cursor":"0"`}},
	{name: "feed at a position", path: "/v1/events?limit=1", as: "admin", headers: []string{"Usher-Min-Position", "{head}"}, status: 200},
	{name: "feed, for users", path: "/v1/events", as: "ada", status: 403, code: identity.CodeForbidden, lacks: []string{"items"}},
	{name: "feed, for nobody", path: "/v1/events", status: 401, code: identity.CodeUnauthenticated},
	{name: "feed, past the end", path: "/v1/events?after=99999999", as: "admin", status: 400, code: server.CodeInvalidPosition, has: []string{"the log is at"}},
	{name: "feed, both names", path: "/v1/events?after=1&cursor=1", as: "admin", status: 400, code: identity.CodeInvalidRequest},
	{name: "feed, no position", path: "/v1/events?after=x", as: "admin", status: 400, code: server.CodeInvalidPosition},
	{name: "feed, empty position", path: "/v1/events?after=", as: "admin", status: 400, code: server.CodeInvalidPosition},
	{name: "feed, negative position", path: "/v1/events?after=-1", as: "admin", status: 400, code: server.CodeInvalidPosition},
	{name: "feed, no type", path: "/v1/events?type=user", as: "admin", status: 400, code: identity.CodeInvalidRequest},
	{name: "feed, every type", path: "/v1/events?type=*", as: "admin", status: 400, code: identity.CodeInvalidRequest},
	{name: "feed, long wait", path: "/v1/events?wait=61", as: "admin", status: 400, code: identity.CodeInvalidRequest},
	{name: "feed, negative wait", path: "/v1/events?wait=-1", as: "admin", status: 400, code: identity.CodeInvalidRequest},
	{name: "feed, large page", path: "/v1/events?limit=1001", as: "admin", status: 400, code: identity.CodeInvalidRequest},
}

// admin makes the first administrator and answers with an access token.
func (s *stack) admin() string {
	s.tb.Helper()
	if _, _, err := s.identity.EnsureAdmin(s.tb.Context(), "admin@example.org", secret); err != nil {
		s.tb.Fatal(err)
	}
	return s.login("admin@example.org")
}

type feedPage struct {
	Items []struct {
		Position int64
		Type     string
	}
	NextCursor string `json:"next_cursor"`
}

func (p feedPage) next(t *testing.T) int64 {
	t.Helper()
	n, err := strconv.ParseInt(p.NextCursor, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (s *stack) feed(t *testing.T, access, query string) (p feedPage) {
	t.Helper()
	a := s.as(access, "GET", "/v1/events?"+query, "")
	if a.status != http.StatusOK {
		t.Fatalf("feed %s: %d %s", query, a.status, a.body)
	}
	if err := json.Unmarshal([]byte(a.body), &p); err != nil {
		t.Fatal(err)
	}
	return p
}

// Who follows the feed while others write has every event of the type asked for, once and in order, and never asks in vain
// twice at the same place.
func TestFeedMissesNothing(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, db, options{})
		access := s.admin()
		ids := make([]uuid.UUID, 4)
		for i := range ids {
			ids[i] = s.user(fmt.Sprintf("user%d@example.org", i))
		}
		from := s.head()
		var writers sync.WaitGroup
		for i, id := range ids {
			writers.Go(func() {
				for n := range 60 {
					do := s.identity.LockUser
					if n%2 == 1 {
						do = s.identity.UnlockUser
					}
					if i == 0 {
						do = s.identity.RevokeSessions
					}
					if _, err := do(context.WithoutCancel(t.Context()), id, eventstore.Metadata{Correlation: id}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		written := make(chan struct{})
		go func() { writers.Wait(); close(written) }()
		var got []int64
		for after, last := from, false; ; {
			p := s.feed(t, access, fmt.Sprintf("after=%d&type=user.locked&limit=7&wait=1", after))
			for _, item := range p.Items {
				got = append(got, item.Position)
			}
			next := p.next(t)
			if len(p.Items) > 0 && next < got[len(got)-1] || next < after {
				t.Fatalf("next_cursor %d after %d with %v", next, after, p.Items)
			}
			if next == after && last {
				break
			}
			select {
			case <-written:
				last = true
			default:
			}
			after = next
		}
		var want []int64
		events, err := s.log.ReadAll(t.Context(), from, 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			if e.Type == identity.TypeUserLocked {
				want = append(want, e.Position)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" || len(want) != 90 {
			t.Errorf("%d events, want %d (-want +got):\n%s", len(got), len(want), diff)
		}
	})
}

func TestFeedWaits(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, db, options{document: true})
		access := s.admin()
		ada := s.user("ada@example.org")
		master, _ := eventstore.NewMasterKey()
		elsewhere := eventstore.New(db, master, eventstore.Options{}) // as another process has it
		t.Cleanup(func() {
			if err := elsewhere.Close(context.WithoutCancel(t.Context())); err != nil {
				t.Error(err)
			}
		})
		lockAt := func(log *eventstore.Log, p identity.Payload) {
			t.Helper()
			_, err := log.Append(t.Context(), eventstore.Append{Stream: eventstore.UserStream(ada), Expected: eventstore.AnyVersion, Events: []eventstore.NewEvent{identity.NewEvent(p)}})
			if err != nil {
				t.Error(err)
			}
		}
		for name, c := range map[string]struct {
			log      *eventstore.Log
			unwanted bool // comes first, and does not end the wait
		}{"this process": {s.log, false}, "another process": {elsewhere, false}, "after one that is not wanted": {s.log, true}} {
			after := s.head()
			answered := make(chan feedPage)
			go func() { answered <- s.feed(t, access, fmt.Sprintf("after=%d&type=user.locked&wait=60", after)) }()
			devstack.Eventually(t, "the request waits", func() bool { return s.server.feed.waiting.Load() == 1 })
			if c.unwanted {
				lockAt(c.log, identity.Unlocked{})
			}
			lockAt(c.log, identity.Locked{})
			if p := receive(t, name, answered); len(p.Items) != 1 || p.Items[0].Type != identity.TypeUserLocked || p.next(t) != s.head() {
				t.Errorf("%s: %+v, want the event at %d", name, p, s.head())
			}
		}
		// At the end of the time there is an empty page, and it says how far it looked.
		before := s.head()
		lockAt(s.log, identity.Unlocked{})
		p := s.feed(t, access, fmt.Sprintf("after=%d&type=user.locked&wait=1", before+1))
		if len(p.Items) != 0 || p.next(t) != before+1 {
			t.Errorf("after a wait in vain: %+v, want none and next_cursor %d", p, before+1)
		}
	})
}

// A request that waits ends with the right of whoever sent it: a lock, a logout and the loss of the role count for it too, and
// it tells nothing of what came after.
func TestFeedEndsWithTheRight(t *testing.T) {
	t.Parallel()
	s := newStack(t, openSQLite(t), options{document: true})
	root := s.admin()
	ada := s.user("ada@example.org").String()
	for name, take := range map[string]func(id, access string) answer{
		"lock":       func(id, _ string) answer { return s.as(root, "POST", "/v1/users/"+id+"/lock", "") },
		"logout":     func(_, access string) answer { return s.as(access, "POST", "/v1/auth/logout", "") },
		"revocation": func(id, _ string) answer { return s.as(root, "DELETE", "/v1/users/"+id+"/roles/admin", "") },
	} {
		email := name + "@example.org"
		id := s.user(email).String()
		s.want(s.as(root, "PUT", "/v1/users/"+id+"/roles/admin", ""), http.StatusNoContent, "")
		access, after := s.login(email), s.head()
		answered := make(chan answer)
		go func() {
			answered <- s.as(access, "GET", fmt.Sprintf("/v1/events?after=%d&type=user.profile_updated&wait=60", after), "")
		}()
		devstack.Eventually(t, "the request waits", func() bool { return s.server.feed.waiting.Load() == 1 })
		s.want(take(id, access), http.StatusNoContent, "")
		s.want(s.as(root, "PATCH", "/v1/users/"+ada, body("name", "After the "+name)), http.StatusOK, "")
		a := receive(t, "the poll after a "+name, answered)
		if a.status != http.StatusUnauthorized && a.status != http.StatusForbidden || strings.Contains(a.body, "After the") {
			t.Errorf("after a %s: %d %s", name, a.status, a.body)
		}
	}
}

// So does a read that waits for a position.
func TestReadThatWaitsEndsWithTheRight(t *testing.T) {
	t.Parallel()
	s := newStack(t, openSQLite(t), options{document: true})
	root, _ := s.admin(), s.user("ada@example.org")
	ada := s.login("ada@example.org")
	answered := make(chan answer)
	wanted := fmt.Sprint(s.head())
	go func() { answered <- s.as(ada, "GET", "/v1/me/activity", "", "Usher-Min-Position", wanted) }()
	id := s.as(root, "GET", "/v1/users?email=ada@example.org", "").field(t, "items", "0", "id")
	s.want(s.as(root, "POST", "/v1/users/"+id+"/lock", ""), http.StatusNoContent, "")
	s.project() // which lets the read go on
	s.want(receive(t, "the read after the lock", answered), http.StatusUnauthorized, identity.CodeUnauthenticated)
}

// Requests that wait are bounded, and those beyond are refused at once; a server that stops answers all of them.
func TestFeedBoundsThoseWhoWait(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, db, options{})
		access := s.admin()
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		stop := devstack.Background(t, func(ctx context.Context) error { return s.server.Run(ctx, listener) })
		poll := func(query string) (int, string) {
			r, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+listener.Addr().String()+"/v1/events?"+query, nil)
			if err != nil {
				t.Error(err)
				return 0, ""
			}
			r.Header.Set("Authorization", "Bearer "+access)
			response, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Error(err)
				return 0, ""
			}
			defer response.Body.Close()
			var body strings.Builder
			if err := response.Write(&body); err != nil {
				t.Error(err)
			}
			return response.StatusCode, body.String()
		}
		end := fmt.Sprintf("after=%d", s.head())
		statuses := make(chan int, maxWaiting)
		for range maxWaiting {
			go func() {
				status, _ := poll(end + "&wait=60")
				statuses <- status
			}()
		}
		devstack.Eventually(t, "all of them wait", func() bool { return s.server.feed.waiting.Load() == maxWaiting })
		if status, body := poll(end + "&wait=60"); status != http.StatusServiceUnavailable || !strings.Contains(body, "Retry-After: 1") || !strings.Contains(body, "overloaded") {
			t.Errorf("one more: %d %s, want it refused at once", status, body)
		}
		if status, body := poll(end); status != http.StatusOK {
			t.Errorf("without a wait: %d %s", status, body)
		}
		stop()
		for range maxWaiting {
			if status := <-statuses; status != http.StatusOK {
				t.Errorf("%d at the end of the server, want 200", status)
			}
		}
	})
}

// A filter that matches nothing in a long log is answered after a bounded number of events, with where to go on.
func TestFeedLooksAtABoundedPart(t *testing.T) {
	t.Parallel()
	s := newStack(t, openSQLite(t), options{})
	access := s.admin()
	const more = feedSpan + 500
	for n := 0; n < more; n += eventstore.MaxEvents {
		events := slices.Repeat([]eventstore.NewEvent{identity.NewEvent(identity.KeyRotated{KeyID: "k", Algorithm: "ES256"})}, eventstore.MaxEvents)
		if _, err := s.log.Append(t.Context(), eventstore.Append{Stream: eventstore.SystemStream("keys"), Expected: eventstore.AnyVersion, Events: events}); err != nil {
			t.Fatal(err)
		}
	}
	seen := 0
	for after := int64(0); ; seen++ {
		p := s.feed(t, access, fmt.Sprintf("after=%d&type=user.erased&wait=0", after))
		if p.next(t)-after > feedSpan || len(p.Items) > 0 {
			t.Fatalf("%+v after %d", p, after)
		}
		if after == p.next(t) {
			break
		}
		after = p.next(t)
	}
	if seen < 2 {
		t.Errorf("%d pages to the end", seen)
	}
}
