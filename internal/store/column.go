package store

import (
	"encoding/binary"

	"github.com/ClickHouse/ch-go/proto"
)

// column holds one column of a block in the order in which rows were added.
// Absent values cost nothing until the first present one: a column without any
// is left out of the insert, and ClickHouse fills in the default.
type column interface {
	// kind is the ClickHouse type.
	kind() proto.ColumnType
	// empty reports that no row has a value.
	empty() bool
	// pad makes absent the value of every row below rows that has none.
	pad(rows int)
	// encode appends the rows of order, which pad has reached, to dst as
	// ClickHouse's Native format writes them.
	encode(dst []byte, order []uint32) []byte
	reset()
}

// fixed is a column of values of width bytes, little-endian.
type fixed struct {
	width  int
	typ    proto.ColumnType
	values []byte
}

func (c *fixed) kind() proto.ColumnType { return c.typ }
func (c *fixed) empty() bool            { return len(c.values) == 0 }
func (c *fixed) reset()                 { c.values = c.values[:0] }

func (c *fixed) pad(rows int) { c.skip(rows) }

// skip adds zeros for the rows before row that have no value.
func (c *fixed) skip(row int) {
	if missing := row*c.width - len(c.values); missing > 0 {
		c.values = append(c.values, make([]byte, missing)...)
	}
}

func (c *fixed) put64(row int, v uint64) {
	c.skip(row)
	c.values = binary.LittleEndian.AppendUint64(c.values, v)
}

func (c *fixed) put32(row int, v uint32) {
	c.skip(row)
	c.values = binary.LittleEndian.AppendUint32(c.values, v)
}

func (c *fixed) put16(row int, v uint16) {
	c.skip(row)
	c.values = binary.LittleEndian.AppendUint16(c.values, v)
}

func (c *fixed) put(row int, v []byte) {
	c.skip(row)
	c.values = append(c.values, v...)
}

func (c *fixed) at64(row uint32) uint64 { return binary.LittleEndian.Uint64(c.values[8*int(row):]) }
func (c *fixed) at32(row uint32) uint32 { return binary.LittleEndian.Uint32(c.values[4*int(row):]) }

func (c *fixed) encode(dst []byte, order []uint32) []byte {
	n := len(dst)
	dst = grow(dst, len(order)*c.width)
	out := dst[n:]
	switch c.width {
	case 1:
		for i, row := range order {
			out[i] = c.values[row]
		}
	case 2:
		for i, row := range order {
			binary.LittleEndian.PutUint16(out[2*i:], binary.LittleEndian.Uint16(c.values[2*int(row):]))
		}
	case 4:
		for i, row := range order {
			binary.LittleEndian.PutUint32(out[4*i:], c.at32(row))
		}
	case 8:
		for i, row := range order {
			binary.LittleEndian.PutUint64(out[8*i:], c.at64(row))
		}
	default:
		for i, row := range order {
			copy(out[i*c.width:], c.values[int(row)*c.width:][:c.width])
		}
	}
	return dst
}

// nullable is a column of numbers that a row need not have.
type nullable struct {
	fixed
	present []byte // 1: the row has a value
}

func (c *nullable) reset() {
	c.fixed.reset()
	c.present = c.present[:0]
}

func (c *nullable) has(row int) {
	if missing := row - len(c.present); missing > 0 {
		c.present = append(c.present, make([]byte, missing)...)
	}
	c.present = append(c.present, 1)
}

func (c *nullable) pad(rows int) {
	if missing := rows - len(c.present); missing > 0 {
		c.present = append(c.present, make([]byte, missing)...)
	}
	c.fixed.pad(rows)
}

func (c *nullable) encode(dst []byte, order []uint32) []byte {
	n := len(dst)
	dst = grow(dst, len(order))
	for i, row := range order {
		dst[n+i] = 1 - c.present[row]
	}
	return c.fixed.encode(dst, order)
}

// text is a column of strings. Values lie in the arena as the Native format
// writes them: the length as a varint, then the bytes.
type text struct {
	arena
	at []uint32
}

func (c *text) kind() proto.ColumnType { return proto.ColumnTypeString }
func (c *text) empty() bool            { return len(c.at) == 0 }

func (c *text) reset() {
	c.arena.reset()
	c.at = c.at[:0]
}

func (c *text) add(row int, v string) {
	if v == "" {
		return
	}
	c.at = skip(c.at, row)
	at, b := c.take(uvarintLen(len(v)) + len(v))
	copy(b[binary.PutUvarint(b, uint64(len(v))):], v)
	c.at = append(c.at, at)
}

// value returns the bytes of one row.
func (c *text) value(row uint32) []byte {
	if int(row) >= len(c.at) {
		return nil
	}
	b := c.from(c.at[row])
	n, w := uvarint(b)
	return b[w : w+n]
}

func (c *text) pad(rows int) { c.at = skip(c.at, rows) }

func (c *text) encode(dst []byte, order []uint32) []byte {
	for _, row := range order {
		b := c.from(c.at[row])
		n, w := uvarint(b)
		dst = append(dst, b[:w+n]...)
	}
	return dst
}

// list is a column of arrays of strings. Each non-empty array lies in the arena
// as its count, the length of its encoded strings, and those strings.
type list struct {
	arena
	at []uint32
}

func (c *list) kind() proto.ColumnType { return "Array(String)" }
func (c *list) empty() bool            { return len(c.at) == 0 }

func (c *list) reset() {
	c.arena.reset()
	c.at = c.at[:0]
}

func (c *list) add(row int, values []string) {
	if len(values) == 0 {
		return
	}
	size := 0
	for _, v := range values {
		size += uvarintLen(len(v)) + len(v)
	}
	c.at = skip(c.at, row)
	at, b := c.take(uvarintLen(len(values)) + uvarintLen(size) + size)
	n := binary.PutUvarint(b, uint64(len(values)))
	n += binary.PutUvarint(b[n:], uint64(size))
	for _, v := range values {
		n += putString(b[n:], v)
	}
	c.at = append(c.at, at)
}

func (c *list) pad(rows int) { c.at = skip(c.at, rows) }

func (c *list) encode(dst []byte, order []uint32) []byte {
	end := uint64(0)
	for _, row := range order {
		n, _ := uvarint(c.from(c.at[row]))
		end += uint64(n)
		dst = binary.LittleEndian.AppendUint64(dst, end)
	}
	for _, row := range order {
		if c.at[row] == 0 {
			continue
		}
		b := c.from(c.at[row])
		_, w := uvarint(b)
		size, v := uvarint(b[w:])
		dst = append(dst, b[w+v:w+v+size]...)
	}
	return dst
}

// putString writes a string as the Native format does and returns its length.
func putString(b []byte, v string) int {
	n := binary.PutUvarint(b, uint64(len(v)))
	return n + copy(b[n:], v)
}

// skip adds places of the empty value for the rows before row that have none.
func skip(at []uint32, row int) []uint32 {
	if missing := row - len(at); missing > 0 {
		at = append(at, make([]uint32, missing)...)
	}
	return at
}

// grow makes dst n bytes longer; the new bytes hold anything.
func grow(dst []byte, n int) []byte {
	if cap(dst)-len(dst) < n {
		dst = append(dst, make([]byte, n)...)
		return dst
	}
	return dst[:len(dst)+n]
}

func uvarint(b []byte) (value, width int) {
	if b[0] < 0x80 {
		return int(b[0]), 1
	}
	v, w := binary.Uvarint(b)
	return int(v), w
}

func uvarintLen(v int) int {
	n := 1
	for v >= 0x80 {
		v >>= 7
		n++
	}
	return n
}
