package api

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/labstack/echo/v5"
)

// BenchmarkMe is GET /v1/me beside a bare Echo handler that verifies the same token and answers with the same bytes:
// the handler alone, and over connections, where client and server share the processor.
func BenchmarkMe(b *testing.B) {
	s := newStack(b, openSQLite(b), options{})
	id := s.user("ada@example.org")
	access := s.login("ada@example.org")
	u, err := s.identity.User(b.Context(), id)
	if err != nil {
		b.Fatal(err)
	}
	document := u.JSON()
	bare := echo.New()
	bare.GET("/v1/me", func(c *echo.Context) error {
		raw, found := strings.CutPrefix(c.Request().Header.Get("Authorization"), "Bearer ")
		if !found {
			return errors.New("no token")
		}
		if _, err := s.server.Verifier.Verify(raw); err != nil {
			return err
		}
		return c.JSONBlob(http.StatusOK, document)
	})
	for name, h := range map[string]http.Handler{"bare": bare, "usher": s.server} {
		b.Run("handler/"+name, func(b *testing.B) {
			r := httptest.NewRequest("GET", "/v1/me", nil)
			r.Header.Set("Authorization", "Bearer "+access)
			b.ReportAllocs()
			for b.Loop() {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				if w.Code != http.StatusOK {
					b.Fatal(w.Code, w.Body)
				}
			}
		})
		b.Run("connections/"+name, func(b *testing.B) {
			server := httptest.NewServer(h)
			defer server.Close()
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
			b.SetParallelism(32)
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					r, err := http.NewRequest("GET", server.URL+"/v1/me", nil)
					if err != nil {
						b.Error(err)
						return
					}
					r.Header.Set("Authorization", "Bearer "+access)
					response, err := client.Do(r)
					if err != nil {
						b.Error(err)
						return
					}
					if _, err := io.Copy(io.Discard, response.Body); err != nil || response.StatusCode != http.StatusOK {
						b.Error(response.Status, err)
					}
					response.Body.Close()
				}
			})
		})
	}
}
