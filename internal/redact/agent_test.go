package redact

import (
	"fmt"
	"strings"
	"testing"
)

func TestAgent(t *testing.T) {
	for _, c := range []struct {
		name, in string
		want     agent
	}{
		{"chrome", "Mozilla/5.0 (Windows NT 6.1; WOW64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/32.0.1700.107 Safari/537.36", agent{"Chrome", "32", "Windows"}},
		{"firefox", "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:27.0) Gecko/20100101 Firefox/27.0", agent{"Firefox", "27", "Linux"}},
		{"old firefox", "Mozilla/5.0 (Windows; U; Windows NT 5.2; en-US; rv:1.8.1.4) Gecko/20070515 Firefox/2.0.0.4", agent{"Firefox", "2", "Windows"}},
		{"iphone", "Mozilla/5.0 (iPhone; CPU iPhone OS 7_0_4 like Mac OS X) AppleWebKit/537.51.1 (KHTML, like Gecko) Version/7.0 Mobile/11B554a Safari/9537.53", agent{"Safari", "7", "iOS"}},
		{"android", "Mozilla/5.0 (Linux; Android 4.4.2; Nexus 4 Build/KOT49H) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/32.0.1700.99 Mobile Safari/537.36", agent{"Chrome", "32", "Android"}},
		{"explorer 11", "Mozilla/5.0 (Windows NT 6.1; WOW64; Trident/7.0; rv:11.0) like Gecko", agent{"Internet Explorer", "11", "Windows"}},
		{"opera 12", "Opera/9.80 (X11; Linux x86_64) Presto/2.12.388 Version/12.16", agent{"Opera", "12", "Linux"}},
		{"bot", "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", agent{"Googlebot", "2", ""}},
		{"bot with v", "Mozilla/5.0 (compatible; MJ12bot/v1.4.4; http://www.majestic12.co.uk/bot.php?+)", agent{"MJ12bot", "1", ""}},
		{"bot with contact", "Mozilla/5.0 (compatible; Ezooms/1.0; help@moz.example)", agent{"Ezooms", "1", ""}},
		{"unnamed", "Mozilla/4.0 (compatible;)", agent{"Other", "", ""}},
		{"address for a name", "192.0.2.7", agent{"Other", "", ""}},
		{"e-mail for a name", "alice@example.com/1.0", agent{"Other", "", ""}},
		{"address in a name", "probe 192.0.2.7", agent{"Other", "", ""}},
		{"address in a host", "ec2-192-0-2-7/1", agent{"Other", "", ""}},
		{"address for a version", "curl/192.0.2.7", agent{"curl", "192", ""}},
		{"v6 for a version", "curl/2001:db8::7", agent{"curl", "2001", ""}},
		{"long name", strings.Repeat("a", 60) + "/1", agent{"Other", "", ""}},
		{"script", "<script>alert(1)</script>", agent{"Other", "", ""}},
		{"none", "-", agent{}},
		{"empty", "", agent{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newAgents(newScrubber().scrub)
			for range 2 {
				if got := a.of(c.in); got != c.want {
					t.Errorf("got %+v, want %+v", got, c.want)
				}
			}
		})
	}
}

func TestAgentsAreBounded(t *testing.T) {
	a := newAgents(newScrubber().scrub)
	parsed := 0
	scrub := a.scrub
	a.scrub = func(s string) ([]byte, bool) {
		if s == "kept" {
			parsed++
		}
		return scrub(s)
	}
	places := len(a.known.sets)
	const total = 40_000
	for i := range total {
		a.of(fmt.Sprintf("once-%d/%d", i, i))
		if got := a.of("kept/1"); got != (agent{"kept", "1", ""}) {
			t.Fatalf("got %+v", got)
		}
	}
	if len(a.known.sets) != places || len(a.names) > maxNames {
		t.Errorf("%d sets and %d names, want %d and at most %d", len(a.known.sets), len(a.names), places, maxNames)
	}
	if parsed > total/100 {
		t.Errorf("an agent that repeats was parsed %d times", parsed)
	}
}
