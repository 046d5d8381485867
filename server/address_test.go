package server

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/uuid"
)

func mustProxies(tb testing.TB, list ...string) []netip.Prefix {
	tb.Helper()
	proxies, err := ParseProxies(list)
	if err != nil {
		tb.Fatal(err)
	}
	return proxies
}

func TestClientAddress(t *testing.T) {
	t.Parallel()
	trusted := mustProxies(t, "10.0.0.0/8", "192.0.2.9", "2001:db8:ffff::/48")
	for name, c := range map[string]struct {
		peer  string
		xff   []string
		other []string // other headers, names and values
		want  string
	}{
		"no header":                    {peer: "198.51.100.1:1234", want: "198.51.100.1"},
		"no header from a proxy":       {peer: "10.1.2.3:1234", want: "10.1.2.3"},
		"spoofed by a client":          {peer: "198.51.100.1:1234", xff: []string{"203.0.113.7"}, want: "198.51.100.1"},
		"from a proxy":                 {peer: "10.1.2.3:1234", xff: []string{"203.0.113.7"}, want: "203.0.113.7"},
		"from a single proxy":          {peer: "192.0.2.9:1234", xff: []string{"203.0.113.7"}, want: "203.0.113.7"},
		"its neighbour":                {peer: "192.0.2.10:1234", xff: []string{"203.0.113.7"}, want: "192.0.2.10"},
		"through two proxies":          {peer: "10.1.2.3:1234", xff: []string{"203.0.113.7, 10.9.9.9"}, want: "203.0.113.7"},
		"two headers":                  {peer: "10.1.2.3:1234", xff: []string{"203.0.113.7", "10.9.9.9"}, want: "203.0.113.7"},
		"spoofed before a proxy":       {peer: "10.1.2.3:1234", xff: []string{"1.1.1.1, 203.0.113.7"}, want: "203.0.113.7"},
		"spoofed in a header before":   {peer: "10.1.2.3:1234", xff: []string{"1.1.1.1", "203.0.113.7"}, want: "203.0.113.7"},
		"spoofed with a proxy":         {peer: "10.1.2.3:1234", xff: []string{"1.1.1.1, 10.4.4.4, 203.0.113.7, 10.5.5.5"}, want: "203.0.113.7"},
		"proxies alone":                {peer: "10.1.2.3:1234", xff: []string{"10.2.2.2,10.3.3.3"}, want: "10.2.2.2"},
		"nobody, behind a proxy":       {peer: "10.1.2.3:1234", xff: []string{"203.0.113.7, unknown"}, want: "10.1.2.3"},
		"nobody, behind two":           {peer: "10.1.2.3:1234", xff: []string{"203.0.113.7, unknown, 10.9.9.9"}, want: "10.9.9.9"},
		"an empty element":             {peer: "10.1.2.3:1234", xff: []string{"203.0.113.7,"}, want: "10.1.2.3"},
		"an empty header":              {peer: "10.1.2.3:1234", xff: []string{""}, want: "10.1.2.3"},
		"with a port":                  {peer: "10.1.2.3:1234", xff: []string{"203.0.113.7:4711"}, want: "203.0.113.7"},
		"IPv6":                         {peer: "[2001:db8:ffff::1]:1234", xff: []string{"2001:DB8::7"}, want: "2001:db8::7"},
		"IPv6 with a port":             {peer: "10.1.2.3:1234", xff: []string{"[2001:db8::7]:4711"}, want: "2001:db8::7"},
		"IPv6 in brackets":             {peer: "10.1.2.3:1234", xff: []string{"[2001:db8::7]"}, want: "2001:db8::7"},
		"half a bracket":               {peer: "10.1.2.3:1234", xff: []string{"[2001:db8::7"}, want: "10.1.2.3"},
		"IPv4 as IPv6":                 {peer: "[::ffff:10.1.2.3]:1234", xff: []string{"::ffff:203.0.113.7"}, want: "203.0.113.7"},
		"a zone":                       {peer: "[fe80::1%eth0]:1234", want: "fe80::1"},
		"no address":                   {peer: "@", xff: []string{"203.0.113.7"}, want: ""},
		"other headers are not looked": {peer: "10.1.2.3:1234", other: []string{"X-Real-Ip", "1.1.1.1", "Forwarded", "for=1.1.1.1", "Cf-Connecting-Ip", "1.1.1.1", "True-Client-Ip", "1.1.1.1"}, want: "10.1.2.3"},
	} {
		r := &http.Request{RemoteAddr: c.peer, Header: http.Header{"X-Forwarded-For": c.xff}}
		for i := 0; i < len(c.other); i += 2 {
			r.Header.Set(c.other[i], c.other[i+1])
		}
		p := &proxies{trusted: trusted, logger: slog.New(slog.DiscardHandler)}
		if got := p.client(r); got != c.want {
			t.Errorf("%s: client of %s with %q = %q, want %q", name, c.peer, c.xff, got, c.want)
		}
	}
}

// An operator who forgot TRUSTED_PROXIES is told, once.
func TestUnknownProxyIsLogged(t *testing.T) {
	t.Parallel()
	for peer, want := range map[string]int{"10.1.2.3:1": 1, "127.0.0.1:1": 1, "198.51.100.1:1": 0} {
		var logged strings.Builder
		p := &proxies{logger: slog.New(slog.NewTextHandler(&logged, nil))}
		for range 3 {
			p.client(&http.Request{RemoteAddr: peer, Header: http.Header{"X-Forwarded-For": {"203.0.113.7"}}})
		}
		if got := strings.Count(logged.String(), "TRUSTED_PROXIES"); got != want || strings.Contains(logged.String(), "203.0.113.7") {
			t.Errorf("%s: logged %q, want it %d times and without an address", peer, &logged, want)
		}
	}
}

