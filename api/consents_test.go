package api

import (
	"encoding/json"
	"net/http"
	"net/url"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"usher.example/client"
	"usher.example/eventstore"
	"usher.example/identity"
	"usher.example/internal/devstack"
	"usher.example/token"
)

const ownConsents = "/v1/me/consents"

// app registers a client that users let in, and answers with what issues its tokens for one of them.
func (s *stack) app(settings identity.ClientSettings) (c client.Client, tokenOf func(user uuid.UUID, access string) string) {
	s.tb.Helper()
	c, _, _, err := s.server.Clients.Add(s.tb.Context(), settings, uuid.Nil, byOperator())
	if err != nil {
		s.tb.Fatal(err)
	}
	return c, func(user uuid.UUID, access string) string {
		s.tb.Helper()
		claims, _, err := s.server.Verify(s.tb.Context(), access)
		if err != nil {
			s.tb.Fatal(err)
		}
		raw, _, err := s.server.Issuer.Issue(token.Grant{Subject: user.String(), Session: claims.Session, Client: c.ID.String(), Scopes: []string{client.ScopeEventsRead}})
		if err != nil {
			s.tb.Fatal(err)
		}
		return raw
	}
}

func (s *stack) consent(user uuid.UUID, client string, scopes ...string) {
	s.tb.Helper()
	m := eventstore.Metadata{Correlation: uuid.New(), Actor: identity.ActorUser(user)}
	if _, err := s.identity.GiveConsent(s.tb.Context(), user, client, scopes, m); err != nil {
		s.tb.Fatal(err)
	}
}

// listed is what GET /v1/me/consents lists: names, and the scopes of each.
func (s *stack) listed(access string) map[string][]string {
	s.tb.Helper()
	a := s.want(s.as(access, "GET", ownConsents, ""), http.StatusOK, "")
	var page struct{ Items []client.Consent }
	if err := json.Unmarshal([]byte(a.body), &page); err != nil {
		s.tb.Fatal(err)
	}
	found := map[string][]string{}
	for _, c := range page.Items {
		found[c.Name] = c.Scopes
	}
	return found
}

// A client of others is refused at once, and everywhere, once the user has withdrawn the consent, and its tokens of before stay refused
// when there is another. Our own clients need none.
func TestConsents(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, db, options{document: true})
		service := s.client("service")
		ada := s.user("ada@example.org", identity.RoleGranted{Role: identity.RoleAdmin})
		settings := identity.ClientSettings{Name: "shop", RedirectURIs: []string{"https://shop.example/cb"}, Scopes: []string{"openid", client.ScopeEventsRead}}
		shop, shops := s.app(settings)
		settings.Name, settings.FirstParty = "desk", true
		_, desks := s.app(settings)
		access := s.login("ada@example.org")
		const call = "/v1/events?limit=1"
		old := shops(ada, access)

		s.want(s.as(old, "GET", call, ""), http.StatusUnauthorized, identity.CodeUnauthenticated)
		service.wantInactive("without a consent", "token", old)
		s.want(s.as(desks(ada, access), "GET", call, ""), http.StatusOK, "")

		s.consent(ada, shop.ID.String(), "openid", client.ScopeEventsRead)
		s.consent(ada, uuid.NewString(), "openid") // to a client that is not there
		s.want(s.as(old, "GET", call, ""), http.StatusOK, "")
		service.wantActive("with a consent", "token", old)
		want := map[string][]string{"shop": {client.ScopeEventsRead, "openid"}}
		if diff := cmp.Diff(want, s.listed(access)); diff != "" {
			t.Errorf("consents (-want +got):\n%s", diff)
		}

		path, head := ownConsents+"/"+shop.ID.String(), s.head()
		s.want(s.as(access, "DELETE", path, ""), http.StatusNoContent, "")
		s.want(s.as(access, "DELETE", path, ""), http.StatusNoContent, "")
		if diff := cmp.Diff([]string{identity.TypeUserConsentWithdrawn}, s.typesAfter(head)); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		s.want(s.as(old, "GET", call, ""), http.StatusUnauthorized, identity.CodeUnauthenticated)
		service.wantInactive("after a withdrawal", "token", old)
		if diff := cmp.Diff(map[string][]string{}, s.listed(access)); diff != "" {
			t.Errorf("consents after a withdrawal (-want +got):\n%s", diff)
		}

		s.consent(ada, shop.ID.String(), "openid")
		s.want(s.as(old, "GET", call, ""), http.StatusUnauthorized, identity.CodeUnauthenticated)
		service.wantInactive("of before another consent", "token", old)
		later := s.login("ada@example.org")
		renewed := shops(ada, later)
		s.want(s.as(renewed, "GET", call, ""), http.StatusOK, "")
		s.want(s.as(access, "GET", "/v1/me", ""), http.StatusOK, "") // a login is none of it

		s.append(ada, identity.ConsentWithdrawn{Client: shop.ID.String()}) // by another process
		devstack.Eventually(t, "the token is refused", func() bool { return s.as(renewed, "GET", call, "").status == http.StatusUnauthorized })

		s.consent(ada, shop.ID.String(), "openid")
		if _, err := s.server.Clients.Remove(t.Context(), shop.ID, byOperator(), nil); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[string][]string{}, s.listed(access)); diff != "" {
			t.Errorf("consents to a client that was removed (-want +got):\n%s", diff)
		}

		// An id can be an address.
		const agent = "https://agent.example/client.json?v=1"
		s.consent(ada, agent, "openid")
		head = s.head()
		s.want(s.as(access, "DELETE", ownConsents+"/"+url.PathEscape(agent), ""), http.StatusNoContent, "")
		if diff := cmp.Diff([]string{identity.TypeUserConsentWithdrawn}, s.typesAfter(head)); diff != "" {
			t.Errorf("events of a client with an address (-want +got):\n%s", diff)
		}
	})
}
