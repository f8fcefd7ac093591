package redact

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// world answers XX for every public address, so that a test sees the difference
// between an address that was looked up and a reserved one.
type world struct{ calls int }

func (w *world) Country(netip.Addr) string { w.calls++; return "XX" }

func newScrubber() *scrubber { return &scrubber{country: (&countries{&world{}}).of} }

func (s *scrubber) text(in string) string {
	if out, changed := s.scrub(in); changed {
		return string(out)
	}
	return in
}

func TestScrub(t *testing.T) {
	s := newScrubber()
	for _, c := range []struct{ name, in, want string }{
		{"bare", "192.0.2.7", "[ip:ZZ]"},
		{"public", "8.8.8.8", "[ip:XX]"},
		{"sentence", "from 192.0.2.7 to 8.8.8.8.", "from [ip:ZZ] to [ip:XX]."},
		{"sentence without a space", "was 8.8.8.8.Then it failed", "was [ip:XX].Then it failed"},
		{"ellipsis", "8.8.8.8...", "[ip:XX]..."},
		{"comma list", "8.8.8.8,192.0.2.7", "[ip:XX],[ip:ZZ]"},
		{"port", "8.8.8.8:51234", "[ip:XX]"},
		{"colon without a port", "8.8.8.8: down", "[ip:XX]: down"},
		{"no port of six digits", "8.8.8.8:512345", "[ip:XX]:512345"},
		{"bracketed", "[8.8.8.8]:443", "[ip:XX]"},
		{"prefix length", "8.8.8.0/24", "[ip:XX]/24"},
		{"url", "http://8.8.8.8:8080/x", "http://[ip:XX]/x"},
		{"path segment", "/hosts/8.8.8.8/ping", "/hosts/[ip:XX]/ping"},
		{"leading zeros", "008.008.008.008", "[ip:XX]"},
		{"host name", "1.2.3.4.example.net", "[ip:XX].example.net"},
		{"host name, port", "1.2.3.4.example.net:80", "[ip:XX].example.net:80"},
		{"host name that begins with a digit", "1.2.3.4.163.example", "[ip:XX].example"},
		{"host name behind a label", "node.1.2.3.4.example.net", "node.[ip:XX].example.net"},
		{"host name, other script after it", "1.2.3.4.example.net。v0.0.0", "[ip:XX].example.net。v0.0.0"},
		{"reverse name", "4.3.2.1.in-addr.arpa", "[ip:XX].in-addr.arpa"},
		{"numbered label", "node7.8.8.8.8", "node7.[ip:XX]"},
		{"hyphens, ec2", "ec2-1-2-3-4.compute.example", "ec2-[ip:XX].compute.example"},
		{"hyphens, alone", "ec2-1-2-3-4", "ec2-[ip:XX]"},
		{"hyphens, ip-", "ip-8-8-8-8", "ip-[ip:XX]"},
		{"hyphens, front", "1-2-3-4.static.example.net", "[ip:XX].static.example.net"},
		{"hyphens, front, joined", "1-2-3-4-static.example.net", "[ip:XX]-static.example.net"},
		{"hyphens, attached", "pool1-2-3-4.example.net", "pool[ip:XX].example.net"},
		{"hyphens, numbered", "host5-1-2-3-4.example.net", "host5-[ip:XX].example.net"},
		{"underscore before", "ip_8.8.8.8", "ip_[ip:XX]"},
		{"escaped line break", `at\n8.8.8.8\tx`, `at\n[ip:XX]\tx`},
		{"non-ASCII attached", "见8.8.8.8。", "见[ip:XX]。"},
		{"query value", "ip=8.8.8.8&x=1", "ip=[ip:XX]&x=1"},
		{"json", `{"ip":"8.8.8.8"}`, `{"ip":"[ip:XX]"}`},
		{"version-like, in doubt", "Firefox/2.0.0.4", "Firefox/[ip:XX]"},
		{"range", "8.8.8.8-9", "[ip:XX]-9"},

		{"encoded dots", "8%2E8%2e8%2E8", "[ip:XX]"},
		{"encoded digits", "%38.8.8.%38", "[ip:XX]"},
		{"encoded twice", "8%252E8%252E8%252E8", "[ip:XX]"},
		{"encoded thrice", "8%25252E8.8.8", "[ip:XX]"},
		{"encoded space before", "a%208.8.8.8%20b", "a%20[ip:XX]%20b"},
		{"encoded port", "8.8.8.8%3A443/x", "[ip:XX]/x"},
		{"encoded v6", "2a00%3A1450%3A%3A1", "[ip:XX]"},
		{"encoded brackets", "%5B2a00:1450::1%5D%3A443", "[ip:XX]"},
		{"encoded url", "/go?u=http%3A%2F%2F8.8.8.8%2F", "/go?u=http%3A%2F%2F[ip:XX]%2F"},
		{"other escapes stay", "100%/x%20y%zz", "100%/x%20y%zz"},

		{"v6", "2a00:1450:4001:812::200e", "[ip:XX]"},
		{"v6 full", "2a00:1450:4001:0812:0000:0000:0000:200e", "[ip:XX]"},
		{"v6 upper case", "2A00:1450::200E", "[ip:XX]"},
		{"v6 documentation", "2001:db8::1", "[ip:ZZ]"},
		{"v6 loopback", "::1", "[ip:ZZ]"},
		{"v6 short", "2a00::", "[ip:XX]"},
		{"v6 bracketed port", "[2a00:1450::1]:443", "[ip:XX]"},
		{"v6 url", "http://[2a00:1450::1]:80/x", "http://[ip:XX]/x"},
		{"v6 zone", "fe80::1%eth0", "[ip:ZZ]"},
		{"v6 zone, encoded", "[fe80::1%25eth0]:80", "[ip:ZZ]"},
		{"v6 zone, dotted", "fe80::1%eth0.100.", "[ip:ZZ]."},
		{"v6 mapped", "::ffff:8.8.8.8", "[ip:XX]"},
		{"v6 mapped, hexadecimal", "::ffff:808:808", "[ip:XX]"},
		{"v6 with a quad", "64:ff9b::8.8.8.8", "[ip:ZZ]"},
		{"v6 behind a colon", "addr:2a00:1450::1", "addr:[ip:XX]"},
		{"v6 end of sentence", "is 2a00:1450::1.", "is [ip:XX]."},
		{"v6 with letters attached", "x2a00:1450::1y", "x[ip:XX]y"},
		{"v6 full, port", "2a00:1450:4001:812:0:0:0:200e:443", "[ip:XX]"},

		{"email", "mail alice@example.com now", "mail [email] now"},
		{"email, tag", "alice.b+x@mail.example.com.", "[email]."},
		{"email, encoded", "/u/alice%40example.com/x", "/u/[email]/x"},
		{"email, encoded twice", "alice%2540example.com", "[email]"},
		{"email, angle", "Alice <alice@example.com>", "Alice <[email]>"},
		{"email, mailto", "mailto:alice@example.com", "mailto:[email]"},
		{"email, international", "jörg@bücher.example", "[email]"},
		{"email, literal", "alice@[192.0.2.1]", "[email]"},
		{"email, address", "alice@192.0.2.1", "[email]"},
		{"email, quoted", `"a b"@example.com`, `[email]`},
		{"email and address", "alice@example.com from 8.8.8.8", "[email] from [ip:XX]"},
		{"identity provider", "auth0|alice@example.com", "auth0|[email]"},
		{"userinfo", "https://bob:pw@example.com/", "https://bob:[email]/"},

		{"v-version", "v1.2.3.4", "v1.2.3.4"},
		{"five numbers", "1.2.3.4.5", "1.2.3.4.5"},
		{"version of a browser", "UP.Browser/6.2.3.3.c.1.101 (GUI)", "UP.Browser/6.2.3.3.c.1.101 (GUI)"},
		{"letter in the middle", "6.2.3.3.c.1", "6.2.3.3.c.1"},
		{"letter after", "1.2.3.4b", "1.2.3.4b"},
		{"octet over 255", "256.1.1.1 1.1.1.256 32.0.1700.107", "256.1.1.1 1.1.1.256 32.0.1700.107"},
		{"three numbers", "1.2.3", "1.2.3"},
		{"object identifier", "1.3.6.1.4.1.2021.10", "1.3.6.1.4.1.2021.10"},
		{"date", "2014-02-12", "2014-02-12"},
		{"plain numbers", "12-34-56-78", "12-34-56-78"},
		{"five plain numbers", "x 1-2-3-4-5", "x 1-2-3-4-5"},
		{"uuid", "01928f6a-7b3c-7def-8123-426614174000", "01928f6a-7b3c-7def-8123-426614174000"},
		{"time", "10:05:03 12:34:56.789", "10:05:03 12:34:56.789"},
		{"time stamp", "2026-01-31T10:00:00.123Z", "2026-01-31T10:00:00.123Z"},
		{"hardware address", "00:11:22:33:44:55", "00:11:22:33:44:55"},
		{"code", "std::abc Foo::Bar1 a::b Facade::1x core::fmt::face", "std::abc Foo::Bar1 a::b Facade::1x core::fmt::face"},
		{"two colons", ":: x::y", ":: x::y"},
		{"handle", "npm i @scope/pkg@1.2.3 user@host", "npm i @scope/pkg@1.2.3 user@host"},
		{"own mark", "[ip:DE] [ip:AD] [email]", "[ip:DE] [ip:AD] [email]"},
		{"empty", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := s.text(c.in); got != c.want {
				t.Errorf("scrub(%q) = %q, want %q", c.in, got, c.want)
			}
			if got := s.text(c.want); got != c.want {
				t.Errorf("again: %q became %q", c.want, got)
			}
		})
	}
}

