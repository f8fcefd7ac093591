package store

import (
	"encoding/binary"
	"hash/maphash"
	"slices"

	"github.com/ClickHouse/ch-go/proto"
)

// dictionary is a column of few distinct strings, sent as LowCardinality: each
// value once, and per row its number. Number 0 is the empty string.
//
// It is a hash table of its own because the insert costs more in it than in
// everything else: a Go map of strings takes three times as long.
type dictionary struct {
	values []byte  // each value once, as the Native format writes it
	spans  []span  // by number, where its bytes lie in values
	slots  []entry // open addressing, a power of two long
	small  []uint16
	large  []uint32 // used instead of small from 65,536 values on
	last   uint32   // the number that the row before had: often the next one, too
}

type span struct{ at, n uint32 }

// entry holds the span, too: finding a value touches one place less.
type entry struct {
	hash, number uint32 // number 0: free
	span
}

var seed = maphash.MakeSeed()

const firstSlots = 64

func (c *dictionary) kind() proto.ColumnType { return "LowCardinality(String)" }
func (c *dictionary) empty() bool            { return len(c.small) == 0 && len(c.large) == 0 }

func (c *dictionary) reset() {
	c.values, c.spans = c.values[:0], c.spans[:0]
	c.small, c.large = c.small[:0], c.large[:0]
	clear(c.slots)
	c.last = 0
}

func (c *dictionary) add(row int, v string) {
	if v == "" {
		return
	}
	number := c.last
	if number == 0 || string(c.value(number)) != v {
		number = c.number(v)
		c.last = number
	}
	if len(c.large) == 0 && number < 1<<16 {
		if missing := row - len(c.small); missing > 0 {
			c.small = append(c.small, make([]uint16, missing)...)
		}
		c.small = append(c.small, uint16(number))
		return
	}
	if len(c.large) == 0 {
		for _, s := range c.small {
			c.large = append(c.large, uint32(s))
		}
		c.small = c.small[:0]
	}
	c.large = append(skip(c.large, row), number)
}

// of returns the number of a row's value.
func (c *dictionary) of(row uint32) uint32 {
	switch {
	case int(row) < len(c.small):
		return uint32(c.small[row])
	case int(row) < len(c.large):
		return c.large[row]
	}
	return 0
}

// value returns the bytes of a numbered value.
func (c *dictionary) value(number uint32) []byte {
	if number == 0 {
		return nil
	}
	s := c.spans[number]
	return c.values[s.at : s.at+s.n]
}

// number finds a value or adds it.
func (c *dictionary) number(v string) uint32 {
	hash := uint32(maphash.String(seed, v))
	if 2*len(c.spans) >= len(c.slots) {
		c.rehash()
	}
	mask := uint32(len(c.slots) - 1)
	i := hash & mask
	for {
		e := &c.slots[i]
		if e.number == 0 {
			break
		}
		if e.hash == hash && int(e.n) == len(v) && string(c.values[e.at:e.at+e.n]) == v {
			return e.number
		}
		i = (i + 1) & mask
	}
	if len(c.spans) == 0 {
		c.values, c.spans = append(c.values, 0), append(c.spans, span{})
	}
	number := uint32(len(c.spans))
	c.values = binary.AppendUvarint(c.values, uint64(len(v)))
	c.spans = append(c.spans, span{uint32(len(c.values)), uint32(len(v))})
	c.values = append(c.values, v...)
	c.slots[i] = entry{hash, number, c.spans[number]}
	return number
}

func (c *dictionary) rehash() {
	old := c.slots
	c.slots = make([]entry, max(firstSlots, 2*len(old)))
	mask := uint32(len(c.slots) - 1)
	for _, e := range old {
		if e.number == 0 {
			continue
		}
		i := e.hash & mask
		for c.slots[i].number != 0 {
			i = (i + 1) & mask
		}
		c.slots[i] = e
	}
}

// ranks returns for each number the place of its value in their order.
func (c *dictionary) ranks() []uint32 {
	numbers := make([]uint32, len(c.spans))
	for i := range numbers {
		numbers[i] = uint32(i)
	}
	slices.SortFunc(numbers, func(a, b uint32) int {
		return slices.Compare(c.value(a), c.value(b))
	})
	ranks := make([]uint32, max(1, len(numbers)))
	for place, number := range numbers {
		ranks[number] = uint32(place)
	}
	return ranks
}

// The Native format of LowCardinality: a version of the keys, then flags with
// the width of the numbers, the values, the numbers.
const (
	keysVersion = 1
	keysHeld    = 1<<9 | 1<<10 // additional keys, which replace those before
)

func (c *dictionary) pad(rows int) {
	if len(c.large) > 0 {
		c.large = skip(c.large, rows)
	} else if missing := rows - len(c.small); missing > 0 {
		c.small = append(c.small, make([]uint16, missing)...)
	}
}

func (c *dictionary) encode(dst []byte, order []uint32) []byte {
	if len(c.spans) == 0 {
		c.values, c.spans = append(c.values, 0), append(c.spans, span{})
	}
	width := 0
	switch n := len(c.spans); {
	case n > 1<<16:
		width = 2
	case n > 1<<8:
		width = 1
	}
	dst = binary.LittleEndian.AppendUint64(dst, uint64(keysHeld|width))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(len(c.spans)))
	dst = append(dst, c.values...)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(len(order)))
	n := len(dst)
	dst = grow(dst, len(order)<<width)
	out := dst[n:]
	switch width {
	case 0:
		for i, row := range order {
			out[i] = byte(c.small[row])
		}
	case 1:
		for i, row := range order {
			binary.LittleEndian.PutUint16(out[2*i:], c.small[row])
		}
	case 2:
		for i, row := range order {
			binary.LittleEndian.PutUint32(out[4*i:], c.large[row])
		}
	}
	return dst
}
