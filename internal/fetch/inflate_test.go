package fetch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// repairSums makes the checksums of what looks like batches right, so that a
// fuzzer gets past them.
func repairSums(raw []byte) {
	for len(raw) >= headerLen {
		n := batchLen(raw)
		if n < headerLen || n > len(raw) {
			return
		}
		binary.BigEndian.PutUint32(raw[offCRC:], crc32.Checksum(raw[crcFrom:n], castagnoli))
		raw = raw[n:]
	}
}

func content(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, n)
	for i := range b {
		b[i] = "abcdefgh"[r.IntN(8)]
	}
	return b
}

func TestUnlz4ReadsEveryFrame(t *testing.T) {
	want := content(700_000)
	for name, options := range map[string][]lz4.Option{
		"blocks of 64 KiB":      {lz4.BlockSizeOption(lz4.Block64Kb)},
		"blocks of 4 MiB":       {lz4.BlockSizeOption(lz4.Block4Mb)},
		"checksums of blocks":   {lz4.BlockChecksumOption(true)},
		"no checksum":           {lz4.ChecksumOption(false)},
		"the size of the whole": {lz4.SizeOption(uint64(len(want)))},
		"high compression":      {lz4.CompressionLevelOption(lz4.Level5)},
	} {
		var b bytes.Buffer
		w := lz4.NewWriter(&b)
		if err := w.Apply(options...); err != nil {
			t.Fatal(err)
		}
		w.Write(want)
		w.Close()
		got, err := unlz4(nil, b.Bytes())
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: got %d bytes, error %v; want %d bytes", name, len(got), err, len(want))
		}
		for cut := range 40 {
			if _, err := unlz4(nil, b.Bytes()[:b.Len()-1-cut*b.Len()/41]); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s, cut off: got error %v, want %v", name, err, ErrCorrupt)
			}
		}
	}
}

// A block may refer to the one before: librdkafka and the lz4 program write such frames.
func TestUnlz4ReadsLinkedBlocks(t *testing.T) {
	frame := binary.LittleEndian.AppendUint32(nil, lz4Magic)
	frame = append(frame, lz4Version, 4<<4, 0)
	frame = binary.LittleEndian.AppendUint32(frame, lz4Stored|8)
	frame = append(frame, "abcdefgh"...)
	// One literal and a match of 8 from 9 bytes back, then five literals.
	block := append([]byte{1<<4 | 4, 'X', 9, 0, 5 << 4}, "12345"...)
	frame = binary.LittleEndian.AppendUint32(frame, uint32(len(block)))
	frame = append(frame, block...)
	frame = append(frame, 0, 0, 0, 0)
	got, err := unlz4(nil, frame)
	if want := "abcdefghXabcdefgh12345"; err != nil || string(got) != want {
		t.Errorf("got %q, error %v; want %q", got, err, want)
	}
}

func TestUnsnappyReadsBothForms(t *testing.T) {
	want := content(100_000)
	framed := append(slices.Clone(xerial), 0, 0, 0, 1, 0, 0, 0, 1)
	for part := range slices.Chunk(want, 32<<10) {
		block := snappy.Encode(nil, part)
		framed = append(binary.BigEndian.AppendUint32(framed, uint32(len(block))), block...)
	}
	for name, src := range map[string][]byte{"one block": snappy.Encode(nil, want), "a sequence of blocks": framed} {
		got, err := unsnappy(nil, src)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: got %d bytes, error %v; want %d bytes", name, len(got), err, len(want))
		}
	}
	for _, cut := range []int{1, 5, len(framed) - 17, len(framed) - 10} {
		if _, err := unsnappy(nil, framed[:len(framed)-cut]); !errors.Is(err, ErrCorrupt) {
			t.Errorf("cut off by %d: got error %v, want %v", cut, err, ErrCorrupt)
		}
	}
}

// A batch of a megabyte must not unpack to gigabytes.
func TestInflateIsBounded(t *testing.T) {
	bomb := make([]byte, maxInflated+1)
	var gz, lz bytes.Buffer
	g := gzip.NewWriter(&gz)
	g.Write(bomb)
	g.Close()
	l := lz4.NewWriter(&lz)
	l.Write(bomb)
	l.Close()
	z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		code uint16
		src  []byte
	}{
		"gzip": {codeGzip, gz.Bytes()}, "lz4": {codeLZ4, lz.Bytes()},
		"snappy": {codeSnappy, snappy.Encode(nil, bomb)}, "zstd": {codeZstd, z.EncodeAll(bomb, nil)},
	} {
		var i inflater
		if _, err := i.decode(c.code, c.src); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: got error %v, want %v", name, err, ErrFormat)
		}
	}
}

func FuzzInflate(f *testing.F) {
	f.Add(uint16(codeSnappy), snappy.Encode(nil, content(100)))
	var b bytes.Buffer
	w := lz4.NewWriter(&b)
	w.Write(content(1000))
	w.Close()
	f.Add(uint16(codeLZ4), b.Bytes())
	f.Fuzz(func(t *testing.T, code uint16, src []byte) {
		var z inflater
		got, err := z.decode(code, src)
		if err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrFormat) {
			t.Errorf("got error %v of no kind", err)
		}
		if len(got) > maxInflated {
			t.Errorf("got %d bytes, more than %d", len(got), maxInflated)
		}
	})
}
