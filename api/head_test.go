package api

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// HEAD is answered as GET is, without the body (RFC 9110, section 9.3.2), everywhere.
func TestHead(t *testing.T) {
	t.Parallel()
	s := newStack(t, openSQLite(t), options{})
	access := s.admin()
	ada := s.user("ada@example.org").String()
	tried := 0
	for _, r := range s.server.Endpoints() {
		if r.Method != http.MethodGet {
			continue
		}
		path := strings.ReplaceAll(r.Path, ":id", ada)
		for _, headers := range [][]string{{"Authorization", "Bearer " + access}, {"Authorization", ""}} {
			get, head := s.call("GET", path, "", headers...), s.call("HEAD", path, "", headers...)
			for _, varies := range []string{"Date", "X-Request-Id", "Content-Length"} {
				get.header.Del(varies)
				head.header.Del(varies)
			}
			if head.status != get.status || head.body != "" {
				t.Errorf("HEAD %s: %d %q, and GET %d", path, head.status, head.body, get.status)
			}
			if diff := cmp.Diff(get.header, head.header); diff != "" {
				t.Errorf("HEAD %s (-GET +HEAD):\n%s", path, diff)
			}
		}
		tried++
	}
	if tried < 20 {
		t.Errorf("%d paths were tried", tried)
	}
}
