package redact

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/policy"
)

// traffic makes request events of about 600 bytes: 200,000 addresses, 5,000 user
// agents and 5 % that never repeat, 50,000 users, a fifth with IP-like text.
func traffic(n int) []*event.Event {
	rnd := rand.New(rand.NewPCG(1, 2))
	out := make([]*event.Event, n)
	for i := range out {
		user, addr := rnd.IntN(50_000), rnd.IntN(200_000)
		agentNo := rnd.IntN(5_000)
		if rnd.IntN(20) == 0 {
			agentNo = 10_000 + i
		}
		path := fmt.Sprintf("/v1/workspaces/%d/runs/%08x-7b3c-4def-8123-426614174000/logs", user%977, i)
		if rnd.IntN(5) == 0 {
			path = fmt.Sprintf("/v1/workspaces/%d/hosts/%d.%d.12.7/ping", user%977, rnd.IntN(256), rnd.IntN(256))
		}
		e := made(event.Request, map[event.Attr]string{
			event.HTTPMethod: "GET", event.HTTPRoute: "/v1/workspaces/{workspace}/runs/{run}/logs", event.URLPath: path, event.ProtocolVersion: "2",
			event.ClientAddress: fmt.Sprintf("%d.%d.%d.%d:%d", 11+addr%50, addr>>16&0xff, addr>>8&0xff, addr&0xff, 1024+rnd.IntN(60000)),
			event.UserAgent:     fmt.Sprintf("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/%d.0.%d.107 Safari/537.36", 80+agentNo%50, agentNo),
			event.UserID:        fmt.Sprintf("u_%08d", user), event.SessionID: fmt.Sprintf("%016x%016x", user, user*7919),
			event.OrganizationID: fmt.Sprintf("org_%d", user%500), event.WorkspaceID: fmt.Sprintf("ws_%d", user%977),
			event.ServiceName: "api-gateway", event.ServiceVersion: "4.17.2", event.Region: "eu-central-1", event.PlanTier: "pro",
			event.TraceID: fmt.Sprintf("%016x%016x", rnd.Uint64(), rnd.Uint64()), event.SpanID: fmt.Sprintf("%016x", rnd.Uint64()),
		})
		e.ID, e.Source, e.Type = fmt.Sprintf("01928f6a-7b3c-7def-8123-%012x", i), "/svc/api-gateway", "com.example.request.completed.v1"
		if rnd.IntN(4) == 0 {
			e.Set(event.UserEmail, fmt.Sprintf("person%d@example.com", user))
		}
		e.SetNum(event.HTTPStatus, 200)
		e.SetNum(event.HTTPDuration, 0.0123)
		e.SetNum(event.HTTPResponseSize, 1234)
		out[i] = e
	}
	return out
}

type onePlace struct{}

func (onePlace) Country(netip.Addr) string { return "DE" }

// BenchmarkRow measures warm caches and events that were just decoded: each
// batch is copied into reused memory before its clock starts, as the decoder
// would have left it.
func BenchmarkRow(b *testing.B) {
	r, err := New(Options{Keys: mustKeys(b, "k1="+secretA), Countries: onePlace{}})
	if err != nil {
		b.Fatal(err)
	}
	events := traffic(200_000)
	var row event.Row
	for _, e := range events {
		r.Row(e, policy.Decision{}, &row)
	}
	const size = 200
	batch := make([]event.Event, size)
	var spent time.Duration
	n := 0
	b.ReportAllocs()
	for at := 0; b.Loop(); at = (at + size) % len(events) {
		var block strings.Builder
		block.Grow(size * 800)
		keep := func(s string) string {
			start := block.Len()
			block.WriteString(s)
			return block.String()[start:]
		}
		for i := range batch {
			batch[i] = *events[at+i]
			e := &batch[i]
			e.ID, e.Source, e.Type = keep(e.ID), keep(e.Source), keep(e.Type)
			for a, s := range e.Text {
				e.Text[a] = keep(s)
			}
		}
		start := time.Now()
		for i := range batch {
			r.Row(&batch[i], policy.Decision{}, &row)
		}
		spent += time.Since(start)
		n += size
	}
	b.ReportMetric(float64(spent.Nanoseconds())/float64(n), "ns/event")
}

func BenchmarkScrub(b *testing.B) {
	for _, c := range []struct{ name, in string }{
		{"plain", "/presentations/logstash-monitorama-2013/images/kibana-dashboard.png"},
		{"escaped", "/presentations/logstash%20monitorama/images/kibana-dashboard3.png"},
		{"address", "/v1/workspaces/17/hosts/203.0.113.7/ping"},
		{"v6", "/v1/workspaces/17/hosts/[2001:db8::17]:443/ping"},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := newScrubber()
			b.SetBytes(int64(len(c.in)))
			b.ReportAllocs()
			for b.Loop() {
				s.scrub(c.in)
			}
		})
	}
}

func BenchmarkHash(b *testing.B) {
	k := &mustKeys(b, "k1="+secretA).keys[0]
	var scratch []byte
	b.ReportAllocs()
	for b.Loop() {
		_, scratch = k.sum(scratch, domainSession, "0123456789abcdef0123456789abcdef")
	}
}

func BenchmarkAgentMiss(b *testing.B) {
	a := newAgents(newScrubber().scrub)
	b.ReportAllocs()
	for b.Loop() {
		a.parse("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.1.107 Safari/537.36")
	}
}
