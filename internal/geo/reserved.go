package geo

import "net/netip"

// reserved4 lists what IANA's registry of special-purpose IPv4 addresses does
// not make globally reachable, with multicast and the ranges of old protocols.
// They are found by the first byte: most addresses share theirs with none.
var reserved4 = byFirstByte(prefixes(
	"0.0.0.0/8",       // this network
	"10.0.0.0/8",      // private
	"100.64.0.0/10",   // carrier-grade NAT
	"127.0.0.0/8",     // loopback
	"169.254.0.0/16",  // link-local
	"172.16.0.0/12",   // private
	"192.0.0.0/24",    // protocol assignments
	"192.0.2.0/24",    // documentation
	"192.31.196.0/24", // AS112, answers everywhere
	"192.52.193.0/24", // AMT relays
	"192.88.99.0/24",  // 6to4 relays
	"192.168.0.0/16",  // private
	"192.175.48.0/24", // AS112
	"198.18.0.0/15",   // benchmarks
	"198.51.100.0/24", // documentation
	"203.0.113.0/24",  // documentation
	"224.0.0.0/4",     // multicast
	"240.0.0.0/4",     // future use and broadcast
))

func byFirstByte(ps []netip.Prefix) (table [256][]netip.Prefix) {
	for first := range table {
		octet := netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(first)}), 8)
		for _, p := range ps {
			if p.Overlaps(octet) {
				table[first] = append(table[first], p)
			}
		}
	}
	return table
}

// reserved6 does the same inside 2000::/3, the only range of IPv6 that is given
// out: loopback, link-local, unique local and multicast addresses lie outside.
var reserved6 = prefixes(
	"2001::/23",         // protocol assignments: benchmarks, ORCHID and others
	"2001:db8::/32",     // documentation
	"2620:4f:8000::/48", // AS112
	"3fff::/20",         // documentation
)

var (
	global6 = netip.MustParsePrefix("2000::/3")
	nat64   = netip.MustParsePrefix("64:ff9b::/96")
	teredo  = netip.MustParsePrefix("2001::/32")
	sixTo4  = netip.MustParsePrefix("2002::/16")
)

func prefixes(texts ...string) []netip.Prefix {
	ps := make([]netip.Prefix, len(texts))
	for i, t := range texts {
		ps[i] = netip.MustParsePrefix(t)
	}
	return ps
}

// public returns the address to look up, without a zone; ok is false where
// there is none. An IPv6 address that carries an IPv4 address of its user
// (mapped, NAT64, 6to4, Teredo) stands for that one.
func public(a netip.Addr) (_ netip.Addr, ok bool) {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		b := a.As16()
		switch {
		case nat64.Contains(a):
			a = netip.AddrFrom4([4]byte(b[12:]))
		case sixTo4.Contains(a):
			a = netip.AddrFrom4([4]byte(b[2:6]))
		case teredo.Contains(a):
			a = netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]})
		default:
			return a, global6.Contains(a) && !within(a, reserved6)
		}
	}
	return a, a.IsValid() && !within(a, reserved4[a.As4()[0]])
}

func within(a netip.Addr, ps []netip.Prefix) bool {
	for _, p := range ps {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