// forms writes an address in every form that events may hold.
func forms(a netip.Addr) []string {
	if a.Is4() {
		b := a.As4()
		mapped := netip.AddrFrom16(a.As16())
		s := a.String()
		hyphens := strings.ReplaceAll(s, ".", "-")
		encoded := strings.ReplaceAll(s, ".", "%2E")
		return []string{
			s, s + ":51234", "[" + s + "]", "[" + s + "]:80", "http://" + s + "/x", s + ".example.net", "ec2-" + hyphens + ".compute.example",
			"ip-" + hyphens, hyphens + ".example.net", encoded, strings.ReplaceAll(encoded, "%", "%25"), encoded + "%3A443",
			mapped.String(), "[" + mapped.String() + "]:1", fmt.Sprintf("::ffff:%x:%x", uint(b[0])<<8|uint(b[1]), uint(b[2])<<8|uint(b[3])),
			fmt.Sprintf("%03d.%03d.%03d.%03d", b[0], b[1], b[2], b[3]), " user@" + s,
		}
	}
	s := a.String()
	return []string{
		s, a.StringExpanded(), strings.ToUpper(s), "[" + s + "]", "[" + s + "]:443", "https://[" + s + "]:443/x", s + "%eth0", "[" + s + "%25eth0]:80",
		strings.ReplaceAll(s, ":", "%3A"), "%5B" + strings.ReplaceAll(s, ":", "%3a") + "%5D", strings.ReplaceAll(s, ":", "%253A"), " user@[" + s + "]",
	}
}

