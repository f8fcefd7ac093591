package geo

import (
	"bytes"
	"context"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// build returns a country file of that type. An empty code makes a record
// without a country.
func build(tb testing.TB, databaseType string, countries map[string]string) []byte {
	tb.Helper()
	w, err := mmdbwriter.New(mmdbwriter.Options{
		DatabaseType:            databaseType,
		IncludeReservedNetworks: true,
		DisableIPv4Aliasing:     true,
		BuildEpoch:              1767225600, // 2026-01-01
	})
	if err != nil {
		tb.Fatal(err)
	}
	depth := func(text string) int { // in the tree, where IPv4 is ::/96
		p := netip.MustParsePrefix(text)
		return p.Bits() + 128 - p.Addr().BitLen()
	}
	wide := func(a, b string) int { return depth(a) - depth(b) } // a later, narrower one overwrites its part
	for _, text := range slices.SortedFunc(maps.Keys(countries), wide) {
		code := countries[text]
		_, network, err := net.ParseCIDR(text)
		if err != nil {
			tb.Fatal(err)
		}
		record := mmdbtype.Map{"continent": mmdbtype.Map{"code": mmdbtype.String("EU")}}
		if code != "" {
			record["country"] = mmdbtype.Map{
				"iso_code": mmdbtype.String(code),
				"names":    mmdbtype.Map{"en": mmdbtype.String("Country " + code)},
			}
		}
		if err := w.Insert(network, record); err != nil {
			tb.Fatal(err)
		}
	}
	var b bytes.Buffer
	if _, err := w.WriteTo(&b); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

// write puts a version of the file in place, as an operator does: by renaming.
// Versions differ in their time, which is minutes after the first.
func write(tb testing.TB, path string, raw []byte, minute int) {
	tb.Helper()
	next := path + ".next"
	if err := os.WriteFile(next, raw, 0o600); err != nil {
		tb.Fatal(err)
	}
	at := time.Date(2026, 1, 1, 0, minute, 0, 0, time.UTC)
	if err := os.Chtimes(next, at, at); err != nil {
		tb.Fatal(err)
	}
	if err := os.Rename(next, path); err != nil {
		tb.Fatal(err)
	}
}

func open(tb testing.TB, raw []byte) (d *DB, path string) {
	tb.Helper()
	path = filepath.Join(tb.TempDir(), "country.mmdb")
	write(tb, path, raw, 0)
	d, err := Open(path)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = d.Close() })
	return d, path
}

// nonsense is a file that knows a country for every address, like the public
// ones that put private networks somewhere.
func nonsense(tb testing.TB) *DB {
	d, _ := open(tb, build(tb, "GeoIP2-Country", map[string]string{
		"2000::/3": "AU", "64:ff9b::/32": "AU", "::/8": "AU", "100::/8": "AU", "4000::/2": "AU", "8000::/1": "AU", "0.0.0.0/1": "DE", "128.0.0.0/1": "FR", "8.8.8.0/24": "US", "2a00::/16": "GB", "9.0.0.0/8": "", "11.0.0.0/8": "x1",
	}))
	return d
}

