package fetch

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
	"sync"
)

// maxRecordSet bounds one partition's part of an answer. Answers are as large as
// was asked for, or one batch, which message.max.bytes bounds.
const maxRecordSet = 256 << 20

// recordSet is the records of one partition as they came.
type recordSet struct{ raw []byte }

// ReadFrom reads the size and the bytes. kafka-go's decoder calls it.
func (s *recordSet) ReadFrom(r io.Reader) (int64, error) {
	var size [4]byte
	if n, err := io.ReadFull(r, size[:]); err != nil {
		return int64(n), fmt.Errorf("read record set: %w", err)
	}
	n := int(int32(binary.BigEndian.Uint32(size[:])))
	if n <= 0 { // null or empty
		return 4, nil
	}
	if n > maxRecordSet {
		return 4, fmt.Errorf("read record set: %d bytes are more than the %d that are read at once", n, maxRecordSet)
	}
	s.raw = buffers.get(n)
	read, err := io.ReadFull(r, s.raw)
	if err != nil {
		s.release()
		return 4 + int64(read), fmt.Errorf("read record set: %w", err)
	}
	return 4 + int64(read), nil
}

func (s *recordSet) release() {
	buffers.put(s.raw)
	s.raw = nil
}

// freeList keeps buffers between answers: at a full load each is megabytes, and
// a sync.Pool would lose them at every collection.
type freeList struct {
	mu    sync.Mutex
	held  int
	limit int // bytes
	free  [][]byte
}

var buffers = freeList{limit: 16 << 20}

func (l *freeList) get(n int) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := len(l.free) - 1; i >= 0; i-- {
		// A small answer must not take the large buffer that the next one needs.
		if c := cap(l.free[i]); c >= n && c/8 <= n {
			b := l.free[i]
			last := len(l.free) - 1
			l.free[i], l.free[last] = l.free[last], nil
			l.free = l.free[:last]
			l.held -= c
			return b[:n]
		}
	}
	// Powers of two, so that a buffer fits the next answer as well.
	return make([]byte, n, max(4096, 1<<bits.Len(uint(n-1))))
}

func (l *freeList) put(b []byte) {
	c := cap(b)
	if c == 0 || c > l.limit {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.held+c > l.limit { // the oldest go: sizes follow the load
		l.held -= cap(l.free[0])
		copy(l.free, l.free[1:])
		l.free[len(l.free)-1] = nil
		l.free = l.free[:len(l.free)-1]
	}
	l.free = append(l.free, b)
	l.held += c
}
