package webhook

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"usher.example/identity"
)

// guard decides which addresses may be connected to. Whoever may make a webhook would otherwise have this process look
// into its own network for them (server-side request forgery). A name is no protection, because whoever owns it decides
// what it resolves to, and when: so addresses are checked as they are dialled.
type guard struct{ allow []netip.Prefix }

// special are the networks that are not of the public Internet, from the IANA special-purpose registries: this machine,
// private and link-local networks, among them the metadata services of clouds, shared and benchmark address space,
// documentation, multicast and what is reserved. Of IPv6 only global unicast (2000::/3) is public at all.
var special = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
	"192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
	"2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
)

var (
	globalUnicast = netip.MustParsePrefix("2000::/3")
	nat64         = netip.MustParsePrefix("64:ff9b::/96") // RFC 6052: an IPv4 address in its last four bytes
)

func prefixes(texts ...string) []netip.Prefix {
	list := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		list[i] = netip.MustParsePrefix(text)
	}
	return list
}

// errAddress: an address must not be connected to.
var errAddress = errors.New("the address is not one of the public Internet")

// errPlain: an address must not be connected to without TLS.
var errPlain = errors.New("http is for hosts in WEBHOOK_ALLOW; use https")

// check fails with errAddress or errPlain, unless the address may be connected to. plain says that it is without TLS.
func (g guard) check(addr netip.Addr, plain bool) error {
	addr = embedded(addr)
	for _, p := range g.allow {
		if p.Contains(addr) {
			return nil
		}
	}
	switch {
	case !public(addr):
		return fmt.Errorf("%s: %w; WEBHOOK_ALLOW makes exceptions", addr, errAddress)
	case plain:
		return fmt.Errorf("%s: %w", addr, errPlain)
	}
	return nil
}

// embedded is the IPv4 address that an IPv6 address stands for, or the address itself.
func embedded(addr netip.Addr) netip.Addr {
	addr = addr.Unmap()
	if addr.Is6() && nat64.Contains(addr.WithZone("")) {
		raw := addr.As16()
		return netip.AddrFrom4([4]byte(raw[12:]))
	}
	return addr
}

func public(addr netip.Addr) bool {
	if !addr.IsValid() || addr.Zone() != "" || addr.Is6() && !globalUnicast.Contains(addr) {
		return false
	}
	for _, p := range special {
		if p.Contains(addr) {
			return false
		}
	}
	return true
}

// control refuses a connection just before it is made, when the address is known and can't change any more. It is a
// net.Dialer's Control.
func (g guard) control(plain bool) func(network, address string, _ syscall.RawConn) error {
	return func(_, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("%w: %w", errAddress, err)
		}
		return g.check(at.Addr(), plain)
	}
}

const (
	maxURL = 2048
	// lookupTime bounds the look at what a new webhook's name resolves to.
	lookupTime = 3 * time.Second
)

// parseURL reads an endpoint's URL: http or https, a host, no credentials and no fragment. It fails with ErrInvalidURL.
func parseURL(text string) (*url.URL, error) {
	if len(text) > maxURL {
		return nil, refuse(identity.CodeInvalidURL, "the URL is longer than %d bytes", maxURL)
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, refuse(identity.CodeInvalidURL, "that is not a URL")
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, refuse(identity.CodeInvalidURL, "the URL has to begin with https://")
	case u.Opaque != "" || u.Hostname() == "" || strings.ContainsAny(u.Host, "*% "):
		return nil, refuse(identity.CodeInvalidURL, "the URL has no host")
	case u.User != nil:
		return nil, refuse(identity.CodeInvalidURL, "the URL must not have credentials; deliveries are signed")
	case u.Fragment != "" || strings.Contains(text, "#"):
		return nil, refuse(identity.CodeInvalidURL, "the URL must not have a fragment")
	}
	if port, err := strconv.Atoi(u.Port()); u.Port() != "" && (err != nil || port < 1 || port > 65535) || strings.HasSuffix(u.Host, ":") {
		return nil, refuse(identity.CodeInvalidURL, "the URL's port is not one")
	}
	return u, nil
}

// checkURL reads an endpoint's URL and looks where it leads, so that a mistake is told to whoever makes it. It fails with
// ErrInvalidURL. What counts in the end is what control finds.
func (g guard) checkURL(ctx context.Context, text string) (string, error) {
	u, err := parseURL(text)
	if err != nil {
		return "", err
	}
	plain := u.Scheme == "http"
	addrs := []netip.Addr{}
	if addr, err := netip.ParseAddr(u.Hostname()); err == nil {
		addrs = append(addrs, addr)
	} else {
		ctx, cancel := context.WithTimeout(ctx, lookupTime)
		defer cancel()
		// A name that is not known here may be where the worker runs, or in a moment.
		addrs, err = net.DefaultResolver.LookupNetIP(ctx, "ip", u.Hostname())
		if err != nil && plain {
			return "", refuse(identity.CodeInvalidURL, "the host is not known, and http is for hosts in WEBHOOK_ALLOW; use https")
		}
	}
	for _, addr := range addrs {
		if err := g.check(addr, plain); err != nil {
			return "", refuse(identity.CodeInvalidURL, "the URL leads to %v", err)
		}
	}
	return u.String(), nil
}
