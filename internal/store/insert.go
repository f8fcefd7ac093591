package store

import (
	"context"
	"io"
	"strconv"
	"strings"

	"github.com/ClickHouse/ch-go/compress"
	"github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// Insert writes the batch, one sorted INSERT per table and partition value, and
// returns when all of it is on disk. The token names the offsets in the batch:
// after an error the same rows MUST be inserted again with the same token, which
// skips what is already there, and other rows MUST NOT use it.
//
// A permanent error means that ClickHouse refuses the data itself; InsertRows
// finds out which rows.
func (s *Store) Insert(ctx context.Context, b *Batch, token string) error {
	for _, d := range b.sorted() {
		if err := s.insert(ctx, d, 0, d.rows, token); err != nil {
			return err
		}
	}
	return nil
}

// InsertRows writes some of the batch's rows with one INSERT: those of one part
// from place from to below place to, in the part's order. A whole part has the
// token that it has in Insert under the same token, so that what is there already
// is skipped; a share of it has one of its own. The batch MUST NOT change between
// calls that belong together.
func (s *Store) InsertRows(ctx context.Context, b *Batch, part, from, to int, token string) error {
	return s.insert(ctx, b.sorted()[part], from, to, token)
}

func (s *Store) insert(ctx context.Context, d *block, from, to int, token string) error {
	d.sort()
	name := []string{token, d.kind.Table(), d.class, strconv.Itoa(int(d.bucket))}
	if to-from < d.rows {
		name = append(name, strconv.Itoa(from), strconv.Itoa(to))
	}
	settings := insertSettings()
	settings["insert_deduplication_token"] = strings.Join(name, "|")
	return wrap("insert "+d.kind.Table(), s.blocks.send(ctx, d, d.order[from:to], settings))
}

// insertSettings is what every insert states, whatever the server's defaults:
// the answer comes when the rows are stored, and blocks are taken as they are.
// That they are also synced to disk is a setting of the tables.
func insertSettings() clickhouse.Settings {
	return clickhouse.Settings{
		"async_insert":                    0,
		"insert_deduplicate":              1,
		"optimize_on_insert":              0, // merges remove repeats later, at a third of the cost
		"max_partitions_per_insert_block": 0,
		"distributed_foreground_insert":   1,
		"insert_quorum":                   "auto",
	}
}

// input returns the block's columns as the Native format wants them, with the
// rows of order, without those that have no value in any row.
func (b *block) input(order []uint32) proto.Input {
	in := make(proto.Input, 0, len(b.columns))
	for _, c := range b.columns {
		if !c.empty() {
			in = append(in, proto.InputColumn{Name: c.name, Data: &sortedColumn{c.column, order}})
		}
	}
	return in
}

// statement returns the INSERT for those columns. Their names are our own.
func (b *block) statement(in proto.Input) string {
	names := make([]string, len(in))
	for i, c := range in {
		names[i] = c.Name
	}
	return "INSERT INTO " + b.kind.Table() + " (" + strings.Join(names, ", ") + ")"
}

// sortedColumn is a column in the order of its block, for both protocols.
type sortedColumn struct {
	column
	order []uint32
}

func (c *sortedColumn) Type() proto.ColumnType { return c.kind() }
func (c *sortedColumn) Rows() int              { return len(c.order) }

// EncodeState writes what comes before the first block of a column.
func (c *sortedColumn) EncodeState(b *proto.Buffer) {
	if c.kind() == proto.ColumnTypeLowCardinality.Sub(proto.ColumnTypeString) {
		b.PutUInt64(keysVersion)
	}
}

func (c *sortedColumn) EncodeColumn(b *proto.Buffer) { b.Buf = c.encode(b.Buf, c.order) }

// WriteColumn sends the column at once, so that the native protocol, too, never
// holds a whole block a second time. A write that fails breaks the connection;
// the client's own next write reports it.
func (c *sortedColumn) WriteColumn(w *proto.Writer) {
	w.ChainBuffer(c.EncodeColumn)
	_, _ = w.Flush()
}

// httpSender posts blocks in the Native format.
type httpSender struct {
	conn     driver.Conn
	compress bool
	method   compress.Method
	level    compress.Level
}

func newHTTPSender(conn driver.Conn, o *clickhouse.Options) *httpSender {
	s := &httpSender{conn: conn}
	if c := o.Compression; c != nil && c.Method != clickhouse.CompressionNone {
		// Any method the DSN asks for that is no framing of ClickHouse's own
		// (gzip, br) is left to the client library.
		switch c.Method {
		case clickhouse.CompressionLZ4:
			s.compress, s.method = true, compress.LZ4
		case clickhouse.CompressionZSTD:
			s.compress, s.method, s.level = true, compress.ZSTD, 1
		}
	}
	return s
}

func (s *httpSender) close() error { return nil }

func (s *httpSender) send(ctx context.Context, b *block, order []uint32, settings clickhouse.Settings) error {
	settings["wait_end_of_query"] = 1 // the status says how it went, not only that it began
	body := &blockReader{in: b.input(order), rows: len(order)}
	if s.compress {
		settings["decompress"] = 1
		body.frames = compress.NewWriter(s.level, s.method)
	}
	ctx = clickhouse.Context(ctx, clickhouse.WithSettings(settings))
	return s.conn.InsertFormat(ctx, "Native", b.statement(body.in), body)
}

// blockReader encodes a block while it is read, one column at a time, so that
// a block never exists in memory a second time.
type blockReader struct {
	in     proto.Input
	rows   int
	next   int // column
	frames *compress.Writer

	buf     proto.Buffer
	pending []byte // encoded, not yet framed
	out     []byte // ready to be read
}

// frameSize is how much goes into one compressed frame.
const frameSize = 1 << 20

func (r *blockReader) Read(p []byte) (int, error) {
	for len(r.out) == 0 {
		if err := r.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.out)
	r.out = r.out[n:]
	return n, nil
}

// fill makes the next bytes ready.
func (r *blockReader) fill() error {
	if len(r.pending) == 0 {
		if r.next == len(r.in) {
			return io.EOF
		}
		r.buf.Reset()
		if r.next == 0 {
			r.buf.PutInt(len(r.in))
			r.buf.PutInt(r.rows)
		}
		c := r.in[r.next]
		r.next++
		c.EncodeStart(&r.buf, 0) // HTTP inserts are read at protocol revision 0
		if s, ok := c.Data.(proto.StateEncoder); ok {
			s.EncodeState(&r.buf)
		}
		c.Data.EncodeColumn(&r.buf)
		r.pending = r.buf.Buf
	}
	if r.frames == nil {
		r.out, r.pending = r.pending, nil
		return nil
	}
	n := min(len(r.pending), frameSize)
	if err := r.frames.Compress(r.pending[:n]); err != nil {
		return err
	}
	r.out, r.pending = r.frames.Data, r.pending[n:]
	return nil
}
