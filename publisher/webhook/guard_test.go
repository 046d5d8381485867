package webhook

import (
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
)

func TestGuard(t *testing.T) {
	t.Parallel()
	open, allowing := guard{}, guard{prefixes("10.1.0.0/16", "fd12::/16", "93.184.216.0/24")}
	for _, c := range []struct {
		addr                        string
		tls, plain, allowed, plain2 bool // may be dialled by open with and without TLS, and by allowing with and without
	}{
		{"93.184.215.14", true, false, true, false},
		{"93.184.216.34", true, false, true, true},
		{"2606:2800:220:1::1", true, false, true, false},
		{"10.1.2.3", false, false, true, true},
		{"::ffff:10.1.2.3", false, false, true, true},
		{"64:ff9b::10.1.2.3", false, false, true, true},
		{"fd12::1", false, false, true, true},
		{"64:ff9b::93.184.215.14", true, false, true, false},

		{"127.0.0.1", false, false, false, false},
		{"127.255.255.254", false, false, false, false},
		{"0.0.0.0", false, false, false, false},
		{"10.0.0.1", false, false, false, false},
		{"172.16.0.1", false, false, false, false},
		{"172.31.255.255", false, false, false, false},
		{"192.168.1.1", false, false, false, false},
		{"169.254.169.254", false, false, false, false},
		{"100.64.0.1", false, false, false, false},
		{"192.0.0.1", false, false, false, false},
		{"198.18.0.1", false, false, false, false},
		{"203.0.113.7", false, false, false, false},
		{"224.0.0.1", false, false, false, false},
		{"239.1.2.3", false, false, false, false},
		{"255.255.255.255", false, false, false, false},
		{"::", false, false, false, false},
		{"::1", false, false, false, false},
		{"::127.0.0.1", false, false, false, false},
		{"::ffff:127.0.0.1", false, false, false, false},
		{"::ffff:169.254.169.254", false, false, false, false},
		{"64:ff9b::127.0.0.1", false, false, false, false},
		{"64:ff9b::169.254.169.254", false, false, false, false},
		{"64:ff9b:1::1", false, false, false, false},
		{"fd00:ec2::254", false, false, false, false},
		{"fc00::1", false, false, false, false},
		{"fe80::1", false, false, false, false},
		{"fe80::1%eth0", false, false, false, false},
		{"fec0::1", false, false, false, false},
		{"ff02::1", false, false, false, false},
		{"2001::1", false, false, false, false},
		{"2001:db8::1", false, false, false, false},
		{"2002:7f00:1::", false, false, false, false},
		{"3fff::1", false, false, false, false},
		{"2606:2800::1%eth0", false, false, false, false},
	} {
		addr := netip.MustParseAddr(c.addr)
		got := [4]bool{open.check(addr, false) == nil, open.check(addr, true) == nil, allowing.check(addr, false) == nil, allowing.check(addr, true) == nil}
		if want := [4]bool{c.tls, c.plain, c.allowed, c.plain2}; got != want {
			t.Errorf("%s may be dialled: %v, want %v", addr, got, want)
		}
		err := open.control(false)("tcp", netip.AddrPortFrom(addr, 443).String(), nil)
		if (err == nil) != c.tls || err != nil && !errors.Is(err, errAddress) {
			t.Errorf("control of %s: %v", addr, err)
		}
	}
	if err := open.check(netip.Addr{}, false); !errors.Is(err, errAddress) {
		t.Errorf("no address: %v", err)
	}
	for _, address := range []string{"", "localhost:80", "example.org:443", "127.0.0.1", "[::1]"} {
		if err := open.control(false)("tcp", address, nil); !errors.Is(err, errAddress) {
			t.Errorf("control of %q: %v", address, err)
		}
	}
}

var goodURLs = []string{
	"https://hooks.example.org", "https://hooks.example.org:8443/a/b?c=d&e=%20", "http://10.1.2.3/x", "https://[2606:2800:220:1::1]/", "HTTPS://EXAMPLE.org/%2f",
}

var badURLs = []string{
	"", "hooks.example.org", "//example.org", "ftp://example.org", "file:///etc/passwd", "javascript:alert(1)", "https:", "https://", "https:///path", "https:example.org",
	"https://user:secret@example.org", "https://user@example.org", "https://@example.org/", "https://example.org/#a", "https://example.org#", "https://example.org:0/", "https://example.org:70000/",
	"https://example.org:/", "https://example.org:x/", "https://[::1%25eth0]/", "https://exa mple.org/", "https://example.org/\n", "https://example.org/%zz", "https://*.example.org/",
	"https://example.org/" + strings.Repeat("x", maxURL),
}

func TestParseURL(t *testing.T) {
	t.Parallel()
	for _, text := range goodURLs {
		if _, err := parseURL(text); err != nil {
			t.Errorf("parseURL(%q) = %v", text, err)
		}
	}
	for _, text := range badURLs {
		_, err := parseURL(text)
		if !errors.Is(err, ErrInvalidURL) {
			t.Errorf("parseURL(%.60q) = %v, want ErrInvalidURL", text, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the error shows credentials: %v", err)
		}
	}
}

func TestCheckURL(t *testing.T) {
	t.Parallel()
	g := guard{prefixes("10.1.0.0/16")}
	for text, want := range map[string]string{
		"https://93.184.215.14/x": "", "http://10.1.2.3/x": "", "https://10.1.2.3/x": "",
		"http://93.184.215.14/x":                 "use https",
		"https://127.0.0.1/x":                    "WEBHOOK_ALLOW",
		"https://[::ffff:127.0.0.1]/x":           "WEBHOOK_ALLOW",
		"https://localhost/x":                    "WEBHOOK_ALLOW",
		"http://localhost/x":                     "WEBHOOK_ALLOW",
		"https://169.254.169.254/latest":         "WEBHOOK_ALLOW",
		"http://nowhere.invalid/x":               "use https",
		"https://a.name.not.known.here.invalid/": "",
	} {
		_, err := g.checkURL(t.Context(), text)
		if want == "" && err != nil || want != "" && (!errors.Is(err, ErrInvalidURL) || !strings.Contains(err.Error(), want)) {
			t.Errorf("checkURL(%q) = %v, want %q", text, err, want)
		}
	}
}

// What passes is a URL that net/http sends to the host that was looked at, without credentials.
func FuzzParseURL(f *testing.F) {
	for _, text := range append(goodURLs, badURLs...) {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		u, err := parseURL(text)
		if err != nil {
			if !errors.Is(err, ErrInvalidURL) {
				t.Fatalf("parseURL(%q) = %v, want ErrInvalidURL", text, err)
			}
			return
		}
		again, err := url.Parse(u.String())
		if err != nil {
			t.Fatalf("parseURL(%q) = %s, which is none: %v", text, u, err)
		}
		r, err := http.NewRequest(http.MethodPost, u.String(), nil)
		if err != nil {
			t.Fatalf("parseURL(%q) = %s: %v", text, u, err)
		}
		for _, other := range []*url.URL{again, r.URL} {
			if other.User != nil || other.Fragment != "" || other.Hostname() != u.Hostname() || other.Port() != u.Port() || other.Scheme != u.Scheme || other.Hostname() == "" {
				t.Errorf("parseURL(%q) = %s, read again as %s", text, u, other)
			}
		}
	})
}
