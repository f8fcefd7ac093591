package main

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"time"
)

// The shape of the load: what repeats, and how often, decides what a cache or
// a dictionary can save, so it is stated here and nowhere else.
const (
	addresses    = 200_000
	agents       = 5_000
	freshAgents  = 5 // per cent of events whose user agent never repeats
	users        = 50_000
	addressTexts = 20 // per cent of events with text that looks like an address
	months       = 4  // of event time, each a partition value of its own
)

// generator writes request events of about 600 bytes, the same for the same seed.
type generator struct {
	rng    *rand.Rand
	start  time.Time
	addrs  []string
	agents []string
	n      int
	buf    []byte
}

// newGenerator returns a generator whose events lie in the months before end.
func newGenerator(seed uint64, end time.Time) *generator {
	g := &generator{rng: rand.New(rand.NewPCG(seed, 1)), start: end.AddDate(0, -months, 0)}
	for range addresses {
		var a [4]byte
		// 1.0.0.0 to 223.255.255.255: mostly addresses a country database knows.
		a[0] = byte(1 + g.rng.IntN(223))
		for i := 1; i < 4; i++ {
			a[i] = byte(g.rng.IntN(256))
		}
		g.addrs = append(g.addrs, netip.AddrFrom4(a).String())
	}
	for i := range agents {
		g.agents = append(g.agents, g.agent(i))
	}
	return g
}

func (g *generator) agent(i int) string {
	return fmt.Sprintf("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/%d.0.%d.%d Safari/537.36",
		80+i%60, 1000+i/60, g.rng.IntN(200))
}

// next returns the next event; the bytes are valid until the call after.
func (g *generator) next() []byte {
	i := g.n
	g.n++
	agent := g.agents[g.rng.IntN(agents)]
	if g.rng.IntN(100) < freshAgents {
		agent = g.agent(agents + i)
	}
	path := "/v1/workspaces/" + strconv.Itoa(g.rng.IntN(5000)) + "/builds"
	if g.rng.IntN(100) < addressTexts {
		path += "/host-" + g.addrs[g.rng.IntN(addresses)]
	}
	user := g.rng.IntN(users)
	// Months of equal weight; within one, events come in order of time, as a log does.
	at := g.start.AddDate(0, g.rng.IntN(months), 0).Add(time.Duration(i) * 50 * time.Millisecond)

	b := g.buf[:0]
	b = append(b, `{"specversion":"1.0","id":"`...)
	b = fmt.Appendf(b, "%08x-%04x-7%03x-8%03x-%012x", g.rng.Uint32(), g.rng.IntN(1<<16), g.rng.IntN(1<<12), g.rng.IntN(1<<12), i)
	b = append(b, `","source":"/svc/api","type":"request.completed.v1","time":"`...)
	b = at.AppendFormat(b, "2006-01-02T15:04:05.000Z")
	b = append(b, `","data":{"http.request.method":"GET","http.route":"/v1/workspaces/{id}/builds","url.path":"`...)
	b = append(b, path...)
	b = append(b, `","http.response.status_code":`...)
	b = strconv.AppendInt(b, int64(200+g.rng.IntN(4)*100), 10)
	b = append(b, `,"http.server.request.duration":0.`...)
	b = strconv.AppendInt(b, int64(1000+g.rng.IntN(9000)), 10)
	b = append(b, `,"client.address":"`...)
	b = append(b, g.addrs[g.rng.IntN(addresses)]...)
	b = append(b, `:443","user_agent.original":"`...)
	b = append(b, agent...)
	b = append(b, `","user.id":"u_`...)
	b = strconv.AppendInt(b, int64(user), 10)
	b = append(b, `","session.id":"`...)
	b = fmt.Appendf(b, "%016x", uint64(user)*0x9e3779b97f4a7c15)
	b = append(b, `","organization.id":"org_`...)
	b = strconv.AppendInt(b, int64(user%500), 10)
	b = append(b, `","service.name":"api","trace_id":"`...)
	b = fmt.Appendf(b, "%016x%016x", g.rng.Uint64(), g.rng.Uint64()|1)
	b = append(b, `","plan.tier":"pro"}}`...)
	g.buf = b
	return b
}
