package identity

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"usher.example/eventstore"
)

// transitions are the arrows of a state diagram: from which state to which, by which event, and for which reasons.
type transitions map[arrow][]string

type arrow struct{ from, to, event string }

// nowhere is where a diagram begins and ends.
const nowhere = "[*]"

func (t transitions) add(from, to, event, reason string) {
	a := arrow{from, to, event}
	if reasons := t[a]; reason == "" || !slices.Contains(reasons, reason) {
		t[a] = append(reasons, reason)
	}
}

// mermaid is the diagram as text. order says how its states follow each other.
func (t transitions) mermaid(order ...string) string {
	arrows := slices.SortedFunc(maps.Keys(t), func(a, b arrow) int {
		return slices.Compare(a.rank(order), b.rank(order))
	})
	var b strings.Builder
	b.WriteString("stateDiagram-v2\n")
	for _, a := range arrows {
		reasons := slices.Sorted(slices.Values(t[a]))
		label := a.event
		if label != "" {
			label = ": " + label
		}
		if reasons[0] != "" {
			label += " (" + strings.Join(reasons, ", ") + ")"
		}
		fmt.Fprintf(&b, "    %s --> %s%s\n", a.from, a.to, label)
	}
	return b.String()
}

func (a arrow) rank(order []string) []int {
	rank := []int{slices.Index(order, a.from), slices.Index(order, a.to)}
	for _, c := range a.event {
		rank = append(rank, int(c))
	}
	return rank
}

// wantDiagram holds a diagram against that of the document, which is written anew with: go test ./identity -run Diagram
// -update
func wantDiagram(t *testing.T, title, want string) {
	t.Helper()
	path := filepath.Join("..", "schema", "states.md")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)(## " + title + "\n.*?```mermaid\n)(.*?)(```)")
	found := block.FindSubmatch(raw)
	if found == nil {
		t.Fatalf("%s has no diagram under %q", path, title)
	}
	if *update {
		raw = block.ReplaceAll(raw, []byte("${1}"+want+"${3}"))
		if err := os.WriteFile(path, raw, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(found[2]), want); diff != "" {
		t.Errorf("%s (-document +code):\n%s", path, diff)
	}
}

// userState is the name that a user's state has in the diagram.
func userState(u User) string {
	switch {
	case u.Version == 0:
		return nowhere
	case u.erased:
		return "erased"
	case u.disabled && u.locked:
		return "disabled_and_locked"
	default:
		return string(u.Status)
	}
}

// The states of a user, found by giving every command in every state that is reached.
func TestDiagramOfUsers(t *testing.T) {
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, nil)
		m := eventstore.Metadata{Correlation: uuid.Must(uuid.NewV7()), Actor: ActorOperator}
		type command func(id uuid.UUID) error
		on := func(do func(context.Context, uuid.UUID, eventstore.Metadata) (eventstore.Result, error)) command {
			return func(id uuid.UUID) error {
				_, err := do(t.Context(), id, m)
				return err
			}
		}
		imported := Imported{EmailVerified: true}
		beginnings := map[string]func(email string) uuid.UUID{
			"register": func(email string) uuid.UUID { return mustRegister(t, s, email).ID },
			"import": func(email string) uuid.UUID {
				id := uuid.Must(uuid.NewV7())
				imported.Personal.Email = email
				_, err := s.log.Append(t.Context(), eventstore.Append{
					Stream: eventstore.UserStream(id), Expected: eventstore.NoStream, Events: newEvents([]Payload{imported}), Metadata: m, CreateKey: true,
				})
				if err != nil {
					t.Fatal(err)
				}
				return id
			},
		}
		commands := []command{on(s.LockUser), on(s.UnlockUser), on(s.DisableUser), on(s.EnableUser), on(s.Erase)}

		found := transitions{}
		// follow evolves a user from the log, and notes what changed the user's state after a version.
		follow := func(id uuid.UUID, after int) string {
			events, err := s.log.ReadStream(t.Context(), id, 0, 100)
			if err != nil {
				t.Fatal(err)
			}
			var u User
			for _, e := range events {
				before := userState(u)
				if u, err = evolve(u, e); err != nil {
					t.Fatal(err)
				}
				if e.Version > after && userState(u) != before {
					found.add(before, userState(u), e.Type, "")
				}
			}
			return userState(u)
		}
		number := 0
		// newUser makes a user and gives some of the commands.
		newUser := func(begin string, path []int) uuid.UUID {
			number++
			id := beginnings[begin](fmt.Sprintf("user%d@example.org", number))
			for _, c := range path {
				if err := commands[c](id); err != nil {
					t.Fatal(err)
				}
			}
			return id
		}
		paths := map[string][]int{follow(newUser("import", nil), 0): nil, follow(newUser("register", nil), 0): nil}
		for queue := slices.Collect(maps.Keys(paths)); len(queue) > 0; queue = queue[1:] {
			path := paths[queue[0]]
			for c, do := range commands {
				id := newUser("register", path)
				version, err := s.store.StreamVersion(t.Context(), id)
				if err != nil {
					t.Fatal(err)
				}
				_ = do(id) // what is refused changes nothing
				to := follow(id, version)
				if _, known := paths[to]; !known {
					paths[to] = append(slices.Clone(path), c)
					queue = append(queue, to)
				}
			}
		}
		found.add("erased", nowhere, "", "")
		wantDiagram(t, "Users", found.mermaid(nowhere, "active", "locked", "disabled", "disabled_and_locked", "erased"))
	})
}

