package store

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
)

// sortKey is what most comparisons of two rows need: 40 bytes instead of the row.
type sortKey struct {
	organization uint32 // rank
	row          uint32
	user         [2]uint64 // the first 16 bytes, zero-padded, big-endian
	occurred     int64
}

// sort makes the block ready to be sent: it fills order with the rows in the
// table's sorting key, and pads the columns. ClickHouse takes a sorted block as it
// is; an unsorted one costs it three times as much.
func (b *block) sort() {
	if len(b.order) == b.rows {
		return
	}
	ranks := b.organization.ranks()
	b.keys = slices.Grow(b.keys[:0], b.rows)[:b.rows]
	for i := range b.keys {
		row := uint32(i)
		k := &b.keys[i]
		*k = sortKey{organization: ranks[b.organization.of(row)], row: row, occurred: int64(b.occurred.at64(row))}
		if user := b.user.value(row); len(user) >= 16 {
			k.user[0], k.user[1] = binary.BigEndian.Uint64(user), binary.BigEndian.Uint64(user[8:])
		} else if len(user) > 0 {
			var padded [16]byte
			copy(padded[:], user)
			k.user[0], k.user[1] = binary.BigEndian.Uint64(padded[:]), binary.BigEndian.Uint64(padded[8:])
		}
	}
	slices.SortFunc(b.keys, b.compare)
	b.order = slices.Grow(b.order[:0], b.rows)[:b.rows]
	for i := range b.keys {
		b.order[i] = b.keys[i].row
	}
	for _, c := range b.columns {
		if !c.empty() {
			c.pad(b.rows)
		}
	}
}

func (b *block) compare(x, y sortKey) int {
	switch {
	case x.organization != y.organization:
		return cmp.Compare(x.organization, y.organization)
	case x.user[0] != y.user[0]:
		return cmp.Compare(x.user[0], y.user[0])
	case x.user[1] != y.user[1]:
		return cmp.Compare(x.user[1], y.user[1])
	}
	if x.user[0] != 0 {
		if c := bytes.Compare(b.user.value(x.row), b.user.value(y.row)); c != 0 {
			return c
		}
	}
	if c := cmp.Compare(x.occurred, y.occurred); c != 0 {
		return c
	}
	if s, t := b.source.of(x.row), b.source.of(y.row); s != t {
		return bytes.Compare(b.source.value(s), b.source.value(t))
	}
	if c := bytes.Compare(b.id.value(x.row), b.id.value(y.row)); c != 0 {
		return c
	}
	if s, t := b.topic.of(x.row), b.topic.of(y.row); s != t {
		return bytes.Compare(b.topic.value(s), b.topic.value(t))
	}
	return cmp.Or(
		cmp.Compare(int32(b.partition.at32(x.row)), int32(b.partition.at32(y.row))),
		cmp.Compare(int64(b.offset.at64(x.row)), int64(b.offset.at64(y.row))),
		cmp.Compare(x.row, y.row))
}
