package embedded_test

import (
	"bytes"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/ClickHouse/ch-go/compress"
	"github.com/ClickHouse/ch-go/proto"
)

// BenchmarkSelectOne is what the door adds to the smallest statement.
func BenchmarkSelectOne(b *testing.B) {
	conn := openDriver(b, nil)
	scalar[uint8](b, conn, "SELECT 1")
	for b.Loop() {
		scalar[uint8](b, conn, "SELECT 1")
	}
}

// BenchmarkInsertNative sends blocks of 100,000 sorted rows, as the store does.
func BenchmarkInsertNative(b *testing.B) {
	const rows = 100_000
	at, text := new(proto.ColDateTime), new(proto.ColStr)
	for i := range rows {
		at.Append(time.Unix(1_800_000_000+int64(i/100), 0))
		text.Append(fmt.Sprintf("GET /articles/%d?page=%d HTTP/1.1 from somewhere", i%977, i))
	}
	var buf proto.Buffer
	block := proto.Block{Columns: 2, Rows: rows}
	if err := block.EncodeRawBlock(&buf, 0, []proto.InputColumn{{Name: "at", Data: at}, {Name: "text", Data: text}}); err != nil {
		b.Fatal(err)
	}
	w := compress.NewWriter(0, compress.LZ4)
	if err := w.Compress(buf.Buf); err != nil {
		b.Fatal(err)
	}
	for name, c := range map[string]struct {
		body       []byte
		decompress string
	}{"plain": {buf.Buf, "0"}, "lz4": {w.Data, "1"}} {
		b.Run(name, func(b *testing.B) {
			d := openDoor(b)
			d.post("CREATE TABLE n (at DateTime, text String) ENGINE = MergeTree ORDER BY at SETTINGS fsync_after_insert = 1").must(b)
			b.SetBytes(int64(len(buf.Buf)))
			for b.Loop() {
				d.insert("INSERT INTO n FORMAT Native", c.body, "decompress", c.decompress, "optimize_on_insert", "0").must(b)
			}
			b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

// BenchmarkSelectStream reads a large answer in Native.
func BenchmarkSelectStream(b *testing.B) {
	d := openDoor(b)
	for b.Loop() {
		answer, err := d.client.Do(d.request(b.Context(), bytes.NewReader([]byte("SELECT number, toString(number) FROM numbers(3000000) FORMAT Native"))))
		if err != nil {
			b.Fatal(err)
		}
		n, err := io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(n)
	}
}
