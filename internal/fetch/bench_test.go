package fetch

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
)

// BenchmarkReader reads records of about 600 bytes from batches of 5,000. One
// operation is one record.
func BenchmarkReader(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, codec := range codecs {
		var raw []byte
		const n, batch = 20_000, 5_000
		for base := int64(0); base < n; base += batch {
			records := make([]Record, batch)
			for i := range records {
				records[i] = Record{Offset: base + int64(i), Time: time.Now().UnixMilli(), Value: fmt.Appendf(nil,
					`{"specversion":"1.0","id":"0192%012x","source":"/svc/api","type":"com.example.request.completed.v1","time":"2026-01-31T10:00:00.%03dZ","datacontenttype":"application/json","data":{"http.request.method":"GET","http.route":"/v1/workspaces/{id}/runs/{run}","url.path":"/v1/workspaces/%d/runs/%d","http.response.status_code":200,"http.server.request.duration":0.0123,"client.address":"203.0.113.%d:51234","user_agent.original":"Mozilla/5.0 (X11; Linux x86_64) Chrome/%d.0","user.id":"u_%d","organization.id":"org_%d","trace_id":"%016x%016x","plan.tier":"pro"}}`,
					r.Uint64(), i%1000, r.IntN(5000), i, r.IntN(256), r.IntN(100), r.IntN(50_000), r.IntN(500), r.Uint64(), r.Uint64())}
			}
			raw = append(raw, encodeKafkaGo(b, codec, base, records)...)
		}
		name := codec.String()
		b.Run(name, func(b *testing.B) {
			var reader Reader
			var rec Record
			b.ReportAllocs()
			for done := 0; done < b.N; done += n {
				reader.Reset(answer(raw), 0)
				for {
					more, err := reader.Next(&rec)
					if err != nil {
						b.Fatal(err)
					}
					if !more {
						break
					}
				}
				reader.Recycle()
			}
		})
		if codec == kafka.Lz4 {
			b.Run(name+" as kafka-go decodes it", func(b *testing.B) {
				b.ReportAllocs()
				for done := 0; done < b.N; done += n {
					if _, err := decodeKafkaGo(raw); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
