package store

import (
	"encoding/binary"

	"github.com/ClickHouse/ch-go/proto"

	"github.com/lethe-audit/lethe/internal/event"
)

// pairs is a column of maps of strings. Each non-empty map lies in the arena as
// its count, then the keys and the values, each with their encoded length before them.
type pairs struct {
	arena
	at []uint32
}

func (c *pairs) kind() proto.ColumnType { return "Map(String, String)" }
func (c *pairs) empty() bool            { return len(c.at) == 0 }

func (c *pairs) reset() {
	c.arena.reset()
	c.at = c.at[:0]
}

func (c *pairs) add(row int, values []event.Pair) {
	if len(values) == 0 {
		return
	}
	keys, vals := 0, 0
	for _, p := range values {
		keys += uvarintLen(len(p.Key)) + len(p.Key)
		vals += uvarintLen(len(p.Value)) + len(p.Value)
	}
	c.at = skip(c.at, row)
	at, b := c.take(uvarintLen(len(values)) + uvarintLen(keys) + keys + uvarintLen(vals) + vals)
	n := binary.PutUvarint(b, uint64(len(values)))
	n += binary.PutUvarint(b[n:], uint64(keys))
	for _, p := range values {
		n += putString(b[n:], p.Key)
	}
	n += binary.PutUvarint(b[n:], uint64(vals))
	for _, p := range values {
		n += putString(b[n:], p.Value)
	}
	c.at = append(c.at, at)
}

func (c *pairs) pad(rows int) { c.at = skip(c.at, rows) }

func (c *pairs) encode(dst []byte, order []uint32) []byte {
	end := uint64(0)
	for _, row := range order {
		n, _ := uvarint(c.from(c.at[row]))
		end += uint64(n)
		dst = binary.LittleEndian.AppendUint64(dst, end)
	}
	for part := range 2 { // keys, values
		for _, row := range order {
			if c.at[row] == 0 {
				continue
			}
			b := c.from(c.at[row])
			_, w := uvarint(b)
			b = b[w:]
			size, w := uvarint(b)
			if part == 1 {
				b = b[w+size:]
				size, w = uvarint(b)
			}
			dst = append(dst, b[w:w+size]...)
		}
	}
	return dst
}