func TestCountry(t *testing.T) {
	d := nonsense(t)
	for _, c := range []struct{ name, address, want string }{
		{"v4", "8.8.8.8", "US"},
		{"other v4", "93.184.216.34", "DE"},
		{"v6", "2a00:1450::1", "GB"},
		{"other v6", "2606:4700::1", "AU"},
		{"mapped", "::ffff:8.8.8.8", "US"},
		{"mapped in hex", "::ffff:808:808", "US"},
		{"mapped private", "::ffff:192.168.1.1", Unknown},
		{"v6 with a zone", "2a00::1%eth0", "GB"},
		{"mapped with a zone", "::ffff:8.8.8.8%eth0", "US"},
		{"NAT64", "64:ff9b::808:808", "US"},
		{"NAT64 of a private one", "64:ff9b::c0a8:101", Unknown},
		{"NAT64 local", "64:ff9b:1::808:808", Unknown},
		{"6to4", "2002:808:808::1", "US"},
		{"6to4 of a private one", "2002:c0a8:101::1", Unknown},
		{"Teredo", "2001:0:1234:5678::f7f7:f7f7", "US"}, // the client's address inverted
		{"Teredo of a private one", "2001:0:1234:5678::3f57:fefe", Unknown},
		{"record without a country", "9.9.9.9", Unknown},
		{"record with a wrong code", "11.1.1.1", Unknown},
		{"this network", "0.1.2.3", Unknown},
		{"unspecified", "0.0.0.0", Unknown},
		{"private 10", "10.255.255.255", Unknown},
		{"behind private 10", "12.0.0.0", "DE"},
		{"private 172", "172.31.255.255", Unknown},
		{"behind private 172", "172.32.0.0", "FR"},
		{"private 192", "192.168.1.1", Unknown},
		{"carrier-grade NAT", "100.64.0.1", Unknown},
		{"before carrier-grade NAT", "100.63.255.255", "DE"},
		{"loopback", "127.0.0.1", Unknown},
		{"link-local", "169.254.169.254", Unknown},
		{"protocol assignments", "192.0.0.8", Unknown},
		{"documentation 1", "192.0.2.1", Unknown},
		{"documentation 2", "198.51.100.1", Unknown},
		{"documentation 3", "203.0.113.1", Unknown},
		{"6to4 relay", "192.88.99.1", Unknown},
		{"AS112", "192.31.196.1", Unknown},
		{"AMT", "192.52.193.1", Unknown},
		{"AS112 direct", "192.175.48.1", Unknown},
		{"benchmarks", "198.19.255.255", Unknown},
		{"multicast", "239.255.255.250", Unknown},
		{"future", "240.0.0.1", Unknown},
		{"broadcast", "255.255.255.255", Unknown},
		{"v6 unspecified", "::", Unknown},
		{"v6 loopback", "::1", Unknown},
		{"v4-compatible", "::808:808", Unknown},
		{"v6 documentation", "2001:db8::1", Unknown},
		{"v6 documentation, newer", "3fff:fff::1", Unknown},
		{"v6 benchmarks", "2001:2::1", Unknown},
		{"ORCHID", "2001:20::1", Unknown},
		{"v6 AS112", "2620:4f:8000::1", Unknown},
		{"unique local", "fd12::1", Unknown},
		{"v6 link-local", "fe80::1", Unknown},
		{"v6 link-local with a zone", "fe80::1%eth0", Unknown},
		{"site-local", "fec0::1", Unknown},
		{"v6 multicast", "ff02::1", Unknown},
		{"discard", "100::1", Unknown},
		{"segment routing", "5f00::1", Unknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := d.Country(netip.MustParseAddr(c.address)); got != c.want {
				t.Errorf("%s: got %s, want %s", c.address, got, c.want)
			}
		})
	}
	t.Run("no address", func(t *testing.T) {
		if got := d.Country(netip.Addr{}); got != Unknown {
			t.Errorf("got %s", got)
		}
	})
	t.Run("not in the file", func(t *testing.T) {
		d, _ := open(t, build(t, "GeoLite2-Country", map[string]string{"8.8.8.0/24": "US"}))
		if got := d.Country(netip.MustParseAddr("9.9.9.9")); got != Unknown {
			t.Errorf("got %s", got)
		}
	})
	t.Run("closed", func(t *testing.T) {
		d, _ := open(t, build(t, "DBIP-Country-Lite", map[string]string{"8.8.8.0/24": "US"}))
		if got := d.Country(netip.MustParseAddr("8.8.8.8")); got != "US" {
			t.Errorf("got %s before Close", got)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if got := d.Country(netip.MustParseAddr("8.8.8.8")); got != Unknown || !d.Built().IsZero() {
			t.Errorf("got %s after Close", got)
		}
	})
}

