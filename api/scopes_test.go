package api

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"usher.example/client"
	"usher.example/identity"
	"usher.example/token"
)

// rightsOf is what each role may, as the document says it.
var rightsOf = map[string][]string{
	"":                    {"account:read", "account:write"},
	"writer":              {"account:read", "account:write"},
	identity.RoleAuditor:  {"account:read", "account:write", "users:read", "events:read", "operate:read"},
	identity.RoleOperator: {"account:read", "account:write", "events:read", "operate:read", "operate:write"},
	identity.RoleAdmin:    client.Scopes,
}

// bearer is a token, and what whoever has it may.
type bearer struct {
	name string
	raw  string
	may  func(scope string) bool
	code identity.Code // of a refusal, where it is one and the same
}

// only are the scopes that a token has, of which its user's or its client's rights allow some.
func only(scopes, rights []string) func(string) bool {
	return func(scope string) bool { return slices.Contains(scopes, scope) && slices.Contains(rights, scope) }
}

func none(string) bool { return false }

// bearers makes tokens of every kind: of users of each role, by the login and by clients of others with each scope; of clients for
// themselves with each scope; keys; and some for others than usher.
func (s *stack) bearers() (list []bearer) {
	t := s.tb
	t.Helper()
	issue := func(g token.Grant) string {
		t.Helper()
		raw, _, err := s.server.Issuer.Issue(g)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	add := func(settings identity.ClientSettings) client.Client {
		t.Helper()
		c, _, _, err := s.server.Clients.Add(t.Context(), settings, uuid.Nil, byOperator())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	app := identity.ClientSettings{Name: "app", RedirectURIs: []string{"https://app.example/cb"}, Scopes: append([]string{"openid"}, client.ServiceScopes...)}
	third, ours := add(app), app
	ours.Name, ours.FirstParty, ours.Scopes = "ours", true, append([]string{"openid"}, client.Scopes...)
	first := add(ours)
	service := add(identity.ClientSettings{Name: "service", Scopes: client.ServiceScopes})

	for role, rights := range rightsOf {
		email := "of-" + cmp.Or(role, "nobody") + "@example.org"
		var roles []string
		if role != "" {
			roles = []string{role}
		}
		u, _, err := s.identity.CreateUser(t.Context(), identity.NewUser{Email: email, Password: secret, Roles: roles})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.identity.GiveConsent(t.Context(), u.ID, third.ID.String(), append([]string{"openid"}, client.Scopes...), byOperator()); err != nil {
			t.Fatal(err)
		}
		access := s.tokens(email).access
		claims, _, err := s.server.Verify(t.Context(), access)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, bearer{name: "a login with the role " + role, raw: access, may: only(client.Scopes, rights)})
		grant := func(of client.Client, scopes ...string) string {
			return issue(token.Grant{Subject: u.ID.String(), Session: claims.Session, Client: of.ID.String(), Roles: roles, Scopes: scopes})
		}
		list = append(list, bearer{name: "openid alone, by a user with the role " + role, raw: grant(third, "openid"), may: none})
		if role != identity.RoleAdmin && role != identity.RoleAuditor {
			continue
		}
		for _, scope := range client.Scopes {
			// An account is for first-party clients, whatever the token says.
			list = append(list,
				bearer{name: fmt.Sprintf("%s, by the app of others and %s", scope, role), raw: grant(third, scope), may: only([]string{scope}, within(rights, client.ServiceScopes))},
				bearer{name: fmt.Sprintf("%s, by our app and %s", scope, role), raw: grant(first, scope), may: only([]string{scope}, rights)})
		}
		if role == identity.RoleAdmin {
			list = append(list, bearer{
				name: "for another audience", may: none, code: identity.CodeUnauthenticated,
				raw: issue(token.Grant{Subject: u.ID.String(), Session: claims.Session, Roles: roles, Audience: []string{"shop"}}),
			})
		}
	}
	own := func(scopes ...string) string {
		return issue(token.Grant{Subject: service.ID.String(), Client: service.ID.String(), Scopes: scopes})
	}
	for _, scope := range client.Scopes {
		list = append(list, bearer{name: scope + ", by a service for itself", raw: own(scope), may: only([]string{scope}, client.ServiceScopes)})
	}
	for _, scope := range client.ServiceScopes {
		_, key, _, _, err := s.server.Clients.AddKey(t.Context(), service.ID, []string{scope}, time.Time{}, byOperator(), nil)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, bearer{name: "a key with " + scope, raw: string(key), may: only([]string{scope}, client.ServiceScopes)})
	}
	gone := issue(token.Grant{Subject: uuid.NewString(), Client: uuid.NewString(), Scopes: client.ServiceScopes})
	return append(list,
		bearer{name: "no scope at all", raw: own(), may: none},
		bearer{name: "a client that is not there", raw: gone, may: none, code: identity.CodeUnauthenticated},
		bearer{name: "a key that was mistyped", raw: client.KeyPrefix + strings.Repeat("a", 36), may: none, code: identity.CodeUnauthenticated},
		bearer{name: "a service that has the id of a client as its user", raw: issue(token.Grant{Subject: service.ID.String(), Scopes: client.Scopes}), may: none, code: identity.CodeUnauthenticated},
	)
}

