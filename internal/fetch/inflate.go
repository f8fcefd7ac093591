package fetch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// maxInflated bounds a batch uncompressed: a small batch can unpack to anything.
const maxInflated = 64 << 20

// Compression codes of Kafka.
const (
	plain = iota
	codeGzip
	codeSnappy
	codeLZ4
	codeZstd
)

// inflater decompresses batches into buffers that it uses again after recycle.
type inflater struct {
	current []byte // holds the batch that is being read
	used    [][]byte
	free    [][]byte

	gz    *gzip.Reader
	gzSrc bytes.Reader
	zstd  *zstd.Decoder
}

// keep bounds the buffers that wait for the next batch.
const keep = 4

func (z *inflater) recycle() {
	for _, b := range z.used {
		if len(z.free) < keep {
			z.free = append(z.free, b[:0])
		}
	}
	clear(z.used)
	z.used = z.used[:0]
}

func (z *inflater) buffer() []byte {
	if z.current != nil {
		z.used = append(z.used, z.current)
		z.current = nil
	}
	if n := len(z.free); n > 0 {
		b := z.free[n-1]
		z.free = z.free[:n-1]
		return b
	}
	return make([]byte, 0, 64<<10)
}

// decode returns the records of a batch; those that came plain are not copied.
func (z *inflater) decode(code uint16, src []byte) ([]byte, error) {
	if code == plain {
		return src, nil
	}
	dst := z.buffer()
	var err error
	switch code {
	case codeGzip:
		dst, err = z.gunzip(dst, src)
	case codeSnappy:
		dst, err = unsnappy(dst, src)
	case codeLZ4:
		dst, err = unlz4(dst, src)
	case codeZstd:
		dst, err = z.unzstd(dst, src)
	default:
		return nil, fmt.Errorf("%w: compression %d", ErrFormat, code)
	}
	if err != nil {
		return nil, err
	}
	if dst == nil {
		dst = []byte{}
	}
	z.current = dst
	return dst, nil
}

func tooLarge() error {
	return fmt.Errorf("%w: more than %d bytes uncompressed", ErrFormat, maxInflated)
}

func (z *inflater) gunzip(dst, src []byte) ([]byte, error) {
	z.gzSrc.Reset(src)
	var err error
	if z.gz == nil {
		z.gz, err = gzip.NewReader(&z.gzSrc)
	} else {
		err = z.gz.Reset(&z.gzSrc)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: gzip", ErrCorrupt)
	}
	for {
		if len(dst) == cap(dst) {
			dst = grow(dst, cap(dst))
		}
		n, err := z.gz.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
		if len(dst) > maxInflated {
			return nil, tooLarge()
		}
		if errors.Is(err, io.EOF) {
			return dst, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%w: gzip", ErrCorrupt)
		}
	}
}

func (z *inflater) unzstd(dst, src []byte) ([]byte, error) {
	if z.zstd == nil {
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxMemory(maxInflated), zstd.IgnoreChecksum(true)) // the batch has its own checksum
		if err != nil {
			return nil, fmt.Errorf("start zstd: %w", err)
		}
		z.zstd = d
	}
	dst, err := z.zstd.DecodeAll(src, dst)
	switch {
	case errors.Is(err, zstd.ErrDecoderSizeExceeded), errors.Is(err, zstd.ErrWindowSizeExceeded):
		return nil, tooLarge()
	case err != nil:
		return nil, fmt.Errorf("%w: zstd", ErrCorrupt)
	}
	return dst, nil
}

var xerial = []byte{0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0}

// unsnappy reads one block, or the sequence of blocks that Java clients write.
func unsnappy(dst, src []byte) ([]byte, error) {
	if !bytes.HasPrefix(src, xerial) {
		return snappyBlock(dst, src)
	}
	if len(src) < 16 {
		return nil, fmt.Errorf("%w: snappy", ErrCorrupt)
	}
	var err error
	for src = src[16:]; len(src) > 0; {
		if len(src) < 4 {
			return nil, fmt.Errorf("%w: snappy", ErrCorrupt)
		}
		n := int64(binary.BigEndian.Uint32(src))
		src = src[4:]
		if n > int64(len(src)) {
			return nil, fmt.Errorf("%w: snappy", ErrCorrupt)
		}
		if dst, err = snappyBlock(dst, src[:n]); err != nil {
			return nil, err
		}
		src = src[n:]
	}
	return dst, nil
}

