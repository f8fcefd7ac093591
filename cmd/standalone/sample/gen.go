//go:build ignore

// Gen writes the bundled sample: an access log, audit events and security
// events of a small made-up service, always the same ones.
//
//	go generate ./cmd/standalone/sample
//
// Nobody is in it. Addresses are documentation ranges, and public resolvers so
// that countries show up; names are example.com's. The times end at a fixed
// instant and reach back twelve days, less than the shortest period of the
// bundled policies: load it with times shifted to now.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"
)

const (
	accessLines    = 2400
	auditEvents    = 320
	securityEvents = 280
	users          = 40
	span           = 12 * 24 * time.Hour
)

var (
	end = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	rnd = rand.New(rand.NewPCG(20260131, 7))
)

// resolvers are public services, in several countries; no person's addresses.
var resolvers = []string{
	"1.1.1.1", "1.0.0.1", "8.8.8.8", "8.8.4.4", "9.9.9.9", "149.112.112.112", "208.67.222.222", "208.67.220.220",
	"77.88.8.8", "77.88.8.1", "114.114.114.114", "223.5.5.5", "180.76.76.76", "84.200.69.80", "84.200.70.40",
	"94.140.14.14", "185.228.168.9", "80.80.80.80", "168.126.63.1", "101.101.101.101", "195.46.39.39", "76.76.2.0",
	"2606:4700:4700::1111", "2001:4860:4860::8888", "2620:fe::fe", "2a02:6b8::feed:0ff",
}

var agents = []string{
	"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Safari/537.36",
	"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.2 Safari/605.1.15",
	"Mozilla/5.0 (X11; Linux x86_64; rv:146.0) Gecko/20100101 Firefox/146.0",
	"Mozilla/5.0 (iPhone; CPU iPhone OS 18_2 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.2 Mobile/15E148 Safari/604.1",
	"Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Mobile Safari/537.36",
	"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36 Edg/142.0.0.0",
}

var bots = []string{
	"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
	"Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
	"curl/8.11.1", "python-requests/2.32.3", "Go-http-client/2.0",
}

// person is a made-up user with a home.
type person struct {
	n                  int
	id, email, session string
	address, agent     string
	organization, tier string
	workspace, project string
}

func pick[T any](list []T) T { return list[rnd.IntN(len(list))] }

func address() string {
	switch rnd.IntN(8) {
	case 0, 1:
		return fmt.Sprintf("192.0.2.%d", 1+rnd.IntN(254))
	case 2:
		return fmt.Sprintf("198.51.100.%d", 1+rnd.IntN(254))
	case 3:
		return fmt.Sprintf("203.0.113.%d", 1+rnd.IntN(254))
	case 4:
		return fmt.Sprintf("2001:db8:%x::%x", rnd.IntN(1<<16), 1+rnd.IntN(1<<16-1))
	}
	return pick(resolvers)
}

func hexOf(digits int) string {
	var b strings.Builder
	for range digits {
		fmt.Fprintf(&b, "%x", rnd.IntN(16))
	}
	return b.String()
}

func people() []person {
	list := make([]person, users)
	for i := range list {
		org := 1 + i%7
		list[i] = person{
			n: i + 1, id: fmt.Sprintf("u_%d", i+1), email: fmt.Sprintf("user%d@example.com", i+1), session: hexOf(32),
			address: address(), agent: pick(agents),
			organization: fmt.Sprintf("org_%d", org), tier: []string{"free", "pro", "enterprise"}[org%3],
			workspace: fmt.Sprintf("ws_%d", 1+i%11), project: fmt.Sprintf("p_%d", 1+i%17),
		}
	}
	return list
}

// somebody is u_1 more often than others: the examples in the documentation ask for u_1.
func somebody(list []person) person {
	if rnd.IntN(8) == 0 {
		return list[0]
	}
	return pick(list)
}

