package server

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/labstack/echo/v5"

	"usher.example/identity"
)

// ParseProxies reads networks in CIDR form, or single addresses, of proxies that may say for whom they ask.
func ParseProxies(list []string) ([]netip.Prefix, error) {
	proxies := make([]netip.Prefix, len(list))
	for i, text := range list {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			a, err := netip.ParseAddr(text)
			if err != nil {
				return nil, fmt.Errorf("%q is no network in CIDR form", text)
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		if p.Addr().Is4In6() {
			return nil, fmt.Errorf("%q is an IPv4 network in the form of an IPv6 one", text)
		}
		proxies[i] = p.Masked()
	}
	return proxies, nil
}

// proxies finds out which client a request comes from.
type proxies struct {
	trusted []netip.Prefix
	logger  *slog.Logger
	unknown sync.Once // a proxy that is not trusted was seen
}

func (p *proxies) trusts(a netip.Addr) bool {
	return slices.ContainsFunc(p.trusted, func(n netip.Prefix) bool { return n.Contains(a) })
}

// clean takes the headers out of a request that only a trusted proxy is believed: they go into the log of events for good,
// where nobody else may write what they like.
func (p *proxies) clean(r *http.Request) {
	if peer, err := netip.ParseAddrPort(r.RemoteAddr); err == nil && p.trusts(plain(peer.Addr())) {
		return
	}
	for _, name := range []string{echo.HeaderXRequestID, headerTraceParent, "Tracestate"} {
		delete(r.Header, name)
	}
}

// client is the address of the client that a request comes from: the peer of the connection, or where that is a trusted
// proxy the last in X-Forwarded-For that is none. Each proxy adds the address of whom it got the request from at the end,
// so what stands before the first that can't be trusted may be made up. No other header is looked at. It is "" for a peer
// that has no address.
func (p *proxies) client(r *http.Request) string {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	at := plain(peer.Addr())
	headers := r.Header["X-Forwarded-For"]
	if !p.trusts(at) {
		if len(headers) > 0 && (at.IsLoopback() || at.IsPrivate()) {
			p.unknown.Do(func() {
				p.logger.WarnContext(r.Context(), "requests with X-Forwarded-For come from a private network that TRUSTED_PROXIES does not name; if that is a proxy, name it there, so that the addresses of its clients are recorded and can't be made up")
			})
		}
		return at.String()
	}
	for _, header := range slices.Backward(headers) {
		for rest, more := header, true; more; {
			text := rest
			var cut int
			if cut = strings.LastIndexByte(rest, ','); cut >= 0 {
				rest, text = rest[:cut], rest[cut+1:]
			}
			more = cut >= 0
			hop, ok := parseHop(text)
			if !ok {
				return at.String() // the proxy got it from somebody who has no address
			}
			if at = hop; !p.trusts(at) {
				return at.String()
			}
		}
	}
	return at.String()
}

// network is what the client that a request comes from is counted as, together with others: the network that its address is
// in. A peer in a private network, or on this machine, that says for whom it asks and is no trusted proxy may still be a proxy
// that nobody has named. All of its clients must not count as one, or any of them could keep the others out; so
// they are told apart by what it says, which is never taken for anything else: neither recorded, nor for the network of others.
func (p *proxies) network(r *http.Request) string {
	of := identity.Network(p.client(r))
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	headers := r.Header["X-Forwarded-For"]
	if err != nil || len(headers) == 0 {
		return of
	}
	if at := plain(peer.Addr()); p.trusts(at) || !at.IsLoopback() && !at.IsPrivate() {
		return of
	}
	last := headers[len(headers)-1]
	hop, ok := parseHop(last[strings.LastIndexByte(last, ',')+1:])
	if !ok {
		return of
	}
	return identity.Network(hop.String()) + " by " + of
}

// parseHop reads an element of X-Forwarded-For: an address, which some proxies put into brackets or add a port to.
func parseHop(text string) (netip.Addr, bool) {
	text = strings.Trim(text, " \t")
	if a, err := netip.ParseAddr(text); err == nil {
		return plain(a), true
	}
	if a, err := netip.ParseAddrPort(text); err == nil {
		return plain(a.Addr()), true
	}
	inner, open := strings.CutPrefix(text, "[")
	inner, closed := strings.CutSuffix(inner, "]")
	a, err := netip.ParseAddr(inner)
	return plain(a), err == nil && open && closed
}

// plain is an address without what only this machine knows, and in its own form where it is an IPv4 address in an IPv6 one.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }
