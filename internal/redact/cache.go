package redact

import "hash/maphash"

// ways is how many places a key has. With four, nearly every key of a half-full
// cache finds one.
const ways = 4

// cache is a set-associative memory of fixed size: a new entry drops the oldest
// one of its set. It holds no keys, only 128 bits of each, which are as
// good as exact: a seed unknown to the sender makes them, and of a million
// values two collide once in 10^26 runs.
type cache[V any] struct {
	sets  [][ways]cached[V]
	shift uint
	seeds [2]maphash.Seed
}

type cached[V any] struct {
	key   [2]uint64 // zero: empty
	value V
}

func newCache[V any](setBits uint) cache[V] {
	return cache[V]{
		sets:  make([][ways]cached[V], 1<<setBits),
		shift: 64 - setBits,
		seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
	}
}

// text returns the key of a text.
func (c *cache[V]) text(s string) [2]uint64 {
	return [2]uint64{maphash.String(c.seeds[0], s), maphash.String(c.seeds[1], s)}
}

func (c *cache[V]) set(key [2]uint64) *[ways]cached[V] {
	return &c.sets[(key[0]^key[1]*0xff51afd7ed558ccd)*0x9e3779b97f4a7c15>>c.shift]
}

// find returns the value of a key, or nil.
func (c *cache[V]) find(key [2]uint64) *V {
	set := c.set(key)
	for i := range set {
		if set[i].key == key && key != [2]uint64{} {
			return &set[i].value
		}
	}
	return nil
}

func (c *cache[V]) put(key [2]uint64, value V) {
	set := c.set(key)
	copy(set[1:], set[:ways-1])
	set[0] = cached[V]{key, value}
}

// The sizes of the caches, in sets of four.
const (
	hashSets  = 15 // 2^17 e-mails and as many sessions, 4 MiB each
	agentSets = 13 // 2^15 user agents, 2 MiB and the strings

	fingerprintSets = 11 // 2^13 subjects, 0.5 MiB and the hashes
)

// hashes remembers the keyed hashes of one kind of value.
type hashes struct {
	key            *key
	prefix, domain string
	known          cache[[hashBytes]byte]
	scratch        []byte
}

func newHashes(k *key, prefix, domain string) *hashes {
	return &hashes{key: k, prefix: prefix, domain: domain, known: newCache[[hashBytes]byte](hashSets)}
}

// append appends the subject key of a value, prefix + "<key id>:<hash>".
func (h *hashes) append(dst []byte, value string) []byte {
	dst = append(dst, h.prefix...)
	k := h.known.text(value)
	if sum := h.known.find(k); sum != nil {
		return h.key.appendSum(dst, sum)
	}
	var sum [hashBytes]byte
	sum, h.scratch = h.key.sum(h.scratch, h.domain, value)
	h.known.put(k, sum)
	return h.key.appendSum(dst, &sum)
}
