package server

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/labstack/echo/v5"

	"usher.example/identity"
)

// A panic is a problem like others, and is logged with the request's id.
func TestPanic(t *testing.T) {
	t.Parallel()
	var logged strings.Builder
	s := New(Config{Logger: slog.New(slog.NewTextHandler(&logged, nil))})
	s.Routes(Surface{}).GET("/panic", Open, func(*Call) (Answer, error) { panic("out of order") })
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest("GET", "/panic", nil))
	var p Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != 500 || p.Code != "internal" || strings.Contains(w.Body.String(), "out of order") {
		t.Errorf("%v: %d %s", err, w.Code, w.Body)
	}
	if out := logged.String(); !strings.Contains(out, "out of order") || !strings.Contains(out, p.RequestID) {
		t.Errorf("the log lacks the panic: %s", out)
	}
}

// Each surface explains errors that it alone knows, and tells of every one in its own way; what is of none is a problem.
func TestSurfacesTellTheirErrors(t *testing.T) {
	t.Parallel()
	s := New(Config{})
	full := errors.New("no seat is free")
	theatre := s.Routes(Surface{
		Explain: func(err error) (identity.Code, string) {
			if errors.Is(err, full) {
				return identity.CodeConflict, "come tomorrow"
			}
			return "", ""
		},
		Tell: func(c *echo.Context, f Failure) error {
			return c.String(f.Status, "theatre: "+string(f.Code)+" "+f.Detail)
		},
	})
	theatre.POST("/seats", Open, func(*Call) (Answer, error) { return Answer{}, full })
	theatre.POST("/panic", Open, func(*Call) (Answer, error) { panic("fire") })
	s.Routes(Surface{}).GET("/seats", Open, func(*Call) (Answer, error) { return Answer{}, full })
	for _, c := range []struct {
		method, path string
		status       int
		has          string
	}{
		{"POST", "/seats", 409, "theatre: conflict come tomorrow"},
		{"POST", "/panic", 500, "theatre: internal "},
		{"GET", "/seats", 500, `"code":"internal"`}, // of a surface that does not know it
		{"GET", "/nowhere", 404, `"code":"not_found"`},
		{"PUT", "/seats", 405, `"code":"method_not_allowed"`},
	} {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest(c.method, c.path, nil))
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.has) {
			t.Errorf("%s %s: %d %s, want %d with %s", c.method, c.path, w.Code, w.Body, c.status, c.has)
		}
	}
}

func FuzzIdempotencyKey(f *testing.F) {
	for _, seed := range []string{"", "k", "a b", "\x00", "ä", strings.Repeat("x", 256), "k\n", "!~"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, key string) {
		if !printable.MatchString(key) {
			return
		}
		if len(key) > 255 || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) {
			t.Errorf("%q is taken", key)
		}
		one, other := identity.CommandID("a", key), identity.CommandID("b", key)
		if one == other || one == identity.CommandID("a", key+"x") {
			t.Errorf("%q: the command id does not tell scope and key apart", key)
		}
	})
}