// traces are the spellings by which an address would be recognised.
func traces(a netip.Addr) []string {
	s := a.String()
	if a.Is4() {
		b := a.As4()
		return []string{
			s, strings.ReplaceAll(s, ".", "-"), strings.ReplaceAll(s, ".", "%2E"), strings.ReplaceAll(s, ".", "%252E"),
			fmt.Sprintf("%03d.%03d.%03d.%03d", b[0], b[1], b[2], b[3]), fmt.Sprintf("%x:%x", uint(b[0])<<8|uint(b[1]), uint(b[2])<<8|uint(b[3])),
		}
	}
	return []string{s, a.StringExpanded(), strings.ToUpper(s), strings.ReplaceAll(s, ":", "%3A"), strings.ReplaceAll(s, ":", "%3a"), strings.ReplaceAll(s, ":", "%253A")}
}

var address4 = rapid.Custom(func(t *rapid.T) netip.Addr {
	b := rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "v4")
	b[0] = b[0]%223 + 1
	return netip.AddrFrom4([4]byte(b))
})

var address6 = rapid.Custom(func(t *rapid.T) netip.Addr {
	b := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "v6")
	b[0] = 0x20 | b[0]&0x1f // global unicast
	if rapid.Bool().Draw(t, "gap") {
		clear(b[4:14])
	}
	return netip.AddrFrom16([16]byte(b))
})

// prose is text that holds no address and ends where an address may begin.
var prose = rapid.StringMatching(`([A-Za-z]{1,8}[ ,;/=("']{1,2}|[0-9]{1,6} |[äß字]{1,3}|%20|v[0-9]\.[0-9]\.[0-9] |\n){0,6}`)

