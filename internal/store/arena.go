package store

// arena keeps byte strings in chunks that never move, so that growing copies
// nothing. A place is a chunk and a position in it. Place 0 is one zero byte:
// the empty value of every column that uses an arena.
type arena struct {
	chunks [][]byte
}

const (
	chunkBits = 14
	chunkSize = 1 << chunkBits
)

// take returns n fresh bytes and their place. A value longer than a chunk gets
// a chunk of its own.
func (a *arena) take(n int) (place uint32, b []byte) {
	last := len(a.chunks) - 1
	if last < 0 {
		a.push(chunkSize)
		a.chunks[0] = append(a.chunks[0], 0)
		last = 0
	}
	if cap(a.chunks[last])-len(a.chunks[last]) < n {
		a.push(max(n, chunkSize))
		last++
	}
	used := len(a.chunks[last])
	a.chunks[last] = a.chunks[last][:used+n]
	return uint32(last)<<chunkBits | uint32(used), a.chunks[last][used : used+n]
}

// push opens the next chunk: one from before the last reset where it is large enough.
func (a *arena) push(size int) {
	n := len(a.chunks)
	if cap(a.chunks) > n {
		a.chunks = a.chunks[:n+1]
		if cap(a.chunks[n]) >= size {
			a.chunks[n] = a.chunks[n][:0]
			return
		}
		a.chunks[n] = make([]byte, 0, size)
		return
	}
	a.chunks = append(a.chunks, make([]byte, 0, size))
}

var emptyValue = []byte{0}

// from returns the bytes at a place and whatever follows them in the chunk.
func (a *arena) from(place uint32) []byte {
	if place == 0 {
		return emptyValue
	}
	return a.chunks[place>>chunkBits][place&(chunkSize-1):]
}

// reset empties the arena and keeps its ordinary chunks.
func (a *arena) reset() {
	for i, c := range a.chunks {
		if cap(c) > chunkSize {
			a.chunks[i] = nil
		}
	}
	a.chunks = a.chunks[:0]
}
