package codec

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
)

// requestValue is a request event of about 600 bytes, as publishers send them.
var requestValue = []byte(`{"specversion":"1.0","id":"01928f6a-7d1c-7aaa-9c1e-0123456789ab","source":"/svc/api","type":"com.example.request.completed.v1",` +
	`"time":"2026-01-31T10:00:00.123Z","datacontenttype":"application/json",` +
	`"data":{"http.request.method":"GET","http.route":"/v1/workspaces/{id}","url.path":"/v1/workspaces/42",` +
	`"http.response.status_code":200,"http.server.request.duration":0.0123,"client.address":"203.0.113.7:51234",` +
	`"user_agent.original":"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0","user.id":"u_42","session.id":"s-0123456789abcdef",` +
	`"organization.id":"org_7","service.name":"api","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","plan.tier":"pro"}}`)

// binaryRequest is the same event in binary mode.
func binaryRequest() (value []byte, headers []Header) {
	i := bytes.Index(requestValue, []byte(`"data":`)) + len(`"data":`)
	return requestValue[i : len(requestValue)-1], []Header{
		{"ce_specversion", []byte("1.0")},
		{"ce_id", []byte("01928f6a-7d1c-7aaa-9c1e-0123456789ab")},
		{"ce_source", []byte("/svc/api")},
		{"ce_type", []byte("com.example.request.completed.v1")},
		{"ce_time", []byte("2026-01-31T10:00:00.123Z")},
		{"content-type", []byte("application/json")},
	}
}

func BenchmarkDecode(b *testing.B) {
	binaryValue, binaryHeaders := binaryRequest()
	escaped := bytes.ReplaceAll(requestValue, []byte("/"), []byte(`\/`))
	unknown := bytes.Replace(requestValue, []byte(`"data":{`), []byte(`"data":{"app.build":"a1","app.flag":true,"process.pid":17,`), 1)
	for _, c := range []struct {
		name    string
		value   []byte
		headers []Header
	}{
		{"structured", requestValue, nil},
		{"binary", binaryValue, binaryHeaders},
		{"escaped", escaped, nil},
		{"unknown", unknown, nil},
	} {
		b.Run(c.name, func(b *testing.B) {
			d, e := NewDecoder(), new(event.Event)
			b.SetBytes(int64(len(c.value)))
			b.ReportAllocs()
			for b.Loop() {
				if err := d.Decode(event.Request, c.value, c.headers, e); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkEncodingJSON is the standard library on the same event, into a
// struct of only the fields it has, without any of the checks.
func BenchmarkEncodingJSON(b *testing.B) {
	b.SetBytes(int64(len(requestValue)))
	b.ReportAllocs()
	for b.Loop() {
		var e struct {
			SpecVersion, ID, Source, Type string
			Time                          time.Time
			Data                          struct {
				Method   string  `json:"http.request.method"`
				Route    string  `json:"http.route"`
				Path     string  `json:"url.path"`
				Status   float64 `json:"http.response.status_code"`
				Duration float64 `json:"http.server.request.duration"`
				Address  string  `json:"client.address"`
				Agent    string  `json:"user_agent.original"`
				User     string  `json:"user.id"`
				Session  string  `json:"session.id"`
				Org      string  `json:"organization.id"`
				Service  string  `json:"service.name"`
				Trace    string  `json:"trace_id"`
				Tier     string  `json:"plan.tier"`
			}
		}
		if err := json.Unmarshal(requestValue, &e); err != nil {
			b.Fatal(err)
		}
	}
}
