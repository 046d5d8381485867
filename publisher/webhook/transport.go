package webhook

import (
	"net"
	"net/http"
	"net/netip"
	"time"
)

const (
	maxHeader   = 16 << 10
	keepAlive   = 90 * time.Second
	idlePerHost = parallel
	idleAll     = 4 * parallel
)

// transport makes requests to where somebody else's settings lead. It follows no redirect, uses no proxy, keeps no cookies, which is
// what is left of a http.Client's work, and connects only where the guard lets it. Connections are kept for a while; they were checked
// when they were made.
type transport struct{ secure, plain *http.Transport }

// Transport makes requests to where somebody else's settings lead, as those of webhooks do, and no webhooks: only to addresses of the
// public Internet, by TLS, and to networks that are allowed, as Config.Allow is.
func Transport(allow []netip.Prefix) http.RoundTripper { return newTransport(guard{allow}) }

func newTransport(g guard) transport {
	return transport{secure: guarded(g, false), plain: guarded(g, true)}
}

func guarded(g guard, plain bool) *http.Transport {
	dialer := &net.Dialer{Control: g.control(plain)}
	return &http.Transport{
		DialContext:            dialer.DialContext,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // a small answer that unpacks to a large one
		MaxResponseHeaderBytes: maxHeader,
		MaxIdleConns:           idleAll,
		MaxIdleConnsPerHost:    idlePerHost,
		IdleConnTimeout:        keepAlive,
	}
}

// RoundTrip is that of a http.RoundTripper.
func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme == "http" {
		return t.plain.RoundTrip(r)
	}
	return t.secure.RoundTrip(r)
}
