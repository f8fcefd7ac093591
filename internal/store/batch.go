package store

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
)

// Batch collects rows, column by column, for Insert. Reset keeps its memory, so
// that a batch in steady use allocates next to nothing. It is not safe for
// concurrent use.
type Batch struct {
	blocks map[blockKey]*block
	last   *block
	free   [event.NumKinds][]*block
	rows   int
	bytes  int
}

// NewBatch returns an empty batch.
func (s *Store) NewBatch() *Batch { return newBatch() }

func newBatch() *Batch { return &Batch{blocks: make(map[blockKey]*block)} }

// Add copies a row into the batch; the row and its strings may be reused at once.
func (b *Batch) Add(r *event.Row) {
	d := b.last
	if d == nil || d.kind != r.Kind || d.bucket != r.Bucket || d.class != r.Retention {
		d = b.block(r)
	}
	b.rows++
	b.bytes += d.add(r)
}

func (b *Batch) block(r *event.Row) *block {
	d, ok := b.blocks[blockKey{r.Kind, r.Retention, r.Bucket}]
	if !ok {
		if n := len(b.free[r.Kind]); n > 0 {
			d, b.free[r.Kind] = b.free[r.Kind][n-1], b.free[r.Kind][:n-1]
		} else {
			d = newBlock(r.Kind)
		}
		// The row's strings may be part of a larger record.
		d.blockKey = blockKey{r.Kind, strings.Clone(r.Retention), r.Bucket}
		b.blocks[d.blockKey] = d
	}
	b.last = d
	return d
}

// Rows returns how many rows were added since Reset.
func (b *Batch) Rows() int { return b.rows }

// Bytes returns about how many bytes of memory those rows take.
func (b *Batch) Bytes() int { return b.bytes }

// Parts returns how many inserts, and so parts of tables, the batch becomes.
func (b *Batch) Parts() int { return len(b.blocks) }

// PartRows returns how many rows one of the parts has.
func (b *Batch) PartRows(part int) int { return b.sorted()[part].rows }

// Origin fills row with what names the row at a place of a part, in the part's
// order: its event, its delivery and its cell of the ledger. Everything else of
// it is left alone.
func (b *Batch) Origin(part, place int, row *event.Row) {
	d := b.sorted()[part]
	d.sort()
	n := d.order[place]
	row.Kind, row.Retention, row.Bucket = d.kind, d.class, d.bucket
	row.Source, row.ID = string(d.source.value(d.source.of(n))), string(d.id.value(n))
	row.RetainedFrom = time.Unix(int64(d.retained.at32(n)), 0).UTC()
	row.Topic = string(d.topic.value(d.topic.of(n)))
	row.Partition, row.Offset = int32(d.partition.at32(n)), int64(d.offset.at64(n))
}

// maxFree bounds how many blocks per kind a batch keeps over a Reset: a replay
// of old events opens many partitions once.
const maxFree = 8

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() {
	for _, d := range b.sorted() {
		if len(b.free[d.kind]) < maxFree {
			d.reset()
			b.free[d.kind] = append(b.free[d.kind], d)
		}
	}
	clear(b.blocks)
	b.last, b.rows, b.bytes = nil, 0, 0
}

// sorted returns the blocks in an order that does not depend on the map.
func (b *Batch) sorted() []*block {
	blocks := make([]*block, 0, len(b.blocks))
	for _, d := range b.blocks {
		blocks = append(blocks, d)
	}
	slices.SortFunc(blocks, func(x, y *block) int {
		return cmp.Or(cmp.Compare(x.kind, y.kind), strings.Compare(x.class, y.class), cmp.Compare(x.bucket, y.bucket))
	})
	return blocks
}
