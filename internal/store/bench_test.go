package store

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/ClickHouse/ch-go/compress"

	"github.com/lethe-audit/lethe/internal/event"
)

// generator makes request rows as an ingester sees them: 50,000 users in 200
// organizations, four partition values, 28 columns with values.
type generator struct {
	random *rand.Rand
	row    event.Row
	offset int64
	users  []string
	list   []event.Row
}

func newGenerator() *generator {
	g := &generator{random: rand.New(rand.NewPCG(1, 2))}
	for i := range 50_000 {
		g.users = append(g.users, fmt.Sprintf("u_%07d", i*7919%9_999_991))
	}
	return g
}

var routes = func() (list []string) {
	for i := range 150 {
		list = append(list, fmt.Sprintf("/v1/workspaces/{id}/things-%d/{thing}", i))
	}
	return list
}()

func (g *generator) next() *event.Row {
	r, n := &g.row, g.random
	r.Reset()
	at := now.Add(-time.Duration(n.IntN(3_600_000)) * time.Millisecond)
	var id [16]byte
	binary.LittleEndian.PutUint64(id[:], n.Uint64())
	binary.LittleEndian.PutUint64(id[8:], n.Uint64())
	user := n.IntN(len(g.users))
	text := hex.EncodeToString(id[:])
	r.Kind, r.Source, r.Type = event.Request, "/svc/api", "com.example.request.completed.v1"
	r.ID = text[:8] + "-" + text[8:12] + "-" + text[12:16] + "-" + text[16:20] + "-" + text[20:]
	r.OccurredAt, r.ReceivedAt, r.RetainedFrom = at.Truncate(time.Millisecond), now, at.Truncate(time.Second)
	r.Retention = []string{usage, pro, "support@3y", account}[n.IntN(4)]
	r.Bucket = int32(now.Unix()/86400) / 30 * 30
	r.PolicyVersion, r.Topic, r.Partition, r.Offset = "bench-00000001", "lethe.request", int32(n.IntN(4)), g.offset
	g.offset++
	r.TraceID, r.SpanID = id, [8]byte(id[4:12])
	r.Text[event.TMethod] = []string{"GET", "GET", "GET", "POST", "PUT"}[n.IntN(5)]
	route := n.IntN(len(routes))
	r.Text[event.TRoute] = routes[route]
	r.Text[event.TPath] = fmt.Sprintf("/v1/workspaces/%d/things-%d/%d", n.IntN(5000), route, n.IntN(100000))
	r.Text[event.TProtocolVersion] = "2"
	r.Text[event.TCountry] = string([]byte{'A' + byte(n.IntN(20)), 'A' + byte(n.IntN(10))})
	r.Text[event.TAgentName] = []string{"Firefox", "Chrome", "Safari", "curl"}[n.IntN(4)]
	r.Text[event.TAgentVersion] = []string{"120", "121", "122", "123", "124", "17", "8"}[n.IntN(7)]
	r.Text[event.TAgentOS] = []string{"Windows", "macOS", "Linux", "iOS", "Android"}[n.IntN(5)]
	r.Text[event.TUserID] = g.users[user]
	r.Text[event.TSessionID] = "k1:" + text
	r.Text[event.TOrganization] = fmt.Sprintf("org_%d", user%200)
	r.Text[event.TWorkspace] = fmt.Sprintf("ws_%d", user%5000)
	r.Text[event.TServiceName] = "api"
	r.Text[event.TServiceVersion] = "1.42.0"
	r.Text[event.TRegion] = []string{"eu-west-1", "us-east-1"}[n.IntN(2)]
	r.Text[event.TPlanTier] = []string{"free", "pro", "enterprise"}[n.IntN(3)]
	r.Number[event.NStatus] = []float64{200, 200, 201, 404, 500}[n.IntN(5)]
	r.Number[event.NDuration] = n.Float64()
	r.Number[event.NResponseSize] = float64(n.IntN(100_000))
	r.SubjectKeys = append(r.SubjectKeys, "user:"+g.users[user], "session:"+r.Text[event.TSessionID])
	return r
}

// rows returns the next n rows; they are valid until the next call.
func (g *generator) rows(n int) []event.Row {
	g.list = slices.Grow(g.list[:0], n)[:n]
	for i := range g.list {
		g.row.SubjectKeys = nil
		g.list[i] = *g.next()
	}
	return g.list
}

func cpu() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkBatch measures what a row costs the ingester before the network: Add,
// sort, encode and, where named, compress, for batches of 100,000 rows.
func BenchmarkBatch(b *testing.B) {
	// Rows come in small groups, so that they are as warm as one that the
	// redactor has just filled.
	const group = 500
	g := newGenerator()
	for _, method := range []struct {
		name   string
		frames *compress.Writer
	}{{"plain", nil}, {"lz4", compress.NewWriter(0, compress.LZ4)}, {"zstd", compress.NewWriter(1, compress.ZSTD)}} {
		b.Run(method.name, func(b *testing.B) {
			batch := newBatch()
			var sent int64
			var add, sorted, encoded time.Duration
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			var peak uint64
			for b.Loop() {
				batch.Reset()
				for range 100_000 / group {
					rows := g.rows(group)
					start := cpu()
					for i := range rows {
						batch.Add(&rows[i])
					}
					add += cpu() - start
				}
				sent = 0
				for _, d := range batch.sorted() {
					start := cpu()
					d.sort()
					sorted += cpu() - start
					start = cpu()
					n, err := io.Copy(io.Discard, &blockReader{in: d.input(d.order), rows: d.rows, frames: method.frames})
					if err != nil {
						b.Fatal(err)
					}
					encoded += cpu() - start
					sent += n
				}
				if peak == 0 {
					runtime.GC()
					runtime.ReadMemStats(&after)
					peak = after.HeapAlloc - min(before.HeapAlloc, after.HeapAlloc)
				}
			}
			n := float64(b.N) * 100_000
			b.ReportMetric(float64((add+sorted+encoded).Nanoseconds())/n, "cpu-ns/row")
			b.ReportMetric(float64(add.Nanoseconds())/n, "add-ns/row")
			b.ReportMetric(float64(sorted.Nanoseconds())/n, "sort-ns/row")
			b.ReportMetric(float64(encoded.Nanoseconds())/n, "encode-ns/row")
			b.ReportMetric(float64(sent)/100_000, "B/row")
			b.ReportMetric(float64(peak)/(1<<20), "MiB")
		})
	}
}
