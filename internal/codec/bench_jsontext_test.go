//go:build goexperiment.jsonv2

package codec

import (
	"bytes"
	"encoding/json/jsontext"
	"io"
	"testing"
)

// BenchmarkJSONText only reads the tokens of the same event with the strict
// tokenizer that the standard library has as an experiment:
// GOEXPERIMENT=jsonv2 go test -bench JSONText ./internal/codec/
func BenchmarkJSONText(b *testing.B) {
	b.SetBytes(int64(len(requestValue)))
	b.ReportAllocs()
	r := bytes.NewReader(requestValue)
	d := jsontext.NewDecoder(r)
	for b.Loop() {
		r.Reset(requestValue)
		d.Reset(r)
		for {
			if _, err := d.ReadToken(); err == io.EOF {
				break
			} else if err != nil {
				b.Fatal(err)
			}
		}
	}
}
