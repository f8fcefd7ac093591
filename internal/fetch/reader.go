package fetch

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"time"
	"unsafe"
)

// ErrCorrupt says that the bytes of a batch are not what was written: the broker
// sent them again, or sends them damaged every time.
var ErrCorrupt = errors.New("corrupt record batch")

// ErrFormat says that a batch is in a form that is not read: messages older
// than Kafka 0.11, an unknown compression, or more than 64 MiB uncompressed.
var ErrFormat = errors.New("unsupported record batch")

// Header is one header of a record.
type Header struct {
	Key   string
	Value []byte
}

// Record is one record. Its memory is the reader's or the answer's: it stays
// valid until Reader.Recycle is called and the answer is released.
type Record struct {
	Offset int64
	// Time is in milliseconds since 1970: the broker's clock at append where
	// Appended says so, else whatever the publisher set.
	Time     int64
	Appended bool
	Key      []byte // nil: none
	Value    []byte // nil: none
	Headers  []Header
}

// Sizes and places in the header of a batch (message format 2).
const (
	headerLen   = 61
	crcFrom     = 21 // the checksum covers everything from the attributes on
	offLength   = 8
	offMagic    = 16
	offCRC      = 17
	offAttrs    = 21
	offLast     = 23
	offFirstTS  = 27
	offMaxTS    = 35
	offProducer = 43
	offCount    = 57
	lengthFrom  = 12 // the length counts from here

	codecMask     = 7
	logAppendTime = 1 << 3
	transactional = 1 << 4
	control       = 1 << 5
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// end returns the offset after the last whole batch of a record set, or 0.
func end(raw []byte) (next int64) {
	for len(raw) >= headerLen {
		n := batchLen(raw)
		if n < headerLen || n > len(raw) || raw[offMagic] != 2 {
			break
		}
		next = int64(binary.BigEndian.Uint64(raw)) + int64(int32(binary.BigEndian.Uint32(raw[offLast:]))) + 1
		raw = raw[n:]
	}
	return next
}

// times returns what the first batch says of when it was written and appended.
func times(raw []byte) (written, appended time.Time) {
	if len(raw) < headerLen || raw[offMagic] != 2 {
		return written, appended
	}
	written = time.UnixMilli(int64(binary.BigEndian.Uint64(raw[offFirstTS:])))
	if binary.BigEndian.Uint16(raw[offAttrs:])&logAppendTime != 0 {
		appended = time.UnixMilli(int64(binary.BigEndian.Uint64(raw[offMaxTS:])))
		written = appended
	}
	return written, appended
}

func batchLen(raw []byte) int {
	return int(int32(binary.BigEndian.Uint32(raw[offLength:]))) + lengthFrom
}

// Reader reads the records of answers, one after another. It is used by one
// goroutine; its buffers are reused. The zero Reader is ready for Reset.
type Reader struct {
	raw     []byte
	next    int64 // everything below has been read or passed over
	aborted []Aborted
	open    map[int64]bool // producers in an aborted transaction

	// The batch that is being read.
	body     []byte
	left     int
	base     int64
	last     int64
	firstTS  int64
	maxTS    int64
	appended bool
	headers  []Header

	inflate inflater
}

// Reset begins an answer at an offset; records below it are passed over.
func (r *Reader) Reset(a *Answer, from int64) {
	r.raw, r.body, r.left = nil, nil, 0
	if a.set != nil {
		r.raw = a.set.raw
	}
	r.next = from
	r.aborted = append(r.aborted[:0], a.aborted...)
	slices.SortFunc(r.aborted, func(x, y Aborted) int { return cmp.Compare(x.First, y.First) })
	clear(r.open)
}

// Next fills rec with the next record and returns true, or returns false at the
// end of the answer. Records of aborted transactions and control records are
// passed over. An error wraps ErrCorrupt or ErrFormat; Offset then tells where.
func (r *Reader) Next(rec *Record) (bool, error) {
	for {
		for r.left > 0 {
			r.left--
			if err := r.record(rec); err != nil {
				return false, fmt.Errorf("read batch at offset %d: %w", r.base, err)
			}
			if rec.Offset >= r.next {
				r.next = rec.Offset + 1
				return true, nil
			}
		}
		if r.body != nil {
			r.body = nil
			r.next = max(r.next, r.last+1)
		}
		more, err := r.batch()
		if err != nil {
			return false, fmt.Errorf("read batch at offset %d: %w", r.base, err)
		}
		if !more {
			return false, nil
		}
	}
}

// Offset returns the offset after everything that was read or passed over.
func (r *Reader) Offset() int64 { return r.next }

// Recycle allows the memory of the records that Next has given to be used again.
func (r *Reader) Recycle() {
	r.inflate.recycle()
	r.headers = r.headers[:0]
}

// batch begins the next batch that has records to read; false at the end.
func (r *Reader) batch() (bool, error) {
	for len(r.raw) >= headerLen {
		b := r.raw
		r.base = int64(binary.BigEndian.Uint64(b))
		if b[offMagic] != 2 {
			return false, fmt.Errorf("%w: message format %d", ErrFormat, b[offMagic])
		}
		n := batchLen(b)
		if n < headerLen {
			return false, fmt.Errorf("%w: length %d", ErrCorrupt, n)
		}
		if n > len(b) {
			break // cut off by the size that was asked for
		}
		b, r.raw = b[:n], b[n:]
		// The checksum first: not even the offsets are to be believed without it.
		if crc32.Checksum(b[crcFrom:], castagnoli) != binary.BigEndian.Uint32(b[offCRC:]) {
			return false, fmt.Errorf("%w: checksum differs", ErrCorrupt)
		}
		delta := int32(binary.BigEndian.Uint32(b[offLast:]))
		r.last = r.base + int64(delta)
		if r.base < 0 || delta < 0 || r.last < r.base {
			return false, fmt.Errorf("%w: offsets from %d by %d", ErrCorrupt, r.base, delta)
		}
		if r.last < r.next {
			continue // read before
		}
		attrs := binary.BigEndian.Uint16(b[offAttrs:])
		skip, err := r.skip(b, attrs)
		if err != nil {
			return false, err
		}
		if skip {
			r.next = r.last + 1
			continue
		}
		r.left = int(int32(binary.BigEndian.Uint32(b[offCount:])))
		if r.left <= 0 { // compaction took every record
			r.left = 0
			r.next = r.last + 1
			continue
		}
		r.firstTS = int64(binary.BigEndian.Uint64(b[offFirstTS:]))
		r.maxTS = int64(binary.BigEndian.Uint64(b[offMaxTS:]))
		r.appended = attrs&logAppendTime != 0
		r.body, err = r.inflate.decode(attrs&codecMask, b[headerLen:])
		if err != nil {
			return false, err
		}
		return true, nil
	}
	r.raw = nil
	return false, nil
}

// skip keeps account of transactions and reports whether a batch holds nothing
// that a reader of committed records may see.
func (r *Reader) skip(b []byte, attrs uint16) (bool, error) {
	producer := int64(binary.BigEndian.Uint64(b[offProducer:]))
	for len(r.aborted) > 0 && r.aborted[0].First <= r.last {
		if r.open == nil {
			r.open = make(map[int64]bool)
		}
		r.open[r.aborted[0].Producer] = true
		r.aborted = r.aborted[1:]
	}
	if attrs&control != 0 {
		aborts, err := r.aborts(b, attrs)
		if err != nil {
			return false, err
		}
		if aborts {
			delete(r.open, producer)
		}
		return true, nil
	}
	return attrs&transactional != 0 && r.open[producer], nil
}

// aborts reports whether a control batch ends a transaction by aborting it.
func (r *Reader) aborts(b []byte, attrs uint16) (bool, error) {
	body, err := r.inflate.decode(attrs&codecMask, b[headerLen:])
	if err != nil {
		return false, err
	}
	if int32(binary.BigEndian.Uint32(b[offCount:])) < 1 {
		return false, nil
	}
	defer func(body []byte, base, last int64) { r.body, r.base, r.last = body, base, last }(r.body, r.base, r.last)
	r.body = body
	var marker Record
	if err := r.record(&marker); err != nil {
		return false, err
	}
	// Key: version and type, two bytes each. Type 0 aborts, 1 commits.
	return len(marker.Key) >= 4 && binary.BigEndian.Uint16(marker.Key[2:]) == 0, nil
}

// record parses one record from the front of the body.
func (r *Reader) record(rec *Record) error {
	size, b, ok := varint(r.body)
	if !ok || size < 0 || size > int64(len(b)) {
		return fmt.Errorf("%w: a record reaches beyond its batch", ErrCorrupt)
	}
	r.body = b[size:]
	b = b[:size]
	if len(b) == 0 {
		return fmt.Errorf("%w: an empty record", ErrCorrupt)
	}
	var ts, delta, count int64
	var ok1, ok2, ok3, ok4, ok5 bool
	ts, b, ok1 = varint(b[1:]) // the first byte holds attributes that nothing uses
	delta, b, ok2 = varint(b)
	rec.Key, b, ok3 = field(b)
	rec.Value, b, ok4 = field(b)
	count, b, ok5 = varint(b)
	// A header takes two bytes at least: a count that lies costs no memory.
	if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || count < 0 || count > int64(len(b)/2) {
		return fmt.Errorf("%w: a record is cut off", ErrCorrupt)
	}
	rec.Offset = r.base + delta
	if delta < 0 || rec.Offset > r.last {
		return fmt.Errorf("%w: a record lies outside its batch", ErrCorrupt)
	}
	rec.Time, rec.Appended = r.firstTS+ts, r.appended
	if r.appended {
		rec.Time = r.maxTS
	}
	rec.Headers = nil
	if count > 0 {
		return r.recordHeaders(rec, b, int(count))
	}
	return nil
}

func (r *Reader) recordHeaders(rec *Record, b []byte, count int) error {
	// Headers of earlier records stay valid: a full block is left to them.
	if cap(r.headers)-len(r.headers) < count {
		r.headers = make([]Header, 0, max(256, count))
	}
	from := len(r.headers)
	for range count {
		var key, value []byte
		var ok1, ok2 bool
		key, b, ok1 = field(b)
		value, b, ok2 = field(b)
		if !ok1 || !ok2 {
			return fmt.Errorf("%w: a header is cut off", ErrCorrupt)
		}
		// The key shares the record's memory like everything else.
		r.headers = append(r.headers, Header{Key: unsafe.String(unsafe.SliceData(key), len(key)), Value: value})
	}
	rec.Headers = r.headers[from:len(r.headers):len(r.headers)]
	return nil
}

// field reads bytes with their length before them; −1 means none.
func field(b []byte) (f, rest []byte, ok bool) {
	n, b, ok := varint(b)
	if !ok || n > int64(len(b)) {
		return nil, nil, false
	}
	if n < 0 {
		return nil, b, true
	}
	return b[:n:n], b[n:], true
}

// varint reads a zigzag varint.
func varint(b []byte) (v int64, rest []byte, ok bool) {
	if len(b) > 0 && b[0] < 0x80 { // most lengths and deltas
		u := uint64(b[0])
		return int64(u>>1) ^ -int64(u&1), b[1:], true
	}
	u, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, nil, false
	}
	return int64(u>>1) ^ -int64(u&1), b[n:], true
}