// Ids of requests and traces go into the log for good, so they are taken from trusted proxies alone.
func TestIDsOfStrangers(t *testing.T) {
	t.Parallel()
	const id, parent = "01980000-0000-7000-8000-00000000000a", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	s := New(Config{TrustedProxies: mustProxies(t, "10.0.0.0/8")})
	for peer, believed := range map[string]bool{"10.1.2.3:1": true, "[::ffff:10.1.2.3]:1": true, "127.0.0.1:1": false, "198.51.100.1:1": false, "@": false} {
		r := httptest.NewRequest("GET", "/livez", nil)
		r.RemoteAddr = peer
		r.Header.Set("X-Request-Id", strings.ToUpper(id))
		r.Header.Set("Traceparent", parent)
		r.Header.Set("Tracestate", "a=b")
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if got := w.Header().Get("X-Request-Id"); (got == id) != believed || uuid.Validate(got) != nil {
			t.Errorf("from %s: X-Request-Id is %s", peer, got)
		}
		if got := r.Header.Get("Traceparent"); (got == parent) != believed || (r.Header.Get("Tracestate") != "") != believed {
			t.Errorf("from %s: Traceparent is %q", peer, got)
		}
	}
}

func TestParseProxies(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "10.0.0.0/33", "10.0.0.0/", "example.org", "::ffff:10.0.0.0/104", "10.0.0.0-10.0.0.9", "10.1"} {
		if p, err := ParseProxies([]string{"127.0.0.1", bad}); err == nil {
			t.Errorf("ParseProxies(%q) = %v, want an error", bad, p)
		}
	}
	if p := mustProxies(t, "10.1.2.3/8", "::1"); p[0].String() != "10.0.0.0/8" || p[1].String() != "::1/128" {
		t.Errorf("ParseProxies = %v", p)
	}
}

// Whatever stands before the address that a trusted proxy added changes nothing.
func FuzzClientAddress(f *testing.F) {
	trusted := mustProxies(f, "10.0.0.0/8", "2001:db8:ffff::/48")
	f.Add("203.0.113.7", "10.1.2.3:80")
	f.Add("10.0.0.1,\t[2001:db8::1]:80,::ffff:10.0.0.1", "[2001:db8:ffff::1]:1")
	f.Add(",,", "198.51.100.1:1")
	f.Fuzz(func(t *testing.T, sent, peer string) {
		p := &proxies{trusted: trusted, logger: slog.New(slog.DiscardHandler)}
		client := func(peer string, headers ...string) string {
			return p.client(&http.Request{RemoteAddr: peer, Header: http.Header{"X-Forwarded-For": headers}})
		}
		got := client(peer, sent)
		if got != "" {
			if a, err := netip.ParseAddr(got); err != nil || a.String() != got || a.Is4In6() || a.Zone() != "" {
				t.Errorf("client of %q with %q = %q, want an address in its own form", peer, sent, got)
			}
		}
		if from, err := netip.ParseAddrPort(peer); err == nil && !p.trusts(plain(from.Addr())) && got != plain(from.Addr()).String() {
			t.Errorf("client of %q with %q = %q, and the peer is no proxy", peer, sent, got)
		}
		for _, headers := range [][]string{{sent + ", 203.0.113.7"}, {sent, "203.0.113.7"}, {sent, "203.0.113.7,10.2.2.2"}, {sent + ",203.0.113.7", "10.2.2.2"}} {
			if got := client("10.1.2.3:80", headers...); got != "203.0.113.7" {
				t.Errorf("client with %q = %q, want 203.0.113.7", headers, got)
			}
		}
	})
}

// What a request is counted as.
func TestNetworkOfARequest(t *testing.T) {
	t.Parallel()
	p := &proxies{trusted: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, logger: slog.New(slog.DiscardHandler)}
	for _, c := range []struct{ peer, forwarded, want string }{
		{"203.0.113.7:1", "", "203.0.113.7"},
		{"203.0.113.7:1", "198.51.100.1", "203.0.113.7"}, // anybody may say that
		{"10.0.0.1:1", "198.51.100.1", "198.51.100.1"},
		{"127.0.0.1:1", "", "127.0.0.1"},
		{"127.0.0.1:1", "198.51.100.1", "198.51.100.1 by 127.0.0.1"},
		{"192.168.1.1:1", "192.0.2.1, 198.51.100.1", "198.51.100.1 by 192.168.1.1"},
		{"[fd00::1]:1", "2001:db8:1:2::5", "2001:db8:1:2::/64 by fd00::/64"},
		{"192.168.1.1:1", "nonsense", "192.168.1.1"},
		{"nonsense", "198.51.100.1", ""},
	} {
		r := &http.Request{RemoteAddr: c.peer, Header: http.Header{}}
		if c.forwarded != "" {
			r.Header.Set("X-Forwarded-For", c.forwarded)
		}
		if got := p.network(r); got != c.want {
			t.Errorf("peer %s for %q: %q, want %q", c.peer, c.forwarded, got, c.want)
		}
	}
}
