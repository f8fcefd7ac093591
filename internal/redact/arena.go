package redact

import "strings"

// blockSize is how much an arena allocates at a time, in bytes.
const blockSize = 64 << 10

// arena makes strings with one allocation per block. A block is never written
// twice: it lives as long as a string in it.
type arena struct{ block strings.Builder }

func (a *arena) keep(p []byte) string {
	a.room(len(p))
	start := a.block.Len()
	a.block.Write(p)
	return a.block.String()[start:]
}

// join returns prefix+s.
func (a *arena) join(prefix, s string) string {
	a.room(len(prefix) + len(s))
	start := a.block.Len()
	a.block.WriteString(prefix)
	a.block.WriteString(s)
	return a.block.String()[start:]
}

func (a *arena) room(n int) {
	if a.block.Cap()-a.block.Len() < n {
		a.block = strings.Builder{}
		a.block.Grow(max(n, blockSize))
	}
}
