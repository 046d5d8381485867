package server

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"usher.example/identity"
)

func TestParseOrigins(t *testing.T) {
	t.Parallel()
	got, err := ParseOrigins([]string{"https://app.example.org", "HTTPS://App.Example.org:443/", "http://localhost:3000", "http://[::1]:80"})
	if diff := cmp.Diff([]string{"https://app.example.org", "https://app.example.org", "http://localhost:3000", "http://[::1]"}, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	for _, bad := range []string{"", "*", "null", "app.example.org", "https://", "https://app.example.org/x", "https://app.example.org?x", "https://u@app.example.org",
		"https://*.example.org", "ftp://example.org", "https://bücher.example", "file:///x", "https://app.example.org#x", "https://app.example.org:x"} {
		if got, err := ParseOrigins([]string{bad}); err == nil {
			t.Errorf("ParseOrigins(%q) = %q", bad, got)
		}
	}
}

// Pages of the origins that are named may call, and read what they need; those of others may not, nor may anything be kept for one
// that was for another.
func TestCORS(t *testing.T) {
	t.Parallel()
	const app = "https://app.example.org"
	me := func(s *Server) *Server {
		s.Routes(Surface{}).GET("/v1/me", Open, func(*Call) (Answer, error) { return Answer{}, Refuse(identity.CodeUnauthenticated, "") })
		return s
	}
	s := me(New(Config{AllowedOrigins: []string{app, "http://localhost:3000"}}))
	call := func(s *Server, method, path string, headers ...string) http.Header {
		t.Helper()
		r := httptest.NewRequest(method, path, nil)
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if method == http.MethodOptions && w.Code != http.StatusNoContent {
			t.Errorf("%s %s: %d", method, path, w.Code)
		}
		return w.Header()
	}
	for _, origin := range []string{app, "http://localhost:3000"} {
		h := call(s, "OPTIONS", "/v1/me", "Origin", origin, "Access-Control-Request-Method", "PATCH", "Access-Control-Request-Headers", "authorization,content-type,usher-min-position")
		if h.Get("Access-Control-Allow-Origin") != origin || h.Get("Access-Control-Allow-Credentials") != "" || h.Get("Access-Control-Max-Age") == "" {
			t.Errorf("preflight from %s: %v", origin, h)
		}
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"} {
			if !slices.Contains(strings.Split(h.Get("Access-Control-Allow-Methods"), ", "), method) {
				t.Errorf("preflight from %s: no %s among %q", origin, method, h.Get("Access-Control-Allow-Methods"))
			}
		}
		for _, header := range []string{"Authorization", "Content-Type", "Idempotency-Key", "Usher-Min-Position", "Usher-Device"} {
			if !slices.Contains(strings.Split(h.Get("Access-Control-Allow-Headers"), ", "), header) {
				t.Errorf("preflight from %s: no %s among %q", origin, header, h.Get("Access-Control-Allow-Headers"))
			}
		}
		if diff := cmp.Diff([]string{"Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers"}, h.Values("Vary")); diff != "" {
			t.Errorf("Vary of a preflight (-want +got):\n%s", diff)
		}
		for _, path := range []string{"/livez", "/v1/nothing", "/v1/me"} { // an answer, and problems, which a page has to read too
			h := call(s, "GET", path, "Origin", origin)
			if h.Get("Access-Control-Allow-Origin") != origin || h.Get("Vary") != "Origin" || !strings.Contains(h.Get("Access-Control-Expose-Headers"), "Usher-Position, Usher-Device, Retry-After") {
				t.Errorf("GET %s from %s: %v", path, origin, h)
			}
		}
	}
	for _, origin := range []string{"https://evil.example", "https://app.example.org.evil.example", "http://app.example.org", "https://app.example.org:8443", "null", ""} {
		for _, h := range []http.Header{
			call(s, "GET", "/livez", "Origin", origin), call(s, "OPTIONS", "/v1/me", "Origin", origin, "Access-Control-Request-Method", "GET"),
		} {
			if h.Get("Access-Control-Allow-Origin") != "" || h.Get("Access-Control-Allow-Methods") != "" || h.Values("Vary")[0] != "Origin" {
				t.Errorf("from %q: %v", origin, h)
			}
		}
	}
	closed := New(Config{})
	if h := call(closed, "GET", "/livez", "Origin", app); h.Get("Access-Control-Allow-Origin") != "" || h.Get("Vary") != "" {
		t.Errorf("without the setting: %v", h)
	}
}