func within(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return !slices.Contains(b, s) })
}

// Every call of the document by every kind of token: who has the scope that it names, and the role, gets as far as what is wrong with
// the request, which is all that is wrong with it; everybody else is refused, and told by what.
func TestASVS_8_2_1_EveryCallByEveryToken(t *testing.T) {
	t.Parallel()
	s := newStack(t, openSQLite(t), options{})
	bearers := s.bearers()
	const nonsense = `{"nonsense":true}` // which every call that reads a body refuses
	replace := strings.NewReplacer("{id}", uuid.NewString(), "{role}", "writer", "{name}", "nonesuch", "{delivery}", uuid.NewString(), "{credential}", uuid.NewString(), "{client}", uuid.NewString())
	before := s.head()
	for path, item := range loadDocument(t).doc.Paths.Map() {
		for method, o := range item.Operations() {
			if strings.HasPrefix(path, "/oauth2/") {
				continue // OAuth's own, whose errors are in another form
			}
			scope, _ := o.Extensions["x-scope"].(string)
			if len(*o.Security) != 1 {
				continue // for anybody, or for whoever has something else to show as well
			}
			if _, bearer := (*o.Security)[0]["bearer"]; bearer != (scope != "") {
				t.Errorf("%s %s has the scope %q and takes a token: %v", method, path, scope, bearer)
			}
			if scope == "" {
				continue
			}
			if !slices.Contains(client.Scopes, scope) {
				t.Errorf("%s %s: the scope %q is none", method, path, scope)
			}
			target, body := replace.Replace(path), nonsense
			if method == http.MethodGet {
				target, body = target+"?nonsense=true", ""
			}
			for _, b := range bearers {
				a := s.call(method, target, body, "Authorization", "Bearer "+b.raw)
				code := identity.Code(a.field(t, "code"))
				allowed := a.status != http.StatusUnauthorized && a.status != http.StatusForbidden
				if allowed != b.may(scope) || a.status < 400 && method != http.MethodGet || a.status >= 500 {
					t.Errorf("%s %s (%s) by %s: %d %s", method, path, scope, b.name, a.status, a.body)
				}
				if b.code != "" && code != b.code {
					t.Errorf("%s %s by %s: %s, want %s", method, path, b.name, code, b.code)
				}
				if challenge := a.header.Get("WWW-Authenticate"); code == "insufficient_scope" && !strings.Contains(challenge, `error="insufficient_scope", scope="`+scope+`"`) {
					t.Errorf("%s %s by %s: the challenge is %q", method, path, b.name, challenge)
				}
			}
		}
	}
	if s.head() != before {
		t.Errorf("%v happened", s.typesAfter(before))
	}
}