func snappyBlock(dst, src []byte) ([]byte, error) {
	n, err := snappy.DecodedLen(src)
	if err != nil {
		return nil, fmt.Errorf("%w: snappy", ErrCorrupt)
	}
	if n > maxInflated-len(dst) {
		return nil, tooLarge()
	}
	if cap(dst)-len(dst) < n {
		dst = grow(dst, n)
	}
	out, err := snappy.Decode(dst[len(dst):len(dst)+n], src)
	if err != nil {
		return nil, fmt.Errorf("%w: snappy", ErrCorrupt)
	}
	return dst[:len(dst)+len(out)], nil
}

// Fields of an LZ4 frame.
const (
	lz4Magic       = 0x184D2204
	lz4Version     = 0b01 << 6
	lz4VersionMask = 0b11 << 6
	lz4Independent = 1 << 5
	lz4BlockSum    = 1 << 4
	lz4Size        = 1 << 3
	lz4Dictionary  = 1 << 0
	lz4Stored      = 1 << 31
	lz4Window      = 64 << 10
)

// unlz4 reads LZ4 frames. The reader of the lz4 package spends more than half
// of its time on the frame's own checksums; the batch has been checked already.
func unlz4(dst, src []byte) ([]byte, error) {
	bad := fmt.Errorf("%w: lz4", ErrCorrupt)
	for len(src) > 0 {
		if len(src) < 7 || binary.LittleEndian.Uint32(src) != lz4Magic {
			return nil, bad
		}
		flags, blockMax := src[4], 1<<(8+2*(src[5]>>4&7))
		if flags&lz4VersionMask != lz4Version || flags&lz4Dictionary != 0 || blockMax < 64<<10 {
			return nil, bad
		}
		head := 7
		if flags&lz4Size != 0 {
			head += 8
		}
		if len(src) < head {
			return nil, bad
		}
		src = src[head:]
		start := len(dst)
		for {
			if len(src) < 4 {
				return nil, bad
			}
			size := binary.LittleEndian.Uint32(src)
			src = src[4:]
			if size == 0 {
				break
			}
			n := int(size &^ lz4Stored)
			if n > blockMax || n > len(src) {
				return nil, bad
			}
			var err error
			if dst, err = lz4Block(dst, start, src[:n], size&lz4Stored != 0, flags&lz4Independent == 0, blockMax); err != nil {
				return nil, err
			}
			src = src[n:]
			if flags&lz4BlockSum != 0 {
				if len(src) < 4 {
					return nil, bad
				}
				src = src[4:]
			}
		}
		if flags&(1<<2) != 0 { // checksum of the content
			if len(src) < 4 {
				return nil, bad
			}
			src = src[4:]
		}
	}
	return dst, nil
}

func lz4Block(dst []byte, start int, src []byte, stored, linked bool, blockMax int) ([]byte, error) {
	if len(dst) > maxInflated-min(blockMax, len(src)) {
		return nil, tooLarge()
	}
	if stored {
		return append(dst, src...), nil
	}
	// A block of n bytes unpacks to at most 255 n: do not prepare 4 MiB for a hundred bytes.
	room := min(blockMax, 255*len(src)+64)
	if cap(dst)-len(dst) < room {
		dst = grow(dst, room)
	}
	var dict []byte
	if linked {
		dict = dst[max(start, len(dst)-lz4Window):]
	}
	n, err := lz4.UncompressBlockWithDict(src, dst[len(dst):len(dst)+room], dict)
	if err != nil {
		return nil, fmt.Errorf("%w: lz4", ErrCorrupt)
	}
	if len(dst)+n > maxInflated {
		return nil, tooLarge()
	}
	return dst[:len(dst)+n], nil
}

// grow returns dst with room for n bytes more.
func grow(dst []byte, n int) []byte {
	bigger := make([]byte, len(dst), max(2*cap(dst), len(dst)+n))
	copy(bigger, dst)
	return bigger
}