func TestCountryDoesNotAllocate(t *testing.T) {
	d := nonsense(t)
	for _, text := range []string{"8.8.8.8", "192.168.1.1", "2a00:1450::1", "fe80::1%eth0"} {
		a := netip.MustParseAddr(text)
		if n := testing.AllocsPerRun(100, func() { d.Country(a) }); n != 0 {
			t.Errorf("%s: got %v allocations", text, n)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	good := build(t, "GeoIP2-Country", map[string]string{"8.8.8.0/24": "US", "2a00::/16": "GB"})
	file := func(name string, raw []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct{ name, path, says string }{
		{"no path", "", "GEOIP_DB is not set"},
		{"no file", filepath.Join(dir, "none.mmdb"), "that is not there"},
		{"a folder", dir, "not a regular file"},
		{"empty", file("empty.mmdb", nil), "not a country file"},
		{"text", file("text.mmdb", []byte("hello")), "not a country file"},
		{"cut off", file("cut.mmdb", good[:len(good)/2]), "not a country file"},
		{"of networks", file("asn.mmdb", build(t, "GeoLite2-ASN", map[string]string{"8.8.8.0/24": "US"})), "not a country file"},
		{"of a foreign shape", file("flat.mmdb", build(t, "ip-location-db geo-whois", map[string]string{"8.8.8.0/24": "US"})), "not a country file"},
		{"without a country", file("none", build(t, "GeoIP2-Country", map[string]string{"8.8.8.0/24": ""})), "names no country"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := Open(c.path)
			if err == nil || d != nil {
				t.Fatal("got a database, want an error")
			}
			if s := err.Error(); !strings.HasPrefix(s, "GEOIP_DB") || !strings.Contains(s, c.says) || strings.Contains(s, "\n") {
				t.Errorf("got %q, want one sentence that names GEOIP_DB and says %q", s, c.says)
			}
		})
	}
}

func TestWatch(t *testing.T) {
	us := build(t, "GeoIP2-Country", map[string]string{"8.8.8.0/24": "US"})
	ca := build(t, "GeoIP2-Country", map[string]string{"8.8.8.0/24": "CA"})
	a := netip.MustParseAddr("8.8.8.8")
	d, path := open(t, us)
	steps := []struct {
		name    string
		change  func()
		reports int
		broken  string // part of the error reported
		want    string
	}{
		{"nothing changed", func() {}, 0, "", "US"},
		{"new version", func() { write(t, path, ca, 1) }, 1, "", "CA"},
		{"nothing changed since", func() {}, 0, "", "CA"},
		{"broken version", func() { write(t, path, us[:100], 2) }, 1, "keep the country file of 2026-01-01: GEOIP_DB", "CA"},
		{"still broken", func() {}, 0, "", "CA"},
		{"wrong type", func() { write(t, path, build(t, "GeoLite2-ASN", map[string]string{"8.8.8.0/24": "US"}), 3) }, 1, "not a country file", "CA"},
		{"gone", func() { _ = os.Remove(path) }, 1, "not there", "CA"},
		{"still gone", func() {}, 0, "", "CA"},
		{"back", func() { write(t, path, us, 4) }, 1, "", "US"},
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		reported := make(chan error, 9)
		drain := func() (errs []error) {
			for len(reported) > 0 {
				errs = append(errs, <-reported)
			}
			return errs
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			d.Watch(ctx, time.Minute, func(err error) { reported <- err })
		}()
		for _, s := range steps {
			s.change()
			time.Sleep(time.Minute) // the bubble's clock
			synctest.Wait()
			reports := drain()
			if len(reports) != s.reports {
				t.Errorf("%s: got reports %v, want %d", s.name, reports, s.reports)
				continue
			}
			if s.reports == 1 {
				err := reports[0]
				if (err != nil) != (s.broken != "") || err != nil && !strings.Contains(err.Error(), s.broken) {
					t.Errorf("%s: got report %v, want %q", s.name, err, s.broken)
				}
			}
			if got := d.Country(a); got != s.want {
				t.Errorf("%s: got %s, want %s", s.name, got, s.want)
			}
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		write(t, path, ca, 5)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := d.Country(a); got != Unknown || len(reported) != 0 {
			t.Errorf("after Close: got %s, %d reports: a closed database was opened again", got, len(reported))
		}
		cancel()
		<-done
	})
}

func TestReadersWhileReplaced(t *testing.T) {
	versions := [][]byte{
		build(t, "GeoIP2-Country", map[string]string{"8.8.8.0/24": "US"}),
		build(t, "GeoIP2-Country", map[string]string{"8.8.8.0/24": "CA", "9.9.9.0/24": "DE"}),
	}
	d, path := open(t, versions[0])
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if got := d.Country(netip.MustParseAddr("8.8.8.8")); got != "US" && got != "CA" {
					t.Errorf("got %s", got)
					return
				}
			}
		})
	}
	w := watcher{db: d, last: d.state.Load().file}
	for i := range 20 {
		write(t, path, versions[(i+1)%2], i+1)
		if tried, err := w.look(); !tried || err != nil {
			t.Errorf("version %d: got %t, %v", i, tried, err)
		}
	}
	close(stop)
	wg.Wait()
}

func BenchmarkCountry(b *testing.B) {
	countries := map[string]string{}
	codes := []string{"DE", "FR", "US", "CA", "GB", "JP"}
	for i := range 1 << 16 {
		countries[netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(20 + i>>14), byte(i >> 6), byte(i << 2), 0}), 22).String()] = codes[i%len(codes)]
	}
	countries["2a00::/16"] = "GB"
	d, _ := open(b, build(b, "GeoIP2-Country", countries))
	benchmark(b, d)
	// A real file shows what its size costs: GEOIP_DB=country.mmdb go test -bench Country ./internal/geo/
	if path := os.Getenv("GEOIP_DB"); path != "" {
		d, err := Open(path)
		if err != nil {
			b.Fatal(err)
		}
		b.Run("file", func(b *testing.B) { benchmark(b, d) })
		b.Run("open", func(b *testing.B) {
			for b.Loop() {
				if _, err := Open(path); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func benchmark(b *testing.B, d *DB) {
	addresses := make([]netip.Addr, 1<<16)
	for i := range addresses {
		h := uint32(i) * 2654435761
		addresses[i] = netip.AddrFrom4([4]byte{byte(20 + h>>30), byte(h >> 16), byte(h >> 8), byte(h)})
	}
	for _, c := range []struct {
		name      string
		addresses []netip.Addr
	}{
		{"v4", addresses},
		{"v6", []netip.Addr{netip.MustParseAddr("2a00:1450::1")}},
		{"private", []netip.Addr{netip.MustParseAddr("192.168.1.1")}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			mask := len(c.addresses) - 1
			i := 0
			for b.Loop() {
				d.Country(c.addresses[i&mask])
				i++
			}
		})
	}
}