// times returns n instants in order, more by day than by night; the last is end.
func times(n int) []time.Time {
	list := make([]time.Time, 0, n)
	for len(list) < n-1 {
		t := end.Add(-time.Duration(rnd.Int64N(int64(span)))).Truncate(time.Millisecond)
		if h := t.Hour(); (h < 6 || h > 21) && rnd.IntN(4) > 0 {
			continue
		}
		list = append(list, t)
	}
	list = append(list, end)
	slices.SortFunc(list, time.Time.Compare)
	return list
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func accessLog(list []person) string {
	pages := []string{"/", "/pricing", "/docs", "/docs/quickstart", "/docs/api/events", "/blog/2026/january", "/about", "/status"}
	assets := []string{"/assets/app.3f9c1b.js", "/assets/app.77aa02.css", "/favicon.ico", "/images/logo.svg"}
	calls := []string{"/v1/workspaces/%d", "/v1/workspaces/%d/members", "/v1/projects/%d/deployments", "/v1/projects/%d/logs", "/v1/me"}
	probes := []string{"/wp-login.php", "/.env", "/.git/config", "/admin.php", "/cgi-bin/luci", "/xmlrpc.php"}
	var b strings.Builder
	for _, t := range times(accessLines) {
		who, client, agent := "-", address(), pick(agents)
		method, path, status, size, referer, protocol := "GET", pick(pages), 200, 2000+rnd.IntN(60000), "-", "HTTP/2.0"
		switch n := rnd.IntN(100); {
		case n < 45: // somebody at work
			p := somebody(list)
			who, client, agent = p.id, p.address, p.agent
			path = pick(calls)
			if strings.Contains(path, "%d") {
				path = fmt.Sprintf(path, 1+rnd.IntN(17))
			}
			referer = "https://app.example.com/"
			switch m := rnd.IntN(20); {
			case m < 3:
				method, status = "POST", 201
			case m == 3:
				method, status, size = "DELETE", 204, 0
			case m == 4:
				status, size = 403, 87
			case m == 5:
				status, size = 304, 0
			case m == 6:
				path += "?page=2&q=jo%40example.com"
			}
		case n < 70: // a visitor
			if rnd.IntN(2) == 0 {
				path, size = pick(assets), 500+rnd.IntN(200000)
			}
			referer = pick([]string{"-", "https://www.example.com/", "https://news.example.com/item?id=42"})
		case n < 85: // a crawler
			agent, protocol = pick(bots), "HTTP/1.1"
			if rnd.IntN(5) == 0 {
				path, size = "/robots.txt", 68
			}
		case n < 95: // a scanner
			agent, path, status, size, protocol = pick(bots), pick(probes), 404, 153, "HTTP/1.1"
		case n < 97: // an address in a path
			path = fmt.Sprintf("/lookup/192.0.2.%d", rnd.IntN(256))
		case n < 98: // a failing server
			path, status, size = "/v1/reports", 502, 157
		case n < 99: // a timeout
			fmt.Fprintf(&b, "%s - - [%s] \"-\" 408 0 \"-\" \"-\"\n", client, t.Format("02/Jan/2006:15:04:05 -0700"))
			continue
		default: // an old bookmark
			path, status, size = "/old/page", 301, 169
		}
		fmt.Fprintf(&b, "%s - %s [%s] \"%s %s %s\" %d %d \"%s\" \"%s\"\n",
			client, who, t.Format("02/Jan/2006:15:04:05 -0700"), method, path, protocol, status, size, referer, agent)
	}
	return b.String()
}

// line writes a CloudEvent; its id is random but always the same.
func line(b *strings.Builder, source, kind string, t time.Time, data map[string]any) {
	text, err := json.Marshal(struct {
		SpecVersion string         `json:"specversion"`
		ID          string         `json:"id"`
		Source      string         `json:"source"`
		Type        string         `json:"type"`
		Time        string         `json:"time"`
		ContentType string         `json:"datacontenttype"`
		Data        map[string]any `json:"data"`
	}{"1.0", hexOf(32), source, kind, t.Format("2006-01-02T15:04:05.000Z"), "application/json", data})
	must(err)
	b.Write(text)
	b.WriteByte('\n')
}

// base is what every event of a person says.
func base(p person, service string) map[string]any {
	return map[string]any{
		"user.id": p.id, "user.email": p.email, "session.id": p.session, "client.address": p.address,
		"organization.id": p.organization, "workspace.id": p.workspace, "plan.tier": p.tier,
		"service.name": service, "service.version": "2026.1." + fmt.Sprint(1+rnd.IntN(9)), "region": "eu-central",
	}
}

func audit(list []person) string {
	var b strings.Builder
	for _, t := range times(auditEvents) {
		p := somebody(list)
		d := base(p, "control")
		d["event.outcome"], d["actor.type"], d["event.category"] = "success", "user", "configuration"
		delete(d, "session.id")
		switch rnd.IntN(9) {
		case 0:
			d["event.action"], d["target.type"], d["target.id"], d["target.name"] = "workspace.configured", "workspace", p.workspace, "Team "+p.workspace
			d["change.old"], d["change.new"] = "members may invite", "only owners may invite"
		case 1:
			d["event.action"], d["data.category"], d["target.type"], d["target.id"] = "account.updated", "account", "user", p.id
			d["change.new"] = "time zone Europe/Berlin"
		case 2:
			d["event.action"], d["target.type"], d["target.id"], d["target.name"] = "project.created", "project", p.project, "Project "+p.project
			d["project.id"] = p.project
		case 3:
			other := pick(list)
			d["event.action"], d["target.type"], d["target.id"] = "member.invited", "member", other.id
			d["event.category"] = "iam"
		case 4:
			d["event.action"], d["target.type"], d["target.id"] = "billing.invoice_paid", "invoice", fmt.Sprintf("inv_%d", 1000+rnd.IntN(9000))
			d["data.category"] = "billing"
		case 5:
			d["event.action"], d["target.type"], d["target.id"] = "support.ticket_opened", "ticket", fmt.Sprintf("t_%d", 100+rnd.IntN(900))
			d["event.reason"] = "cannot reach 192.0.2." + fmt.Sprint(rnd.IntN(256)) + " from the build"
		case 6:
			d["event.action"], d["actor.type"], d["target.type"], d["target.id"] = "job.started", "system", "deployment", fmt.Sprintf("d_%d", 1+rnd.IntN(60))
			d["deployment.id"] = d["target.id"]
			d["metadata"] = map[string]string{"runner": "r-" + hexOf(4), "trigger": "push"}
		case 7:
			d["event.action"], d["actor.type"], d["target.owner.id"] = "file.read", "staff", pick(list).id
			d["target.type"], d["target.id"], d["actor.on_behalf_of.id"] = "file", "f_"+hexOf(6), pick(list).id
		default:
			d["event.action"], d["event.outcome"] = "api_key.created", pick([]string{"success", "failure"})
			d["target.type"], d["target.id"] = "api_key", "key_"+hexOf(6)
		}
		line(&b, "/svc/control", "com.example.audit.v1", t, d)
	}
	return b.String()
}

func security(list []person) string {
	var b strings.Builder
	for _, t := range times(securityEvents) {
		p := somebody(list)
		d := base(p, "login")
		d["user_agent.original"], d["event.category"], d["event.outcome"] = p.agent, "authentication", "success"
		d["device.id"] = fmt.Sprintf("dev_%d", p.n)
		switch rnd.IntN(7) {
		case 0, 1:
			d["event.action"], d["authentication.protocol"], d["authentication.is_mfa"] = "login", "oidc", p.n%2 == 0
		case 2:
			d["event.action"], d["event.outcome"], d["event.reason"], d["event.severity"] = "login", "failure", "wrong password", 40
			d["client.address"] = address()
			delete(d, "session.id")
		case 3: // nobody's account: no user, no tier
			for _, name := range []string{"user.id", "user.email", "session.id", "device.id", "organization.id", "workspace.id", "plan.tier"} {
				delete(d, name)
			}
			d["event.action"], d["event.outcome"], d["event.reason"], d["event.severity"] = "login", "failure", "unknown account", 50
			d["client.address"], d["user_agent.original"] = address(), pick(bots)
		case 4:
			d["event.action"], d["authentication.is_mfa"] = "mfa.enrolled", true
		case 5:
			d["event.action"] = "logout"
		default:
			d["event.action"], d["event.category"], d["event.severity"] = "session.revoked", "session", 20
			d["trace_id"], d["span_id"] = hexOf(32), hexOf(16)
		}
		line(&b, "/svc/login", "com.example.security.v1", t, d)
	}
	return b.String()
}

func main() {
	list := people()
	for _, f := range []struct{ name, text string }{
		{"access.log", accessLog(list)}, {"audit.ndjson", audit(list)}, {"security.ndjson", security(list)},
	} {
		must(os.WriteFile(f.name, []byte(f.text), 0o644))
	}
}
