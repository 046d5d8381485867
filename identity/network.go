package identity

import (
	"net/netip"

	"usher.example/eventstore"
)

// networkOf is the network that something comes from.
func networkOf(m eventstore.Metadata) string {
	if m.Network != "" {
		return m.Network
	}
	return Network(m.Address)
}

// Network is what counts as one client: an IPv4 address, or the /64 that an IPv6 address is in, because whoever has one
// of those has all of it. It is "" for what is no address.
func Network(address string) string {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return ""
	}
	if a = a.Unmap(); a.Is4() {
		return a.String()
	}
	p, err := a.WithZone("").Prefix(64)
	if err != nil { // only for more bits than an address has
		panic(err)
	}
	return p.String()
}

// site is what may belong to one client, although it counts as many: the networks that hosts are commonly given at once, a /48 of
// IPv6 (RFC 6177), which has 65,536 of them, and a /24 of IPv4. It is "" for what is no address.
func site(address string) string {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return ""
	}
	bits := 48
	if a = a.Unmap(); a.Is4() {
		bits = 24
	}
	p, err := a.WithZone("").Prefix(bits)
	if err != nil { // only for more bits than an address has
		panic(err)
	}
	return p.String()
}
