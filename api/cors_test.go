package api

import (
	"net/http"
	"testing"

	"github.com/google/uuid"

	"usher.example/client"
	"usher.example/identity"
	"usher.example/internal/devstack"
)

// Pages of a client's origins may call as long as it has them, whichever process takes them away, and never with what browsers send by
// themselves.
func TestCORSOfClients(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, db, options{})
		const app = "https://spa.example"
		get := func() http.Header { return s.call("GET", "/v1/me", "", "Origin", app).header }
		preflight := func() http.Header {
			return s.call("OPTIONS", "/v1/me", "", "Origin", app, "Access-Control-Request-Method", "PATCH", "Access-Control-Request-Headers", "authorization").header
		}
		want := func(when string, allowed bool) {
			t.Helper()
			for what, h := range map[string]http.Header{"an answer": get(), "a preflight": preflight()} {
				if got := h.Get("Access-Control-Allow-Origin"); (got == app) != allowed || !allowed && got != "" || h.Values("Vary")[0] != "Origin" || h.Get("Access-Control-Allow-Credentials") != "" {
					t.Errorf("%s, %s: %v", when, what, h)
				}
				if kept := h.Get("Access-Control-Max-Age"); (kept == "600") != (allowed && what == "a preflight") {
					t.Errorf("%s, %s may be kept for %q", when, what, kept)
				}
			}
		}
		want("before there is a client", false)
		c, _, _, err := s.server.Clients.Add(t.Context(), identity.ClientSettings{Name: "spa", Authentication: client.AuthenticationNone, Grants: []string{client.GrantCode},
			RedirectURIs: []string{app + "/cb"}, AllowedOrigins: []string{app}}, uuid.Nil, byOperator())
		if err != nil {
			t.Fatal(err)
		}
		want("with a client", true)
		elsewhere := client.New(client.Config{Log: s.log, DB: db})
		if _, _, err := elsewhere.Change(t.Context(), c.ID, byOperator(), nil, func(s *identity.ClientSettings) { s.AllowedOrigins = nil }); err != nil {
			t.Fatal(err)
		}
		devstack.Eventually(t, "the origin is not the client's any more", func() bool { return get().Get("Access-Control-Allow-Origin") == "" })
		want("once another process took it away", false)
	})
}