// The states of a session, found by ending one in every way.
func TestDiagramOfSessions(t *testing.T) {
	onBoth(t, func(t *testing.T, d *database) {
		found := transitions{}
		m := eventstore.Metadata{Correlation: uuid.Must(uuid.NewV7())}
		end := func(reason string) func(*Service, *clock, LoginResult) error {
			return func(s *Service, _ *clock, r LoginResult) error {
				_, err := s.EndSession(t.Context(), r.User.ID, r.Session, reason, m)
				return err
			}
		}
		on := func(do func(*Service) func(context.Context, uuid.UUID, eventstore.Metadata) (eventstore.Result, error)) func(*Service, *clock, LoginResult) error {
			return func(s *Service, _ *clock, r LoginResult) error {
				_, err := do(s)(t.Context(), r.User.ID, m)
				return err
			}
		}
		follow := func(s *Service, session uuid.UUID) (state string) {
			events, err := s.log.ReadStream(t.Context(), session, 0, 100)
			if err != nil {
				t.Fatal(err)
			}
			state = nowhere
			for _, e := range events {
				payload, err := DecodeAny(e)
				if err != nil {
					t.Fatal(err)
				}
				next, reason := state, ""
				switch p := payload.(type) {
				case SessionStarted, SessionGranted:
					next = "active"
				case SessionReuseDetected:
					next = "reused"
				case SessionEnded:
					next, reason = "ended", p.Reason
				}
				found.add(state, next, e.Type, reason)
				state = next
			}
			return state
		}
		type erase = func(context.Context, uuid.UUID, eventstore.Metadata) (eventstore.Result, error)
		for i, way := range []func(*Service, *clock, LoginResult) error{
			end(EndedLogout), end(EndedRevoked),
			on(func(s *Service) erase { return s.LockUser }), on(func(s *Service) erase { return s.DisableUser }), on(func(s *Service) erase { return s.Erase }),
			func(s *Service, at *clock, _ LoginResult) error {
				at.add(8 * 24 * time.Hour)
				_, err := s.ExpireSessions(t.Context())
				return err
			},
			func(s *Service, _ *clock, r LoginResult) error {
				mustRefresh(t, s, mustRefresh(t, s, r.Refresh).Refresh)
				wantRefused(t, s, "a token two back", r.Refresh)
				return nil
			},
			func(s *Service, _ *clock, r LoginResult) error {
				code, _, err := s.NewCode(t.Context(), r.User.ID, PurposeReset)
				if err == nil {
					_, err = s.ResetPassword(t.Context(), code, other, uuid.Nil, m)
				}
				return err
			},
		} {
			at := &clock{now: time.Now()}
			s := d.service(t, func(c *Config) { c.Now, c.CodeKey = at.Now, []byte("a key") })
			email := fmt.Sprintf("user%d@example.org", i)
			mustRegister(t, s, email)
			r, err := s.Login(t.Context(), Credentials{Email: email, Password: secret})
			if err != nil {
				t.Fatal(err)
			}
			grant, _ := mustGrant(t, s, r, shopGrant(r))
			if err := way(s, at, r); err != nil {
				t.Fatal(err)
			}
			for what, session := range map[string]uuid.UUID{"session": r.Session, "grant under it": grant} {
				if state := follow(s, session); state != "ended" {
					t.Errorf("way %d: the %s is %s", i, what, state)
				}
			}
		}
		found.add("ended", nowhere, "", "")
		wantDiagram(t, "Sessions", found.mermaid(nowhere, "active", "reused", "ended"))
	})
}
