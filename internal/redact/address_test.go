package redact

import (
	"net/netip"
	"testing"
)

// atlas knows a few addresses.
type atlas struct {
	calls   int
	answers map[string]string
}

func (a *atlas) Country(ip netip.Addr) string { a.calls++; return a.answers[ip.String()] }

func newAtlas() *atlas {
	return &atlas{answers: map[string]string{"8.8.8.8": "US", "9.9.9.9": "CH", "2a00:1450::1": "IE", "1.1.1.1": "au", "5.5.5.5": "DEU", "192.168.1.1": "AU", "192.0.2.1": "AU"}}
}

func TestClientCountry(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"v4", "8.8.8.8", "US"},
		{"spaces", " 8.8.8.8\t", "US"},
		{"port", "8.8.8.8:51234", "US"},
		{"bracketed v4", "[8.8.8.8]:1", "US"},
		{"v6", "2a00:1450::1", "IE"},
		{"v6 port", "[2a00:1450::1]:51234", "IE"},
		{"v6 brackets", "[2a00:1450::1]", "IE"},
		{"v6 zone", "2a00:1450::1%eth0", "IE"},
		{"v6 zone and port", "[2a00:1450::1%eth0]:80", "IE"},
		{"mapped", "::ffff:8.8.8.8", "US"},
		{"mapped, port", "[::ffff:808:808]:80", "US"},
		{"quoted", `"[2a00:1450::1]:80"`, "IE"},
		{"for=", `for="[2a00:1450::1]:80"`, "IE"},
		{"forwarded", `for=8.8.8.8;proto=https;by=10.0.0.1`, "US"},
		{"forwarded, other order", `Proto=https; For=8.8.8.8`, "US"},
		{"chain", "8.8.8.8, 9.9.9.9", "US"},
		{"chain, private first", "10.0.0.1, 192.168.1.1,9.9.9.9, 8.8.8.8", "CH"},
		{"chain, unknown first", "unknown, 9.9.9.9", "CH"},
		{"chain, quotes", `for="8.8.8.8:1", for=9.9.9.9`, "US"},
		{"chain, private only", "10.0.0.1, 127.0.0.1", "ZZ"},
		{"chain with nonsense", "8.8.8.8, nonsense", "ZZ"},
		{"chain with nothing", "8.8.8.8, ", "ZZ"},
		{"private", "192.168.1.1", "ZZ"},
		{"documentation", "192.0.2.1", "ZZ"},
		{"carrier", "100.64.0.1", "ZZ"},
		{"loopback", "::1", "ZZ"},
		{"not in the database", "7.7.7.7", "ZZ"},
		{"lower-case answer", "1.1.1.1", "ZZ"},
		{"long answer", "5.5.5.5", "ZZ"},
		{"nonsense", "localhost", "ZZ"},
		{"bad port", "8.8.8.8:http", "ZZ"},
		{"open bracket", "[2a00:1450::1", "ZZ"},
		{"zone without address", "%eth0", "ZZ"},
		{"unknown", "unknown", "ZZ"},
		{"socket", "@", "ZZ"},
	} {
		t.Run(c.name, func(t *testing.T) {
			db := newAtlas()
			got := (&countries{db}).client(c.in)
			if got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if c.want == "ZZ" && db.calls > 1 {
				t.Errorf("%d look-ups", db.calls)
			}
		})
	}
}

func TestReservedNeverReachesTheDatabase(t *testing.T) {
	for _, s := range []string{
		"0.0.0.0", "10.1.2.3", "100.127.255.255", "127.0.0.1", "169.254.1.1", "172.16.0.1", "192.0.0.1", "192.0.2.255", "192.88.99.1", "192.168.1.1",
		"198.18.0.1", "198.51.100.1", "203.0.113.7", "224.0.0.1", "240.0.0.1", "255.255.255.255",
		"::", "::1", "fe80::1", "fc00::1", "fd12::1", "ff02::1", "2001:db8::1", "64:ff9b::808:808", "100::1", "3fff::1", "::ffff:10.0.0.1",
	} {
		db := newAtlas()
		if got := (&countries{db}).of(netip.MustParseAddr(s)); got != "ZZ" || db.calls != 0 {
			t.Errorf("%s: %s after %d look-ups, want ZZ and none", s, got, db.calls)
		}
	}
}
