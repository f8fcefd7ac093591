package store

import (
	"encoding/binary"
	"math"

	"github.com/ClickHouse/ch-go/proto"

	"github.com/lethe-audit/lethe/internal/event"
)

// block holds the rows of one table and partition value: what one INSERT carries.
type block struct {
	blockKey
	rows int

	id                                  text
	source, typ, policy, topic          dictionary
	occurred, received, retained, moved fixed
	partition, offset, trace, span      fixed
	subjects, owners                    list
	metadata                            pairs
	texts                               []textField
	numbers                             []numberField
	organization                        *dictionary
	user                                *text
	columns                             []named // all of them, in the order in which they are sent
	keys                                []sortKey
	order                               []uint32 // the rows in the table's sorting key; as long as rows once sorted
}

// blockKey is a partition value of one table.
type blockKey struct {
	kind   event.Kind
	class  string
	bucket int32
}

type named struct {
	name string
	column
}

type textField struct {
	field event.Text
	few   *dictionary // where values repeat, else
	many  *text
}

type numberField struct {
	field event.Num
	plain *fixed // where 0 says absent, else
	null  *nullable
}

func newBlock(kind event.Kind) *block {
	b := &block{
		occurred:  fixed{width: 8, typ: "DateTime64(3, 'UTC')"},
		received:  fixed{width: 8, typ: "DateTime64(3, 'UTC')"},
		retained:  fixed{width: 4, typ: "DateTime('UTC')"},
		moved:     fixed{width: 4, typ: "UInt32"},
		partition: fixed{width: 4, typ: "Int32"},
		offset:    fixed{width: 8, typ: "Int64"},
		trace:     fixed{width: 16, typ: "FixedString(16)"},
		span:      fixed{width: 8, typ: "FixedString(8)"},
	}
	b.kind = kind
	b.columns = []named{
		{"occurred_at", &b.occurred}, {"received_at", &b.received},
		{"source", &b.source}, {"id", &b.id}, {"type", &b.typ},
		{"retention_class", sameClass{b}}, {"bucket", sameBucket{b}},
		{"retained_from", &b.retained}, {"expires_override", &b.moved}, {"policy_version", &b.policy},
		{"src_topic", &b.topic}, {"src_partition", &b.partition}, {"src_offset", &b.offset},
		{"subject_keys", &b.subjects}, {"target_owner_id", &b.owners},
		{"trace_id", &b.trace}, {"span_id", &b.span}, {"metadata", &b.metadata},
	}
	for i, f := range event.Texts {
		if !f.Kinds.Has(kind) {
			continue
		}
		t := textField{field: event.Text(i)}
		if f.Dictionary {
			t.few = new(dictionary)
			b.columns = append(b.columns, named{f.Column(), t.few})
		} else {
			t.many = new(text)
			b.columns = append(b.columns, named{f.Column(), t.many})
		}
		switch event.Text(i) {
		case event.TOrganization:
			b.organization = t.few
		case event.TUserID:
			b.user = t.many
		}
		b.texts = append(b.texts, t)
	}
	for i, f := range event.Numbers {
		if !f.Kinds.Has(kind) {
			continue
		}
		n := numberField{field: event.Num(i)}
		width, isNullable := numberWidth(f.ClickHouse)
		if isNullable {
			n.null = &nullable{fixed: fixed{width: width, typ: proto.ColumnType(f.ClickHouse)}}
			b.columns = append(b.columns, named{f.Column(), n.null})
		} else {
			n.plain = &fixed{width: width, typ: proto.ColumnType(f.ClickHouse)}
			b.columns = append(b.columns, named{f.Column(), n.plain})
		}
		b.numbers = append(b.numbers, n)
	}
	return b
}

// numberWidth knows the column types of event.Numbers; a test holds that it
// knows all of them.
func numberWidth(typ string) (width int, isNullable bool) {
	switch typ {
	case "UInt16":
		return 2, false
	case "Nullable(UInt8)", "Nullable(Bool)":
		return 1, true
	case "Nullable(UInt64)", "Nullable(Float64)":
		return 8, true
	}
	return 0, false
}

