package server

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/labstack/echo/v5"
)

// TestPage asks for a route that a browser gets something else of.
func TestPage(t *testing.T) {
	t.Parallel()
	s := New(Config{})
	s.Routes(Surface{}).GET("/", Open, func(*Call) (Answer, error) { return OK(map[string]string{}), nil })
	page := s.Routes(Surface{Tell: func(c *echo.Context, f Failure) error { return c.HTML(f.Status, f.Title) }})
	page.Elsewhere()
	page.Page("/", func(*Call) (Answer, error) { return Answer{}, Refuse("invalid_request", "to see who tells of it") })
	for _, test := range []struct {
		path, accept string
		status       int
		contentType  string
	}{
		{"/", "text/html,*/*;q=0.8", http.StatusBadRequest, "text/html; charset=UTF-8"},
		{"/", "", http.StatusOK, "application/json"},
		{"/nothing", "", http.StatusNotFound, "text/html; charset=UTF-8"},
		{"/livez", "text/html", http.StatusOK, "application/json"},
	} {
		w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, test.path, nil)
		r.Header.Set("Accept", test.accept)
		s.ServeHTTP(w, r)
		if w.Code != test.status || w.Header().Get("Content-Type") != test.contentType {
			t.Errorf("%s, accepting %q: %d %s, want %d %s", test.path, test.accept, w.Code, w.Header().Get("Content-Type"), test.status, test.contentType)
		}
		if vary := w.Header().Get("Vary"); test.path == "/" && vary != "Accept" {
			t.Errorf("Vary is %q", vary)
		}
	}
}
