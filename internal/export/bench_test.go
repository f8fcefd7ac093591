package export

import (
	"io"
	"testing"

	"github.com/lethe-audit/lethe/internal/event"
)

func BenchmarkWrite(b *testing.B) {
	r := row(event.Request, "01928f6a-0000-7000-8000-000000000000", func(r *event.Row) {
		r.Text[event.TUserID], r.Text[event.TMethod], r.Text[event.TPath], r.Text[event.TOrganization] = "u", "GET", "/v1/workspaces/42", "org_7"
		r.Number[event.NStatus], r.Number[event.NDuration] = 200, 0.0123
	})
	b.ReportAllocs()
	rows := func(yield func(*event.Row, error) bool) {
		for b.Loop() {
			if !yield(r, nil) {
				return
			}
		}
	}
	if err := Write(io.Discard, order("user:u"), rows, func(uint64) error { return nil }); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkAppendJSON(b *testing.B) {
	r := row(event.Request, "01928f6a-0000-7000-8000-000000000000", func(r *event.Row) { r.Text[event.TUserID] = "u" })
	b.ReportAllocs()
	var buf []byte
	for b.Loop() {
		buf = AppendJSON(buf[:0], r, Mask{})
	}
}
