package server

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

func TestReadinessIsKept(t *testing.T) {
	t.Parallel()
	var runs atomic.Int32
	now := time.Now()
	s := New(Config{Now: func() time.Time { return now }, Checks: []Check{{Name: "x", Run: func(context.Context) error {
		runs.Add(1)
		return nil
	}}}})
	ask := func() {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest("GET", "/readyz", nil))
		if w.Code != http.StatusOK {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
	for range 100 {
		ask()
	}
	if runs.Load() != 1 {
		t.Errorf("%d checks, want 1", runs.Load())
	}
	now = now.Add(readyFor)
	ask()
	if runs.Load() != 2 {
		t.Errorf("%d checks a second later, want 2", runs.Load())
	}
}