func TestScrubFindsEveryForm(t *testing.T) {
	s := newScrubber()
	rapid.Check(t, func(t *rapid.T) {
		a := rapid.OneOf(address4, address6).Draw(t, "address")
		form := rapid.SampledFrom(forms(a)).Draw(t, "form")
		after := rapid.SampledFrom([]string{" ", ". ", ", ", ")", "/x", "?a=1", "\"", " 17", "%20x", "。", "\n"}).Draw(t, "after")
		before := prose.Draw(t, "before")
		in := before + form
		if rapid.Bool().Draw(t, "more") {
			in += after + prose.Draw(t, "rest")
		}
		got := s.text(in)
		for _, trace := range traces(a) {
			if strings.Contains(got, trace) {
				t.Fatalf("scrub(%q) = %q, still holds %s", in, got, trace)
			}
		}
		if !strings.HasPrefix(got, before) {
			t.Fatalf("scrub(%q) = %q, changed the text before", in, got)
		}
	})
}

func TestScrubLeavesTheRest(t *testing.T) {
	s := newScrubber()
	rapid.Check(t, func(t *rapid.T) {
		in := prose.Draw(t, "a") + prose.Draw(t, "b")
		if got := s.text(in); got != in {
			t.Fatalf("scrub(%q) = %q", in, got)
		}
	})
}

func TestScrubGivesUpOnTangledText(t *testing.T) {
	// Each replacement frees the quad before it, once per pass.
	in := "2a00:1450::1"
	for range maxRounds + 2 {
		in = "1.2.3.4." + "5" + in
	}
	s := newScrubber()
	once := s.text(in)
	if again := s.text(once); again != once {
		t.Errorf("scrub is not idempotent: %q, then %q", once, again)
	}
}

var plainQuad = regexp.MustCompile(`(^|[^0-9A-Za-z.%-])([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})($|[^0-9A-Za-z.%])`)

func FuzzScrub(f *testing.F) {
	for _, s := range []string{
		"8.8.8.8", "ec2-1-2-3-4.example.net", "[2a00:1450::1%25eth0]:443", "8%252E8%2E8.8", "alice%40example.com", "1.2.3.4.5",
		"::ffff:8.8.8.8", "x\"@[1.2.3.4]", "1.2.3.4.2001:db8::1", "%%%25", "::1::2::3", "1::2.3.4.5.6",
	} {
		f.Add(s)
	}
	s := newScrubber()
	f.Fuzz(func(t *testing.T, in string) {
		got := s.text(in)
		if len(got) > 3*len(in)+len(tooTangled) {
			t.Fatalf("%d bytes became %d", len(in), len(got))
		}
		if again := s.text(got); again != got {
			t.Fatalf("not idempotent: %q, then %q, then %q", in, got, again)
		}
		for _, m := range plainQuad.FindAllStringSubmatch(got, -1) {
			valid := true
			for _, octet := range m[2:6] {
				n, _ := strconv.Atoi(octet)
				valid = valid && n <= 255
			}
			if valid {
				t.Fatalf("scrub(%q) = %q, still holds %q", in, got, m[0])
			}
		}
	})
}

// TestSuspiciousMissesNothing compares the quick look with the slow search: it
// may only pass over text in which the search finds nothing.
func TestSuspiciousMissesNothing(t *testing.T) {
	s := newScrubber()
	rapid.Check(t, func(t *rapid.T) {
		a := rapid.OneOf(address4, address6).Draw(t, "address")
		in := rapid.StringMatching(`[a-z0-9/]{0,12}[ /=]`).Draw(t, "before") + rapid.SampledFrom(forms(a)).Draw(t, "form")
		s.src = []byte(in)
		if s.pass() && !suspicious(in) {
			t.Fatalf("%q is not suspicious", in)
		}
	})
}

func TestWeightless(t *testing.T) {
	for c := range 256 {
		for place := range 8 {
			word := uint64('a')*0x0101010101010101&^(0xff<<(8*place)) | uint64(c)<<(8*place)
			counts := weight[c]&^digit != 0
			if got := weightless(word); got && counts {
				t.Errorf("%q at %d counts and is passed over", byte(c), place)
			} else if plain := c >= '/' && c < 0x80 && !counts; plain && !got {
				t.Errorf("%q at %d is looked at", byte(c), place)
			}
		}
	}
}
