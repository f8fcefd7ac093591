package ingest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/fetch"
	"github.com/lethe-audit/lethe/internal/ledger"
	"github.com/lethe-audit/lethe/internal/store"
)

// full is a request event of about 600 bytes with everything that redaction
// works on. Addresses, agents and users repeat as in a real log.
func full(r *rand.Rand, id int) string {
	tiers := []string{"free", "pro", "enterprise", "pro"}
	path := fmt.Sprintf("/v1/workspaces/%d/runs/%d", r.IntN(5000), id)
	if r.IntN(5) == 0 {
		path += fmt.Sprintf("/host-%d.%d.%d.%d", r.IntN(256), r.IntN(256), r.IntN(256), r.IntN(256))
	}
	return fmt.Sprintf(`{"specversion":"1.0","id":"0192%08x-%04x","source":"/svc/api","type":"com.example.request.completed.v1","time":"%s","datacontenttype":"application/json","data":{"http.request.method":"GET","http.route":"/v1/workspaces/{id}/runs/{run}","url.path":"%s","http.response.status_code":%d,"http.server.request.duration":0.0%d,"client.address":"%d.%d.%d.%d:51234","user_agent.original":"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/%d.0.%d.0 Safari/537.36","user.id":"u_%d","session.id":"s-%d","organization.id":"org_%d","service.name":"api","trace_id":"%016x%016x","plan.tier":"%s"}}`,
		id, r.IntN(1<<16), time.Now().UTC().Add(-time.Duration(r.IntN(3600))*time.Second).Format(time.RFC3339Nano), path, 200+r.IntN(4)*100, 1+r.IntN(999),
		20+r.IntN(100), r.IntN(8), r.IntN(256), r.IntN(256), 90+r.IntN(50), r.IntN(100), r.IntN(50_000), r.IntN(100_000), r.IntN(500),
		r.Uint64(), r.Uint64(), tiers[r.IntN(len(tiers))])
}

// nowhere takes batches and keeps nothing: what is measured is the ingester.
type nowhere struct{ storage }

func (nowhere) NewBatch() Batch { return new(store.Store).NewBatch() }

func (nowhere) Insert(context.Context, Batch, string) error { return nil }

func (nowhere) WriteLedger(context.Context, []ledger.Entry) error { return nil }

// BenchmarkRoute takes records from a broker in the same process to a full batch:
// fetch, decode, classify, redact, columns, ledger, commit. The broker's work is
// in the figure too. One operation is one event.
func BenchmarkRoute(b *testing.B) {
	s := newStack(b, 4)
	r := rand.New(rand.NewPCG(1, 2))
	const batch = 20_000
	values, size := make([]string, batch), 0
	for i := range values {
		values[i] = full(r, i)
		size += len(values[i])
	}
	total := 0
	for i := 0; total < b.N; i++ {
		s.publish(topics[event.Request], i%4, kafka.Lz4, values...)
		total += batch
	}
	b.SetBytes(int64(size / batch))
	b.ResetTimer()
	run := s.start(func(o *Options) {
		o.Storage, o.BatchAge = nowhere{storage{s.store}}, time.Second
	})
	eventually(b, "everything accounted for", func() bool { return run.metric("offsets_total", "outcome=stored") >= float64(total) })
	b.StopTimer()
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(total), "ns/event")
	run.stop()
}

// BenchmarkWorker is the transformation alone: one worker, records in memory.
func BenchmarkWorker(b *testing.B) {
	s := newStack(b, 1)
	r := rand.New(rand.NewPCG(1, 2))
	const n = 20_000
	values := make([]string, n)
	for i := range values {
		values[i] = full(r, i)
	}
	s.publish(topics[event.Request], 0, kafka.Lz4, values...)
	run := s.start(func(o *Options) { o.Storage = nowhere{storage{s.store}} })
	run.stop()
	i := run.Ingester
	answers, err := i.fetch.Fetch(b.Context(), []fetch.Want{{Topic: topics[event.Request]}}, 64<<20, 64<<20)
	if err != nil {
		b.Fatal(err)
	}
	p := &partition{place: place{topics[event.Request], 0}, kind: event.Request}
	b.ReportAllocs()
	b.ResetTimer()
	for done := 0; done < b.N; {
		route := &route{Ingester: i, open: make(chan *batch, 1), full: make(chan *batch, 1), free: make(chan *batch, 1)}
		i.batches[0].reset()
		route.open <- i.batches[0]
		p.at = 0
		if err := i.workers[0].answer(b.Context(), route, p, &answers[0]); err != nil {
			b.Fatal(err)
		}
		done += int(p.at)
	}
	b.StopTimer()
	i.o.Transport.CloseIdleConnections()
}