func (b *block) reset() {
	b.rows = 0
	b.order = b.order[:0]
	for _, c := range b.columns {
		c.reset()
	}
}

// add copies a row and returns about how many bytes it takes.
func (b *block) add(r *event.Row) (size int) {
	row := b.rows
	b.rows++
	b.occurred.put64(row, uint64(r.OccurredAt.UnixMilli()))
	b.received.put64(row, uint64(r.ReceivedAt.UnixMilli()))
	b.retained.put32(row, uint32(r.RetainedFrom.Unix()))
	if r.ExpiresOverride != 0 {
		b.moved.put32(row, r.ExpiresOverride)
	}
	b.partition.put32(row, uint32(r.Partition))
	b.offset.put64(row, uint64(r.Offset))
	b.id.add(row, r.ID)
	b.source.add(row, r.Source)
	b.typ.add(row, r.Type)
	b.policy.add(row, r.PolicyVersion)
	b.topic.add(row, r.Topic)
	b.subjects.add(row, r.SubjectKeys)
	b.owners.add(row, r.Owners)
	b.metadata.add(row, r.Metadata)
	if r.TraceID != ([16]byte{}) {
		b.trace.put(row, r.TraceID[:])
	}
	if r.SpanID != ([8]byte{}) {
		b.span.put(row, r.SpanID[:])
	}
	size = 96 + len(r.ID)
	for i := range b.texts {
		t := &b.texts[i]
		v := r.Text[t.field]
		if v == "" {
			continue
		}
		if t.few != nil {
			t.few.add(row, v)
			size += 2
		} else {
			t.many.add(row, v)
			size += len(v) + 5
		}
	}
	for i := range b.numbers {
		n := &b.numbers[i]
		v := r.Number[n.field]
		if math.IsNaN(v) {
			continue
		}
		c := n.plain
		if n.null != nil {
			n.null.has(row)
			c = &n.null.fixed
		}
		c.putNumber(row, v)
	}
	for _, k := range r.SubjectKeys {
		size += len(k) + 1
	}
	for _, k := range r.Owners {
		size += len(k) + 1
	}
	for _, p := range r.Metadata {
		size += len(p.Key) + len(p.Value) + 2
	}
	return size
}

// putNumber stores v in the column's own type. A value outside of its range
// becomes its nearest one.
func (c *fixed) putNumber(row int, v float64) {
	if c.typ == "Nullable(Float64)" {
		c.put64(row, math.Float64bits(v))
		return
	}
	v = max(v, 0)
	switch c.width {
	case 1:
		c.skip(row)
		c.values = append(c.values, byte(min(v, math.MaxUint8)))
	case 2:
		c.put16(row, uint16(min(v, math.MaxUint16)))
	default:
		c.put64(row, uint64(min(v, 1<<63)))
	}
}

// sameClass and sameBucket are the two columns that are equal in all rows of a block.
type (
	sameClass  struct{ *block }
	sameBucket struct{ *block }
)

func (c sameClass) kind() proto.ColumnType { return "LowCardinality(String)" }
func (c sameClass) empty() bool            { return false }
func (c sameClass) pad(int)                {}
func (c sameClass) reset()                 {}

func (c sameClass) encode(dst []byte, order []uint32) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, keysHeld)
	dst = binary.LittleEndian.AppendUint64(dst, 1)
	dst = binary.AppendUvarint(dst, uint64(len(c.class)))
	dst = append(dst, c.class...)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(len(order)))
	return append(dst, make([]byte, len(order))...)
}

func (c sameBucket) kind() proto.ColumnType { return "Date" }
func (c sameBucket) empty() bool            { return false }
func (c sameBucket) pad(int)                {}
func (c sameBucket) reset()                 {}

func (c sameBucket) encode(dst []byte, order []uint32) []byte {
	for range order {
		dst = binary.LittleEndian.AppendUint16(dst, uint16(c.bucket))
	}
	return dst
}
